//! The graphs that a search walks in RAM, each under the distance that steers it: the navigation graph and the whole graph under compressed
//! distances, pages that are all in RAM under exact ones.

use crate::{base::Base, kept::Adjacency, ranker::Ranker};
use roxanne_core::{
    format::record::Record,
    id::NodeId,
    neighbor::{Distance, Neighbor},
    pq::LookupTable,
    search::Space,
    tile::prefetch,
};

/// How far ahead of the distance being computed its vector is asked for.
const AHEAD: usize = 6;

/// The record of a node in pages that are all in RAM, checked when they were loaded.
#[inline]
pub(crate) fn resident_record<'a>(base: &Base, pages: &'a [u8], node: NodeId) -> Record<'a> {
    let page = &pages[base.layout.page_of(node) as usize * base.layout.page_bytes..][..base.layout.page_bytes];
    base.layout.record(page, base.layout.slot_of(node))
}

/// The navigation graph under compressed distances.
pub(crate) struct NavSpace<'a> {
    pub(crate) base: &'a Base,
    pub(crate) table: &'a LookupTable,
    pub(crate) nodes: Vec<NodeId>,
}

impl Space for NavSpace<'_> {
    fn distance(&mut self, place: NodeId) -> u32 {
        self.table.distance(self.base.code(self.base.nav.ids[place.index()]))
    }
    fn distances(&mut self, places: &[NodeId], out: &mut Vec<u32>) {
        self.nodes.clear();
        self.nodes.extend(places.iter().map(|place| self.base.nav.ids[place.index()]));
        self.table.distances_by(|node| self.base.codes.get(node), &self.nodes, out);
    }
    fn expand(&mut self, place: NodeId, neighbors: &mut Vec<NodeId>) {
        neighbors.extend_from_slice(self.base.nav.graph.neighbors(place));
    }
}

/// The whole graph in RAM under compressed distances.
pub(crate) struct CodeSpace<'a> {
    pub(crate) base: &'a Base,
    pub(crate) table: &'a LookupTable,
    pub(crate) adjacency: &'a Adjacency,
}

impl Space for CodeSpace<'_> {
    fn distance(&mut self, node: NodeId) -> u32 {
        self.table.distance(self.base.code(node))
    }
    fn distances(&mut self, nodes: &[NodeId], out: &mut Vec<u32>) {
        self.table.distances_by(|node| self.base.codes.get(node), nodes, out);
    }
    fn expand(&mut self, node: NodeId, neighbors: &mut Vec<NodeId>) {
        self.adjacency.neighbors(&self.base.layout, self.base.n(), node, neighbors);
    }
}

/// Pages that are all in RAM, under exact distances.
pub(crate) struct ResidentSpace<'a> {
    pub(crate) base: &'a Base,
    pub(crate) pages: &'a [u8],
    pub(crate) ranker: &'a Ranker,
    /// Every node whose distance was computed, where that is wanted.
    pub(crate) met: Option<Vec<Neighbor<u32>>>,
}

impl ResidentSpace<'_> {
    fn vector(&self, node: NodeId) -> &[u8] {
        resident_record(self.base, self.pages, node).vector()
    }
}

impl Space for ResidentSpace<'_> {
    fn distance(&mut self, node: NodeId) -> u32 {
        Distance(self.ranker.distance(self.base, self.vector(node))).rank()
    }
    fn distances(&mut self, nodes: &[NodeId], out: &mut Vec<u32>) {
        out.clear();
        nodes.iter().take(AHEAD).for_each(|&node| prefetch(self.vector(node)));
        for (at, &id) in nodes.iter().enumerate() {
            if let Some(&ahead) = nodes.get(at + AHEAD) {
                prefetch(self.vector(ahead));
            }
            let distance = self.distance(id);
            out.push(distance);
            if let Some(met) = &mut self.met {
                met.push(Neighbor { distance, id });
            }
        }
    }
    fn expand(&mut self, node: NodeId, neighbors: &mut Vec<NodeId>) {
        // Bounds were proven when the pages were loaded; a list that fails them now has no neighbors.
        let _ = resident_record(self.base, self.pages, node).neighbors(self.base.n(), neighbors);
    }
}
