//! The stages of a build that a device may compute. All results are integers, so every backend must give *equal* ones.
//!
//! `cpu` is the specification and a fast builder at once; `cuda` and `wgpu` stand beside it. The pipeline owns all decisions and hands
//! whole batches down; a backend only computes. It also owns *where data lives*: rows, members of groups, lists and reservoirs are its own
//! types, and the pipeline sees their sizes alone, so that a device keeps all of them in its memory from the first stage to the last.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod moves;
#[cfg(feature = "wgpu")]
pub mod wgpu;

use roxanne_core::{
    build_codes::BuildCodec,
    graph::Graph,
    id::NodeId,
    pq::Codebook,
    prune::PruneParams,
    simd::SimdLevel,
    tile::{BuildMetric, pair_distance},
};
use std::ops::Range;

/// The vectors of a build: rows [n x stride] of bytes under an integer metric.
#[derive(Clone, Debug)]
pub struct BuildCodes {
    /// How rows are compared.
    pub metric: BuildMetric,
    /// Bytes of a row, a multiple of 32.
    pub stride: usize,
    /// The rows.
    pub bytes: Vec<u8>,
}

impl BuildCodes {
    /// Number of rows.
    pub fn n(&self) -> usize {
        self.bytes.len() / self.stride
    }

    /// Build distance of two rows.
    #[inline]
    pub fn distance(&self, a: NodeId, b: NodeId) -> u32 {
        pair_distance(SimdLevel::detected(), self.metric)(self.row(a.0), self.row(b.0))
    }

    /// One row.
    #[inline]
    pub fn row(&self, id: u32) -> &[u8] {
        &self.bytes[id as usize * self.stride..][..self.stride]
    }
}

/// Lists of node ids, one behind the other: clusters and their members, or clusters and their leaders. The ids are where the backend `I`
/// belongs to keeps them; their sizes are here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups<I = Vec<u32>> {
    /// Where each group begins in `members`, and the end: [groups + 1].
    pub offsets: Vec<u64>,
    /// Node ids, rising within a group.
    pub members: I,
}

impl<I> Groups<I> {
    /// Number of groups.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// True without groups.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The places of a group's members.
    #[inline]
    pub fn range(&self, group: usize) -> Range<usize> {
        self.offsets[group] as usize..self.offsets[group + 1] as usize
    }

    /// How many members a group has.
    #[inline]
    pub fn size(&self, group: usize) -> u64 {
        self.offsets[group + 1] - self.offsets[group]
    }

    /// Members of all groups, counted once for each.
    pub fn total(&self) -> u64 {
        self.offsets[self.len()]
    }
}

impl Groups {
    /// No groups.
    pub fn new() -> Groups {
        Groups { offsets: vec![0], members: Vec::new() }
    }

    /// The members of a group.
    #[inline]
    pub fn group(&self, group: usize) -> &[u32] {
        &self.members[self.range(group)]
    }

    /// Adds a group.
    pub fn push(&mut self, members: &[u32]) {
        self.members.extend_from_slice(members);
        self.offsets.push(self.members.len() as u64);
    }
}

/// A run of places in the members of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub start: u64,
    /// How many, not zero.
    pub length: u64,
}

/// New groups made of runs of old members. A group of several runs is their union: sorted, and without duplicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// All runs.
    pub runs: Vec<Run>,
    /// Where each group begins in `runs`, and the end: [groups + 1].
    pub offsets: Vec<usize>,
}

impl Default for Selection {
    fn default() -> Selection {
        Selection { runs: Vec::new(), offsets: vec![0] }
    }
}

impl Selection {
    /// Number of groups.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// True without groups.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The runs of a group.
    pub fn group(&self, group: usize) -> &[Run] {
        &self.runs[self.offsets[group]..self.offsets[group + 1]]
    }

    /// Adds a group.
    pub fn push(&mut self, runs: &[Run]) {
        self.runs.extend_from_slice(runs);
        self.offsets.push(self.runs.len());
    }

    /// Adds the groups of `other`.
    pub fn extend(&mut self, other: &Selection) {
        (0..other.len()).for_each(|group| self.push(other.group(group)));
    }
}

/// Why a stage gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The device is gone or refuses.
    #[error("{device}: {detail}")]
    Device {
        /// Its name.
        device: String,
        /// What it said.
        detail: String,
    },
    /// There is no such device, or it cannot be used; `detail` says how to mend it.
    #[error("{device}: {detail}")]
    Unavailable {
        /// What was asked for.
        device: String,
        /// Why not.
        detail: String,
    },
    /// The work at hand does not fit what is left of the device's memory; smaller batches may.
    #[error(
        "{device}: out of device memory: {asked} bytes more were needed, {free} of {budget} are free; give more with --vram, or build on the CPU"
    )]
    OutOfMemory {
        /// Its name.
        device: String,
        /// Bytes asked for.
        asked: u64,
        /// Bytes left.
        free: u64,
        /// Bytes that it may use.
        budget: u64,
    },
}

/// Told of rows that a long stage is done with, from any of its threads.
pub type Heard<'a> = &'a (dyn Fn(u64) + Sync);

/// One method a stage, and the moves of data between stages.
///
/// Order is (distance, id) everywhere, and ids rise within a group; so a result never depends on how work was cut or when it was done.
pub trait Backend: Sync {
    /// The rows of a build, where stages read them.
    type Rows<'a>: Sync
    where
        Self: 'a;
    /// Numbers of 32 bits: members of groups, choices of leaders.
    type Ids: Sync;
    /// What `leaf_knn` gives.
    type Lists;
    /// For every row the nearest distinct candidates so far.
    type Reservoirs: Sync;

    /// What to call it in reports.
    fn name(&self) -> String;

