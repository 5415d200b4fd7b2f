//! Every node must be found: whatever the entry point does not reach gets an in-edge from its nearest reached candidate with room.
//!
//! Rows are never cut, so nothing that was reachable can be lost and no row passes R. Nodes without any in-edge come first: linking the head of
//! a chain brings the rest of it along.

use crate::backend::{BackendError, BuildCodes};
use roxanne_core::{
    graph::Graph,
    id::NodeId,
    random::CounterRng,
    search::{BeamSearch, Space, search_in_ram},
    tile::entry_row,
};

/// The node from which all others must be reachable: of a few sampled nodes the one nearest to a sample.
pub fn entry_point(codes: &BuildCodes, seed: u64) -> NodeId {
    let rng = CounterRng::new(seed).part(0xE117);
    let some = rng.part(1).sample(codes.n() as u64, 256);
    let others = rng.part(2).sample(codes.n() as u64, 1024);
    let total = |&a: &u64| -> u64 { others.iter().map(|&b| u64::from(codes.distance(NodeId(a as u32), NodeId(b as u32)))).sum() };
    NodeId(some.iter().min_by_key(|a| (total(a), **a)).map_or(0, |&a| a as u32))
}

/// Whether a row of a graph by itself takes one more neighbor.
pub fn has_room(graph: &Graph, node: NodeId) -> bool {
    graph.neighbors(node).len() < graph.max_degree()
}

/// Nodes whose candidates are asked for at once.
const ASK: usize = 4096;

/// What the fix-up did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Edges that it added.
    pub edges: u64,
    /// Nodes that the entry reaches now, counted over the finished rows.
    pub reached: u64,
}

/// Adds edges until `entry` reaches every node, which it does at the end unless `room`, which says whether a row takes one more, says no
/// everywhere. `candidates` gives what the reservoirs of some nodes hold: entries, sorted.
///
/// # Errors
/// Those of `candidates`.
pub fn link_unreachable(
    codes: &BuildCodes,
    candidates: impl Fn(&[u32]) -> Result<Vec<Vec<u64>>, BackendError>,
    entry: NodeId,
    graph: &mut Graph,
    room: impl Fn(&Graph, NodeId) -> bool,
) -> Result<Fixed, BackendError> {
    let n = graph.n();
    let before = graph.reached_from(entry);
    if before == n as u64 {
        return Ok(Fixed { edges: 0, reached: before });
    }
    let mut reached = graph.marked_from(entry);
    let has_in_edge = graph.marked_by_edges();
    let unreached =
        |in_edge: bool| (0..n as u32).filter(|&i| !reached[i as usize] && has_in_edge[i as usize] == in_edge).collect::<Vec<_>>();
    let nodes = [unreached(false), unreached(true)].concat();
    let (mut added, mut search) = (0, BeamSearch::default());
    // The last resort looks for room among those linked last, then from the last node back.
    let (mut young, mut old) = (Vec::new(), n);
    for some in nodes.chunks(ASK) {
        for (&node, candidates) in some.iter().zip(candidates(some)?) {
            if reached[node as usize] {
                continue;
            }
            let id = NodeId(node);
            let mut from = candidates.iter().map(|&e| NodeId(entry_row(e))).find(|c| reached[c.index()] && room(graph, *c));
            if from.is_none() {
                let mut space = RamSpace { codes, graph, query: id };
                search_in_ram(&mut space, &[entry], 64, &mut search, |_| {});
                from = search.found().map(|f| f.id).find(|&f| room(graph, f));
            }
            // A full row's node stays behind its successors; each newly linked node brings room of its own, so this ends.
            while let (None, Some(&last)) = (from, young.last()) {
                if room(graph, last) {
                    from = Some(last);
                } else {
                    young.pop();
                }
            }
            while from.is_none() && old > 0 {
                let last = NodeId(old as u32 - 1);
                if reached[last.index()] && room(graph, last) {
                    from = Some(last);
                } else {
                    old -= 1;
                }
            }
            let Some(from) = from else { return Ok(Fixed { edges: added, reached: graph.reached_from(entry) }) };
            graph.push(from, id);
            added += 1;
            young.extend(graph.reach(id, &mut reached));
        }
    }
    Ok(Fixed { edges: added, reached: graph.reached_from(entry) })
}

/// A graph in RAM over build codes, searched for the neighborhood of one of its rows.
pub struct RamSpace<'a> {
    /// The vectors.
    pub codes: &'a BuildCodes,
    /// The graph.
    pub graph: &'a Graph,
    /// The row that is looked for.
    pub query: NodeId,
}

impl Space for RamSpace<'_> {
    fn distance(&mut self, node: NodeId) -> u32 {
        self.codes.distance(self.query, node)
    }
    fn expand(&mut self, node: NodeId, neighbors: &mut Vec<NodeId>) {
        neighbors.extend_from_slice(self.graph.neighbors(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxanne_core::tile::BuildMetric;

    #[test]
    fn islands_and_full_hubs_are_linked_within_the_degree() {
        for (n, degree) in [(1usize, 1), (2, 1), (50, 1), (300, 2), (300, 7)] {
            let codes = BuildCodes { metric: BuildMetric::L2, stride: 32, bytes: (0..n).flat_map(|i| [(i % 251) as u8; 32]).collect() };
            let mut graph = Graph::new(n, degree);
            for i in 0..n as u32 {
                // All point at node 0, which is full with the next few.
                graph.set(NodeId(i), &if i == 0 { (1..=degree.min(n - 1) as u32).map(NodeId).collect() } else { vec![NodeId(0)] });
            }
            let entry = entry_point(&codes, 1);
            link_unreachable(&codes, |nodes| Ok(vec![Vec::new(); nodes.len()]), entry, &mut graph, has_room).unwrap();
            let mut reached = vec![false; n];
            let count = graph.reach(entry, &mut reached).len();
            // With R = 1 and every row full nothing can be added; the caller refuses such a build.
            assert!(count == n || degree == 1, "n {n} R {degree}: {count}");
        }
    }
}
