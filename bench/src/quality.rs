//! How well a graph leads to the nearest neighbors, by itself: no disk, no compressed distances, one entry point.
//!
//! A search is steered by the exact integer distances that the graph was built on; its list is then ranked by the metric's own
//! distances on the rows themselves. What it costs is counted in distance computations, which no machine and no kernel changes. Two
//! graphs are compared at equal cost: their recall there is read off their curves (`recall_at`).

use rayon::prelude::*;
use roxanne_builder::backend::BuildCodes;
use roxanne_core::{
    distance::DistanceFn,
    graph::Graph,
    id::NodeId,
    neighbor::{Distance, Neighbor},
    recall::{Truth, recall_at_k},
    search::{BeamSearch, Space, search_in_ram},
};

/// A graph, and what its nodes stand for.
pub struct Subject<'a> {
    /// The rows in the graph's order.
    pub codes: &'a BuildCodes,
    /// Which row of the base each node is.
    pub row_of: &'a [NodeId],
    /// The edges.
    pub graph: &'a Graph,
    /// Where every search begins.
    pub entry: NodeId,
}

/// The queries and what they should find.
pub struct Trial<'a> {
    /// Query rows under the build metric `[n x stride]`.
    pub codes: &'a BuildCodes,
    /// The same rows, raw `[n * row_bytes]`.
    pub queries: &'a [u8],
    /// Rows of the base, raw `[.. * row_bytes]`.
    pub base: &'a [u8],
    /// Bytes of a raw row.
    pub row_bytes: usize,
    /// The metric on raw rows.
    pub distance: DistanceFn,
    /// The exact neighbors.
    pub truth: &'a Truth,
    /// Neighbors asked for.
    pub k: usize,
}

/// What searches with one list size gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// L.
    pub list_size: usize,
    /// Mean recall@k.
    pub recall: f64,
    /// Mean distance computations a query.
    pub distances: f64,
}

/// A graph in RAM, searched for a row that is none of its own.
struct Outside<'a> {
    subject: &'a Subject<'a>,
    query: &'a [u8],
}

impl Space for Outside<'_> {
    fn distance(&mut self, node: NodeId) -> u32 {
        self.subject.codes.metric.distance(self.query, self.subject.codes.row(node.0))
    }
    fn expand(&mut self, node: NodeId, neighbors: &mut Vec<NodeId>) {
        neighbors.extend_from_slice(self.subject.graph.neighbors(node));
    }
}

/// Asks all queries with one list size (L), on the caller's rayon pool.
pub fn measure(subject: &Subject<'_>, trial: &Trial<'_>, list_size: usize) -> Point {
    let n = trial.codes.n();
    let one = |search: &mut BeamSearch, query: usize| -> (f64, u64) {
        let mut space = Outside { subject, query: trial.codes.row(query as u32) };
        search_in_ram(&mut space, &[subject.entry], list_size, search, |_| {});
        let raw = &trial.queries[query * trial.row_bytes..][..trial.row_bytes];
        let ranked = |node: NodeId| {
            let id = subject.row_of[node.index()];
            let row = &trial.base[id.index() * trial.row_bytes..][..trial.row_bytes];
            Neighbor { distance: Distance(trial.distance.distance(raw, row)), id }
        };
        let mut found: Vec<Neighbor<Distance>> = search.found().map(|f| ranked(f.id)).collect();
        found.sort_unstable();
        let rows: Vec<u64> = found.iter().take(trial.k).map(|f| u64::from(f.id.0)).collect();
        (recall_at_k(trial.truth, query as u64, &rows, trial.k), search.distance_count)
    };
    // Collected in order, so that the mean does not depend on the threads.
    let each: Vec<(f64, u64)> = (0..n).into_par_iter().map_init(BeamSearch::default, one).collect();
    let mean = |total: f64| total / n.max(1) as f64;
    Point { list_size, recall: mean(each.iter().map(|e| e.0).sum()), distances: mean(each.iter().map(|e| e.1).sum::<u64>() as f64) }
}

/// The recall of a curve at `distances` computations, read between its points on a logarithmic axis; `None` beyond its ends.
///
/// A recall curve bows upward on that axis, so the straight line between two points says rather too little.
pub fn recall_at(curve: &[Point], distances: f64) -> Option<f64> {
    curve.windows(2).find(|pair| (pair[0].distances..=pair[1].distances).contains(&distances)).map(|pair| {
        let [low, high] = [pair[0], pair[1]].map(|p| p.distances.ln());
        let share = if high > low { (distances.ln() - low) / (high - low) } else { 1.0 };
        pair[0].recall + share * (pair[1].recall - pair[0].recall)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxanne_core::{element::ElementType, metric::Metric, tile::BuildMetric};

    fn point(distances: f64, recall: f64) -> Point {
        Point { list_size: 1, recall, distances }
    }

    #[test]
    fn a_curve_is_read_between_its_points_and_not_beyond() {
        let curve = [point(100.0, 0.5), point(400.0, 0.75), point(1600.0, 1.0)];
        assert_eq!(recall_at(&curve, 100.0), Some(0.5));
        assert!((recall_at(&curve, 200.0).unwrap() - 0.625).abs() < 1e-12, "halfway in the logarithm");
        assert!((recall_at(&curve, 1600.0).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!((recall_at(&curve, 99.0), recall_at(&curve, 1601.0), recall_at(&[], 5.0)), (None, None, None));
    }

    /// Five nodes on a line, one unit apart, each joined to the next and the one before; node i is row 4 - i.
    fn line() -> (BuildCodes, Vec<NodeId>, Graph) {
        let bytes = (0..5u8).flat_map(|i| std::iter::once(4 - i).chain([0; 31])).collect();
        let mut graph = Graph::new(5, 2);
        for i in 0..5u32 {
            let next: Vec<NodeId> = [i.wrapping_sub(1), i + 1].into_iter().filter(|&j| j < 5).map(NodeId).collect();
            graph.set(NodeId(i), &next);
        }
        (BuildCodes { metric: BuildMetric::L2, stride: 32, bytes }, (0..5).rev().map(NodeId).collect(), graph)
    }

    #[test]
    fn a_walk_along_a_line_finds_its_end_and_counts_its_steps() {
        let (codes, row_of, graph) = line();
        let query = BuildCodes { metric: BuildMetric::L2, stride: 32, bytes: vec![0; 32] };
        let truth = Truth { n: 1, k: 2, ids: vec![0, 1], distances: vec![0.0, 1.0] };
        let trial = Trial {
            codes: &query,
            queries: &[0],
            base: &[0, 1, 2, 3, 4],
            row_bytes: 1,
            distance: DistanceFn::new(Metric::L2, ElementType::U8, 1).unwrap(),
            truth: &truth,
            k: 2,
        };
        let subject = Subject { codes: &codes, row_of: &row_of, graph: &graph, entry: NodeId(0) };
        assert_eq!(measure(&subject, &trial, 2), Point { list_size: 2, recall: 1.0, distances: 5.0 });
        // A list of one holds the nearest alone: half of the truth.
        assert_eq!(measure(&subject, &trial, 1).recall, 0.5);
    }
}
