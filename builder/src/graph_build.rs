//! From codes to a graph: partition, all pairs inside leaves, reservoirs, prune, fix-up. The main graph and the navigation graph are both
//! made here.

use crate::{
    BuildError,
    backend::{Backend, BuildCodes, Groups},
    fixup,
    partition::{self, PartitionParams, TopLevel},
    progress::Watch,
    reservoir::Reservoirs,
};
use roxanne_core::{graph::Graph, id::NodeId, prune::PruneParams};
use std::time::Instant;

/// Members of top clusters that are cut to leaves, compared and merged at once; it bounds the memory between these stages.
pub const BATCH_MEMBERS: usize = 100_000;

/// How a graph is made.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphParams {
    /// Clusters.
    pub partition: PartitionParams,
    /// Neighbors that a row of a leaf gives and takes.
    pub leaf_k: usize,
    /// Candidates kept for the prune.
    pub reservoir: usize,
    /// Degree and alpha.
    pub prune: PruneParams,
    /// Seed of all random choices.
    pub seed: u64,
}

/// Work and time of the stages, for reports: a pair is one row against one candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageWork {
    /// Rows against leaders.
    pub assign_pairs: u64,
    /// Seconds in assign.
    pub assign_seconds: f64,
    /// Rows against the other rows of their leaf.
    pub leaf_pairs: u64,
    /// Seconds in leaf_knn.
    pub leaf_seconds: f64,
    /// Seconds in merge.
    pub merge_seconds: f64,
    /// Seconds in prune.
    pub prune_seconds: f64,
    /// Edges that the fix-up added.
    pub fixed_edges: u64,
}

/// A graph whose `entry` reaches every node. Its nodes are the input's rows in another order.
pub struct BuiltGraph {
    /// The rows in the graph's order.
    pub codes: BuildCodes,
    /// Which row of the input each node is.
    pub order: Vec<NodeId>,
    /// Rows in order of (distance, id), fixed edges last.
    pub graph: Graph,
    /// Reaches all.
    pub entry: NodeId,
    /// What it took.
    pub work: StageWork,
}

/// Builds the graph of `codes`, which hold at least one row.
///
/// # Errors
/// The backend, a stop, or a degree too small to reach every node.
pub fn build_graph(codes: BuildCodes, params: &GraphParams, backend: &dyn Backend, watch: &Watch<'_>) -> Result<BuiltGraph, BuildError> {
    let (n, partition) = (codes.n(), &params.partition);
    let mut work = StageWork::default();
    watch.phase("cells", n as u64, "rows");
    let start = Instant::now();
    let TopLevel { codes, order, cut } = partition::top_level(backend, codes, partition, params.seed)?;
    work.assign_seconds += start.elapsed().as_secs_f64();
    work.assign_pairs += cut.pairs;
    watch.advance(n as u64)?;

    let reservoirs = Reservoirs::new(n, params.reservoir);
    watch.phase("graph", (cut.leaves.members.len() + cut.open.members()) as u64, "rows");
    let join = |leaves: &Groups, work: &mut StageWork| -> Result<(), BuildError> {
        let start = Instant::now();
        let lists = backend.leaf_knn(&codes, leaves, params.leaf_k)?;
        work.leaf_seconds += start.elapsed().as_secs_f64();
        work.leaf_pairs += (0..leaves.len()).map(|l| leaves.range(l).len() as u64).map(|size| size * (size - 1)).sum::<u64>();
        let start = Instant::now();
        backend.merge(leaves, &lists, params.leaf_k, &reservoirs)?;
        work.merge_seconds += start.elapsed().as_secs_f64();
        Ok(())
    };
    join(&cut.leaves, &mut work)?;
    watch.advance(cut.leaves.members.len() as u64)?;
    let batches = cut.open.batches(BATCH_MEMBERS);
    drop(cut);
    for batch in batches {
        let members = batch.members();
        let mut leaves = Groups::new();
        let start = Instant::now();
        work.assign_pairs += partition::cut_to_leaves(backend, &codes, batch, 1, partition, &mut leaves)?;
        work.assign_seconds += start.elapsed().as_secs_f64();
        join(&leaves, &mut work)?;
        watch.advance(members as u64)?;
    }

    watch.phase("prune", n as u64, "rows");
    let start = Instant::now();
    let mut graph = backend.prune(&codes, &reservoirs, &params.prune)?;
    work.prune_seconds += start.elapsed().as_secs_f64();
    watch.advance(n as u64)?;

    watch.phase("reach", n as u64, "rows");
    let entry = fixup::entry_point(&codes, params.seed);
    work.fixed_edges = fixup::link_unreachable(&codes, &reservoirs, entry, &mut graph);
    let reached = graph.reach(entry, &mut vec![false; n]).len();
    if reached != n {
        return Err(BuildError::Unreachable { reached: reached as u64, n: n as u64, max_degree: params.prune.max_degree });
    }
    watch.advance(n as u64)?;
    Ok(BuiltGraph { codes, order, graph, entry, work })
}