    /// Members of clusters that are best cut to leaves, compared and merged at once, with `leaf_k` neighbors each. It changes no result.
    fn batch_members(&self, leaf_k: usize) -> u64;

    /// Whether the host's cores are idle while stages run, so that other work may be done on them meanwhile.
    fn leaves_the_host_free(&self) -> bool {
        false
    }

    /// Waits for what was begun, so that a clock tells the truth.
    ///
    /// # Errors
    /// See `load`.
    fn wait(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Brings the rows to where stages read them.
    ///
    /// # Errors
    /// What the device says, as for all below.
    fn load<'a>(&'a self, codes: &'a BuildCodes) -> Result<Self::Rows<'a>, BackendError>;

    /// **Stage.** For every member of every cluster the places of its `fanout` nearest leaders in that cluster's group of `leaders`, nearest
    /// first: [members x fanout], [`NO_LEADER`] where a cluster has fewer.
    ///
    /// # Errors
    /// See `load`.
    fn assign(
        &self,
        rows: &Self::Rows<'_>,
        clusters: &Groups<Self::Ids>,
        leaders: &Groups<Self::Ids>,
        fanout: usize,
    ) -> Result<Self::Ids, BackendError>;

    /// [`Backend::assign`], which tells how far it is where it can.
    ///
    /// # Errors
    /// See `load`.
    fn assign_heard(
        &self,
        rows: &Self::Rows<'_>,
        clusters: &Groups<Self::Ids>,
        leaders: &Groups<Self::Ids>,
        fanout: usize,
        heard: Heard<'_>,
    ) -> Result<Self::Ids, BackendError> {
        let choice = self.assign(rows, clusters, leaders, fanout)?;
        heard(clusters.total());
        Ok(choice)
    }

    /// **Stage.** For every member of every leaf its `k` nearest others there: entries `distance << 32 | place in the leaf` [members x k],
    /// nearest first, `tile::NO_ENTRY` behind the last.
    ///
    /// # Errors
    /// See `load`.
    fn leaf_knn(&self, rows: &Self::Rows<'_>, leaves: &Groups<Self::Ids>, k: usize) -> Result<Self::Lists, BackendError>;

    /// Reservoirs of `n` empty rows that keep `width` entries each.
    ///
    /// # Errors
    /// See `load`.
    fn reservoirs(&self, n: usize, width: usize) -> Result<Self::Reservoirs, BackendError>;

    /// **Stage.** Offers every pair of `lists` (from [`Backend::leaf_knn`] of `leaves`) to the reservoirs of both ends. May be repeated: what a
    /// reservoir holds is a set.
    ///
    /// # Errors
    /// See `load`.
    fn merge(
        &self,
        leaves: &Groups<Self::Ids>,
        lists: &Self::Lists,
        k: usize,
        reservoirs: &mut Self::Reservoirs,
    ) -> Result<(), BackendError>;

    /// What the reservoirs of `nodes` hold: entries `distance << 32 | id`, sorted.
    ///
    /// # Errors
    /// See `load`.
    fn candidates(&self, reservoirs: &Self::Reservoirs, nodes: &[u32]) -> Result<Vec<Vec<u64>>, BackendError>;

    /// **Stage.** RobustPrune of every reservoir into rows in order of (distance, id).
    ///
    /// # Errors
    /// See `load`.
    fn prune(
        &self,
        rows: &Self::Rows<'_>,
        reservoirs: &Self::Reservoirs,
        params: &PruneParams,
        heard: Heard<'_>,
    ) -> Result<Graph, BackendError>;

    /// **Stage.** PQ codes [range x subspaces] of a range of rows.
    ///
    /// # Errors
    /// See `load`.
    fn encode(&self, rows: &Self::Rows<'_>, codec: &BuildCodec, codebook: &Codebook, range: Range<usize>) -> Result<Vec<u8>, BackendError>;

    /// Brings numbers to where stages read them.
    ///
    /// # Errors
    /// See `load`.
    fn place(&self, ids: Vec<u32>) -> Result<Self::Ids, BackendError>;

    /// Brings them back.
    ///
    /// # Errors
    /// See `load`.
    fn fetch(&self, ids: &Self::Ids) -> Result<Vec<u32>, BackendError>;

    /// Brings lists back.
    ///
    /// # Errors
    /// See `load`.
    fn fetch_lists(&self, lists: &Self::Lists) -> Result<Vec<u64>, BackendError>;

    /// The ids at `places`.
    ///
    /// # Errors
    /// See `load`.
    fn pick(&self, ids: &Self::Ids, places: &[u64]) -> Result<Self::Ids, BackendError>;

    /// Orders the rows, all of which are members of one cluster, by cell: a row's cell is `tour[its nearest leader]`, and rows keep their order
    /// within a cell. Gives the row at each new place, and the choice [n x fanout] in the new order, each leader renamed by `tour`.
    ///
    /// # Errors
    /// See `load`.
    fn order_by_cell(&self, choice: &Self::Ids, fanout: usize, tour: &[u32]) -> Result<(Vec<NodeId>, Self::Ids), BackendError>;

    /// The members that chose each leader: one group a leader, cluster by cluster. `choice` is what [`Backend::assign`] gave.
    ///
    /// # Errors
    /// See `load`.
    fn children(
        &self,
        clusters: &Groups<Self::Ids>,
        leader_offsets: &[u64],
        choice: &Self::Ids,
        fanout: usize,
    ) -> Result<Groups<Self::Ids>, BackendError>;

    /// New groups out of old ones.
    ///
    /// # Errors
    /// See `load`.
    fn select(&self, from: &Groups<Self::Ids>, selection: &Selection) -> Result<Groups<Self::Ids>, BackendError>;
}

/// No such leader.
pub const NO_LEADER: u32 = u32::MAX;
