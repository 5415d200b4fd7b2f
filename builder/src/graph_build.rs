//! From codes to a graph: partition, all pairs inside leaves, reservoirs, prune, fix-up. The main graph and the navigation graph are both
//! made here.

use crate::{
    BuildError,
    backend::{Backend, BackendError, BuildCodes, Groups, Run, Selection},
    fixup::{self, Fixed},
    partition::{self, Clusters, Cut, PartitionParams, TopLevel},
    progress::Watch,
};
use roxanne_core::{graph::Graph, id::NodeId, prune::PruneParams};
use std::{ops::Range, time::Instant};

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
    /// Seconds that the build waited for the training of its codebook, which hang on the sample and not on n: all of it on the CPU, what the
    /// graph did not hide on a device; 0 where shards share one that was trained before.
    pub train_seconds: f64,
    /// Edges that the fix-up added.
    pub fixed_edges: u64,
}

impl StageWork {
    /// Both together.
    pub(crate) fn add(&mut self, other: &StageWork) {
        self.assign_pairs += other.assign_pairs;
        self.assign_seconds += other.assign_seconds;
        self.leaf_pairs += other.leaf_pairs;
        self.leaf_seconds += other.leaf_seconds;
        self.merge_seconds += other.merge_seconds;
        self.prune_seconds += other.prune_seconds;
        self.fixed_edges += other.fixed_edges;
    }
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
pub fn build_graph<B: Backend>(codes: BuildCodes, params: &GraphParams, backend: &B, watch: &Watch<'_>) -> Result<BuiltGraph, BuildError> {
    let (n, partition) = (codes.n(), &params.partition);
    let mut work = StageWork::default();
    // Assigned, then moved.
    watch.phase("cells", 2 * n as u64, "rows");
    let start = Instant::now();
    let TopLevel { codes, order, cut } = partition::top_level(backend, codes, partition, params.seed, &|rows| watch.heard(rows))?;
    work.assign_seconds += start.elapsed().as_secs_f64();
    work.assign_pairs += cut.pairs;
    watch.advance(n as u64)?;

    let Cut { leaves, open, .. } = cut;
    watch.phase("graph", leaves.total() + open.members(), "rows");
    let rows = backend.load(&codes)?;
    let mut join = Join { backend, rows: &rows, reservoirs: backend.reservoirs(n, params.reservoir)?, params, work };
    let members = leaves.total();
    join.leaves(leaves)?;
    watch.advance(members)?;
    // Batches still to do, the next one last. When one does not fit the device, it and all after it are done in halves.
    let mut batches = open.batches(backend.batch_members(params.leaf_k));
    batches.reverse();
    while let Some(batch) = batches.pop() {
        match join.clusters(&open, batch.clone()) {
            Ok(members) => watch.advance(members)?,
            Err(BackendError::OutOfMemory { .. }) if batch.len() > 1 => {
                batches.push(batch);
                batches = batches.into_iter().flat_map(halves).collect();
            }
            Err(error) => return Err(error.into()),
        }
    }
    drop(open);
    let Join { reservoirs, mut work, .. } = join;

    watch.phase("prune", n as u64, "rows");
    let start = Instant::now();
    let mut graph = backend.prune(&rows, &reservoirs, &params.prune, &|rows| watch.heard(rows))?;
    work.prune_seconds += start.elapsed().as_secs_f64();
    watch.advance(0)?;
    drop(rows);

    watch.phase("reach", n as u64, "rows");
    let entry = fixup::entry_point(&codes, params.seed);
    let candidates = |nodes: &[u32]| backend.candidates(&reservoirs, nodes);
    let Fixed { edges, reached } = fixup::link_unreachable(&codes, candidates, entry, &mut graph, fixup::has_room)?;
    work.fixed_edges = edges;
    if reached != n as u64 {
        return Err(BuildError::Unreachable { reached, n: n as u64, max_degree: params.prune.max_degree });
    }
    watch.advance(n as u64)?;
    Ok(BuiltGraph { codes, order, graph, entry, work })
}

/// Both halves of a range, the later one first; one half of a single thing.
fn halves(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let half = range.start + range.len().div_ceil(2);
    [half..range.end, range.start..half].into_iter().filter(|part| !part.is_empty())
}

/// Reservoirs that are being filled.
struct Join<'a, 'r, B: Backend + 'r> {
    backend: &'a B,
    rows: &'a B::Rows<'r>,
    reservoirs: B::Reservoirs,
    params: &'a GraphParams,
    work: StageWork,
}

impl<B: Backend> Join<'_, '_, B> {
    /// All pairs of each leaf, offered to both ends; in halves where the device has no room for all.
    fn leaves(&mut self, leaves: Groups<B::Ids>) -> Result<(), BackendError> {
        match self.leaves_at_once(&leaves) {
            Err(BackendError::OutOfMemory { .. }) if leaves.len() > 1 => {
                for half in halves(0..leaves.len()) {
                    let mut selection = Selection::default();
                    half.for_each(|leaf| selection.push(&[Run { start: leaves.offsets[leaf], length: leaves.size(leaf) }]));
                    self.leaves(self.backend.select(&leaves, &selection)?)?;
                }
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn leaves_at_once(&mut self, leaves: &Groups<B::Ids>) -> Result<(), BackendError> {
        let k = self.params.leaf_k;
        let start = Instant::now();
        let lists = self.backend.leaf_knn(self.rows, leaves, k)?;
        self.backend.wait()?;
        self.work.leaf_seconds += start.elapsed().as_secs_f64();
        let start = Instant::now();
        self.backend.merge(leaves, &lists, k, &mut self.reservoirs)?;
        self.backend.wait()?;
        self.work.merge_seconds += start.elapsed().as_secs_f64();
        self.work.leaf_pairs += (0..leaves.len()).map(|l| leaves.size(l) * (leaves.size(l) - 1)).sum::<u64>();
        Ok(())
    }

    /// A range of clusters cut down to leaves, and these joined; returns how many members the clusters had. May be repeated after it failed.
    fn clusters(&mut self, open: &Clusters<B::Ids>, range: Range<usize>) -> Result<u64, BackendError> {
        let (backend, rows, partition) = (self.backend, self.rows, &self.params.partition);
        let start = Instant::now();
        let (before, batch) = (self.work.leaf_seconds + self.work.merge_seconds, open.part(backend, range)?);
        let members = batch.members();
        self.work.assign_pairs += partition::cut_to_leaves(backend, rows, batch, 1, partition, &mut |leaves| self.leaves(leaves))?;
        let joined = self.work.leaf_seconds + self.work.merge_seconds - before;
        self.work.assign_seconds += start.elapsed().as_secs_f64() - joined;
        Ok(members)
    }
}
