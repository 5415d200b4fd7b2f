//! Our graph against one that was built by inserting node after node: recall at equal numbers of distance computations.

use roxanne_builder::{
    BuildParams,
    backend::{BuildCodes, cpu::Cpu},
    graph_build::build_graph,
    input::{encode_all, learn_codec},
    progress::{Silent, Watch},
    vamana::build_vamana,
};
use roxanne_core::{
    graph::Graph,
    id::NodeId,
    metric::Metric,
    search::{BeamSearch, Space, search_in_ram},
};
use roxanne_tests::{SIFT_BASE, SIFT_QUERIES, dataset};
use std::sync::atomic::AtomicBool;

/// What the smaller number of distances may cost: at 4,000 vectors both find nearly all, so little room is needed.
const MARGIN: f64 = 0.01;

struct QuerySpace<'a> {
    codes: &'a BuildCodes,
    graph: &'a Graph,
    query: &'a [u8],
}

impl Space for QuerySpace<'_> {
    fn distance(&mut self, node: NodeId) -> u32 {
        self.codes.metric.distance(self.codes.row(node.0), self.query)
    }
    fn expand(&mut self, node: NodeId, neighbors: &mut Vec<NodeId>) {
        neighbors.extend_from_slice(self.graph.neighbors(node));
    }
}

/// (distances, recall@10) a query for rising list sizes.
fn curve(codes: &BuildCodes, graph: &Graph, entry: NodeId, queries: &BuildCodes) -> Vec<(f64, f64)> {
    let nearest = |query: &[u8]| {
        let mut all: Vec<u32> = (0..codes.n() as u32).map(|row| codes.metric.distance(codes.row(row), query)).collect();
        *all.select_nth_unstable(9).1
    };
    let limits: Vec<u32> = (0..queries.n() as u32).map(|q| nearest(queries.row(q))).collect();
    let mut search = BeamSearch::default();
    let mut point = |list_size: usize| {
        let (mut distances, mut found) = (0, 0);
        for (q, &limit) in (0..).zip(&limits) {
            search_in_ram(&mut QuerySpace { codes, graph, query: queries.row(q) }, &[entry], list_size, &mut search, |_| {});
            distances += search.distance_count;
            found += search.found().take(10).filter(|f| f.distance <= limit).count();
        }
        (distances as f64 / limits.len() as f64, found as f64 / (10 * limits.len()) as f64)
    };
    [10, 11, 12, 14, 16, 20, 24, 32, 48, 64].into_iter().map(&mut point).collect()
}

/// Recall of `curve` at `distances`, between its points on a straight line; `None` outside them.
fn at(curve: &[(f64, f64)], distances: f64) -> Option<f64> {
    let pair = curve.windows(2).find(|w| w[0].0 <= distances && distances <= w[1].0)?;
    let share = (distances - pair[0].0) / (pair[1].0 - pair[0].0).max(1.0);
    Some(pair[0].1 + share * (pair[1].1 - pair[0].1))
}

#[test]
fn recall_at_equal_distance_computations_is_that_of_vamana() {
    let metric = Metric::L2;
    let (stop, source) = (AtomicBool::new(false), dataset(SIFT_BASE, metric));
    let watch = Watch::new(&Silent, &stop);
    let codec = learn_codec(&source, metric, 1).unwrap();
    let encoded = |source: &str| encode_all(&dataset(source, metric), &codec, &watch, metric).unwrap().0;
    let params = BuildParams { max_degree: 32, ..BuildParams::default() }.graph(128).unwrap();
    let ours = build_graph(encoded(SIFT_BASE), &params, &Cpu::default(), &watch).unwrap();
    let (graph, entry) = build_vamana(&ours.codes, &params.prune, 100, 1);

    let queries = encoded(SIFT_QUERIES);
    let vamana = curve(&ours.codes, &graph, entry, &queries);
    let ours = curve(&ours.codes, &ours.graph, ours.entry, &queries);
    let compared: Vec<(f64, f64, f64)> = vamana.iter().filter_map(|&(d, theirs)| Some((d, theirs, at(&ours, d)?))).collect();
    assert!(compared.len() >= 5, "the curves hardly meet: ours {ours:?}, vamana {vamana:?}");
    for (distances, theirs, ours) in compared {
        assert!(ours >= theirs - MARGIN, "at {distances:.0} distances a query: ours {ours:.4}, vamana {theirs:.4}");
    }
}
