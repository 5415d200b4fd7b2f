//! The order of ids, which is the order on disk: nodes that a search wants together share a page.
//!
//! Pages are filled one after the other. A page begins with the next unplaced node in breadth-first order from the entry; then, again and
//! again, the unplaced node that the page's nodes point to most comes in, nearer edges counting more. One serial pass, so the
//! result depends on nothing but the graph. (Starling, SIGMOD 2024, calls the goal "block shuffling"; this is a greedy one-pass form.)

use crate::{BuildError, progress::Watch};
use roxanne_core::{graph::Graph, id::NodeId};

/// Nodes between two looks at the progress.
const STEP: usize = 65_536;

/// The new order: `order[new id] = old id`.
///
/// # Errors
/// A stop.
pub fn page_order(graph: &Graph, entry: NodeId, per_page: usize, watch: &Watch<'_>) -> Result<Vec<NodeId>, BuildError> {
    let n = graph.n();
    let by_breadth = graph.reach(entry, &mut vec![false; n]);
    let mut placed = vec![false; n];
    let mut order: Vec<NodeId> = Vec::with_capacity(n);
    let mut page = PageScores::new();
    let mut told = 0;
    for &seed in &by_breadth {
        if placed[seed.index()] {
            continue;
        }
        page.clear();
        let mut next = Some(seed);
        let mut count = 0;
        while let Some(node) = next {
            placed[node.index()] = true;
            order.push(node);
            count += 1;
            if count == per_page {
                break;
            }
            let row = graph.neighbors(node);
            for (rank, &neighbor) in row.iter().enumerate() {
                if !placed[neighbor.index()] {
                    page.add(neighbor, (row.len() + row.len() / 2 - rank) as u32);
                }
            }
            next = page.best(&placed);
        }
        if order.len() >= told + STEP {
            watch.advance((order.len() - told) as u64)?;
            told = order.len();
        }
    }
    watch.advance((order.len() - told) as u64)?;
    Ok(order)
}

/// How much each unplaced node is wanted by the page being filled.
struct PageScores {
    /// Open addressing over at most per_page * R candidates: (id + 1) << 32 | score; 0 is free.
    slots: Vec<u64>,
    used: Vec<u32>,
}

impl PageScores {
    fn new() -> PageScores {
        PageScores { slots: vec![0; 4096], used: Vec::new() }
    }

    fn clear(&mut self) {
        for at in self.used.drain(..) {
            self.slots[at as usize] = 0;
        }
    }

    fn add(&mut self, node: NodeId, score: u32) {
        if self.used.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = (u64::from(node.0).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize & mask;
        let name = u64::from(node.0) + 1;
        while self.slots[at] != 0 && self.slots[at] >> 32 != name {
            at = (at + 1) & mask;
        }
        if self.slots[at] == 0 {
            self.used.push(at as u32);
            self.slots[at] = name << 32;
        }
        self.slots[at] += u64::from(score);
    }

    fn grow(&mut self) {
        let size = self.slots.len() * 2;
        let old = std::mem::replace(&mut self.slots, vec![0; size]);
        self.used.clear();
        for slot in old.into_iter().filter(|&s| s != 0) {
            self.add(NodeId(((slot >> 32) - 1) as u32), slot as u32);
        }
    }

    /// The most wanted unplaced node; among equals the smallest id.
    fn best(&self, placed: &[bool]) -> Option<NodeId> {
        let candidates = self.used.iter().map(|&at| self.slots[at as usize]);
        let unplaced = candidates.map(|s| (s as u32, NodeId(((s >> 32) - 1) as u32))).filter(|(_, id)| !placed[id.index()]);
        unplaced.max_by_key(|&(score, id)| (score, std::cmp::Reverse(id))).map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn neighbors_share_pages_and_every_node_is_placed_once() {
        // Two cliques of four, joined by one edge; ids interleaved.
        let mut graph = Graph::new(8, 4);
        for i in 0..8u32 {
            let mut row: Vec<NodeId> = (0..8).filter(|&j| j != i && j % 2 == i % 2).map(NodeId).collect();
            if i == 0 {
                row.insert(0, NodeId(1));
            }
            graph.set(NodeId(i), &row);
        }
        let stop = false.into();
        let order = page_order(&graph, NodeId(0), 4, &Watch::new(&Silent, &stop)).unwrap();
        let mut sorted: Vec<u32> = order.iter().map(|o| o.0).collect();
        let page: Vec<u32> = sorted[..4].to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..8).collect::<Vec<_>>());
        assert_eq!(page.iter().filter(|&&id| id % 2 == 0).count(), 3, "page {page:?}: the edge 0 -> 1 is the nearest, then one clique");
    }
}
