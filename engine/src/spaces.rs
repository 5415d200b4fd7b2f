//! The graphs that a search walks in RAM, each under the distance that steers it: the navigation graph and the whole graph under compressed
//! distances, pages that are all in RAM under exact ones.

use crate::{base::Base, kept::Adjacency, live_pages::Pages, ranker::Ranker};
use crossbeam_epoch::Guard;
use roxanne_core::{
    format::record::Record,
    id::NodeId,
    neighbor::{Distance, Neighbor},
    pq::LookupTable,
    search::Space,
    tile::prefetch,
};
use std::collections::BinaryHeap;

/// How far ahead of the distance being computed its vector is asked for.
const AHEAD: usize = 6;

/// The distance of a node that has left its slot: it is taken for the farthest, and leads nowhere.
pub(crate) const LEFT: u32 = u32::MAX;

/// Pages that are all in RAM, as one who looks at them sees them.
#[derive(Clone, Copy)]
pub(crate) struct Resident<'a> {
    pub(crate) base: &'a Base,
    pub(crate) pages: &'a Pages,
    pub(crate) guard: &'a Guard,
}

impl<'a> Resident<'a> {
    /// The record of a node, which was checked when its page was loaded or written; `None` of one that has left.
    #[inline]
    pub(crate) fn record(self, node: NodeId) -> Option<Record<'a>> {
        let layout = &self.base.layout;
        let record = layout.record(self.pages.page(layout.page_of(node), self.guard), layout.slot_of(node));
        self.base.is_used(record).then_some(record)
    }

    /// Asks for the vector of a node, which will be wanted.
    #[inline]
    fn prefetch(self, node: NodeId) {
        let layout = &self.base.layout;
        prefetch(layout.record(self.pages.page(layout.page_of(node), self.guard), layout.slot_of(node)).vector());
    }
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
    pub(crate) resident: Resident<'a>,
    pub(crate) ranker: &'a Ranker,
    /// Every node whose distance was computed, where that is wanted.
    pub(crate) met: Option<Vec<Neighbor<u32>>>,
    /// The `k` shortest distances so far, where the base is changed in place.
    pub(crate) best: BinaryHeap<u32>,
    pub(crate) k: usize,
}

impl ResidentSpace<'_> {
    /// Whether a node is one of the `k` nearest so far.
    fn is_near(&mut self, node: NodeId) -> bool {
        let farthest = if self.best.len() < self.k { None } else { self.best.peek().copied() };
        farthest.is_none_or(|farthest| self.distance(node) <= farthest)
    }

    fn note(&mut self, distance: u32) {
        if self.best.len() < self.k {
            self.best.push(distance);
        } else if let Some(mut farthest) = self.best.peek_mut().filter(|farthest| distance < **farthest) {
            *farthest = distance;
        }
    }
}

impl Space for ResidentSpace<'_> {
    fn distance(&mut self, node: NodeId) -> u32 {
        let record = self.resident.record(node);
        record.map_or(LEFT, |record| Distance(self.ranker.distance(self.resident.base, record.vector())).rank())
    }
    fn distances(&mut self, nodes: &[NodeId], out: &mut Vec<u32>) {
        let is_live = self.resident.base.live.is_some();
        out.clear();
        nodes.iter().take(AHEAD).for_each(|&node| self.resident.prefetch(node));
        for (at, &id) in nodes.iter().enumerate() {
            if let Some(&node) = nodes.get(at + AHEAD) {
                self.resident.prefetch(node);
            }
            let distance = self.distance(id);
            out.push(distance);
            if is_live {
                self.note(distance);
            }
            if let Some(met) = &mut self.met {
                met.push(Neighbor { distance, id });
            }
        }
    }
    fn expand(&mut self, node: NodeId, neighbors: &mut Vec<NodeId>) {
        // Bounds were proven when the pages were loaded; a list that fails them now has no neighbors.
        let Resident { base, pages, guard } = self.resident;
        if let Some(record) = self.resident.record(node) {
            let _ = base.neighbors(record, neighbors);
        }
        // A merge sees to it that every node is met by who looks at whole pages, as a search does that reads them; not that an edge leads to each. Pages of
        // the nearest are enough: what is near lies near. Looking at those of all costs a fourth of the rate (bench/RESULTS.md, a live base in memory).
        if base.live.is_some() && self.is_near(node) {
            let page = base.layout.page_of(node);
            let (first, count) = base.nodes_of(page, pages.page(page, guard));
            neighbors.extend((0..count as u64).map(|slot| NodeId((first + slot) as u32)));
        }
    }
}
