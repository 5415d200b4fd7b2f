//! A directed graph of bounded degree in RAM: one row of neighbors a node.

use crate::{aside::breathe, huge, id::NodeId};
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Rows [n x max_degree], of which each node uses its first `degree`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    max_degree: usize,
    degrees: Vec<u16>,
    neighbors: Vec<NodeId>,
}

impl Graph {
    /// `n` nodes without neighbors; a row will hold up to `max_degree` (R), at most 65,535.
    pub fn new(n: usize, max_degree: usize) -> Graph {
        assert!((1..=usize::from(u16::MAX)).contains(&max_degree), "max_degree {max_degree}");
        Graph { max_degree, degrees: huge::zeroed(n), neighbors: huge::zeroed(n * max_degree) }
    }

    /// Number of nodes.
    pub fn n(&self) -> usize {
        self.degrees.len()
    }

    /// Room of a row (R).
    pub fn max_degree(&self) -> usize {
        self.max_degree
    }

    /// The neighbors of `node`.
    #[inline]
    pub fn neighbors(&self, node: NodeId) -> &[NodeId] {
        let start = node.index() * self.max_degree;
        &self.neighbors[start..start + usize::from(self.degrees[node.index()])]
    }

    /// Replaces the row of `node`; `neighbors` is at most `max_degree` long.
    pub fn set(&mut self, node: NodeId, neighbors: &[NodeId]) {
        let start = node.index() * self.max_degree;
        self.neighbors[start..start + self.max_degree][..neighbors.len()].copy_from_slice(neighbors);
        self.degrees[node.index()] = neighbors.len() as u16;
    }

    /// Adds one neighbor; false when the row is full.
    pub fn push(&mut self, node: NodeId, neighbor: NodeId) -> bool {
        let degree = usize::from(self.degrees[node.index()]);
        if degree == self.max_degree {
            return false;
        }
        self.neighbors[node.index() * self.max_degree + degree] = neighbor;
        self.degrees[node.index()] += 1;
        true
    }

    /// Mutable rows for filling in parallel: `rows_per_chunk` rows a chunk, each (degrees, neighbors [rows x max_degree]).
    pub fn chunks_mut(&mut self, rows_per_chunk: usize) -> Vec<(&mut [u16], &mut [NodeId])> {
        let width = self.max_degree * rows_per_chunk;
        self.degrees.chunks_mut(rows_per_chunk).zip(self.neighbors.chunks_mut(width)).collect()
    }

    /// All edges.
    pub fn edge_count(&self) -> u64 {
        self.degrees.iter().map(|&d| u64::from(d)).sum()
    }

    /// How many nodes no edge leads to.
    pub fn without_in_edge(&self) -> u64 {
        self.marked_by_edges().into_iter().filter(|&marked| !marked).count() as u64
    }

    /// How many nodes `from` leads to, itself included: breadth first, each level in parallel.
    pub fn reached_from(&self, from: NodeId) -> u64 {
        self.marks_from(from).1
    }

    /// Whether `from` leads to each node; to itself it does.
    pub fn marked_from(&self, from: NodeId) -> Vec<bool> {
        self.marks_from(from).0.spread(self.n())
    }

    fn marks_from(&self, from: NodeId) -> (Marks, u64) {
        let marks = Marks::new(self.n());
        let is_new = |node: &NodeId| marks.mark(*node);
        let mut level: Vec<NodeId> = Some(from).into_iter().filter(is_new).collect();
        let mut count = 0;
        while !level.is_empty() {
            count += level.len() as u64;
            level = level.par_iter().flat_map_iter(|&node| self.neighbors(node).iter().copied().filter(is_new)).collect();
        }
        (marks, count)
    }

    /// Whether any edge leads to each node.
    pub fn marked_by_edges(&self) -> Vec<bool> {
        let marks = Marks::new(self.n());
        (0..self.n() as u32).into_par_iter().for_each(|node| {
            self.neighbors(NodeId(node)).iter().for_each(|&neighbor| {
                marks.mark(neighbor);
            });
        });
        marks.spread(self.n())
    }

    /// Marks every node that `from` leads to (itself included) in `reached` and returns the newly marked, in breadth-first order.
    pub fn reach(&self, from: NodeId, reached: &mut [bool]) -> Vec<NodeId> {
        let mut order = Vec::new();
        if !std::mem::replace(&mut reached[from.index()], true) {
            order.push(from);
        }
        let mut next = 0;
        while next < order.len() {
            for &neighbor in self.neighbors(order[next]) {
                if !std::mem::replace(&mut reached[neighbor.index()], true) {
                    order.push(neighbor);
                }
            }
            next += 1;
            // Rows of neighbors lie anywhere: a few of them are many misses.
            if next.is_multiple_of(32) {
                breathe();
            }
        }
        order
    }
}

/// One bit a node, set by any thread.
struct Marks(Vec<AtomicU64>);

impl Marks {
    fn new(n: usize) -> Marks {
        Marks(huge::zeroed(n.div_ceil(64)))
    }

    /// Whether the mark is new.
    fn mark(&self, node: NodeId) -> bool {
        let (word, bit) = (&self.0[node.index() / 64], 1 << (node.index() % 64));
        // Most edges lead back to what is marked already, and a look is cheaper than a write.
        word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0
    }

    fn spread(&self, n: usize) -> Vec<bool> {
        (0..n).into_par_iter().map(|node| self.0[node / 64].load(Relaxed) >> (node % 64) & 1 == 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::CounterRng;

    #[test]
    fn a_full_row_takes_no_more_and_reach_follows_edges_one_way() {
        let mut graph = Graph::new(4, 2);
        assert!(graph.push(NodeId(0), NodeId(1)) && graph.push(NodeId(0), NodeId(2)));
        assert!(!graph.push(NodeId(0), NodeId(3)));
        graph.set(NodeId(3), &[NodeId(0)]);
        let mut reached = vec![false; 4];
        assert_eq!(graph.reach(NodeId(0), &mut reached), [NodeId(0), NodeId(1), NodeId(2)]);
        assert_eq!(graph.reach(NodeId(3), &mut reached), [NodeId(3)]);
        assert_eq!((graph.edge_count(), graph.without_in_edge()), (3, 1));
    }

    #[test]
    fn as_many_are_reached_in_parallel_as_one_after_the_other() {
        for (n, degree) in [(1, 1), (2, 1), (63, 2), (65, 3), (5000, 1), (5000, 2), (5000, 7)] {
            let rng = CounterRng::new(n as u64).part(degree as u64);
            let mut graph = Graph::new(n, degree);
            for node in 0..n as u32 {
                // Every seventh is a dead end; loops and double edges occur.
                let edges = if node % 7 == 6 { 0 } else { degree as u64 };
                let row: Vec<NodeId> = (0..edges).map(|e| NodeId(rng.part(e).below(u64::from(node), n as u64) as u32)).collect();
                graph.set(NodeId(node), &row);
            }
            for from in [0, n as u32 / 2, n as u32 - 1].map(NodeId) {
                let one_by_one = graph.reach(from, &mut vec![false; n]).len() as u64;
                assert_eq!(graph.reached_from(from), one_by_one, "n {n} degree {degree} from {from:?}");
            }
        }
    }
}
