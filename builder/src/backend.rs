//! The stages of a build that a device may compute. All results are integers, so every backend must give *equal* ones.
//!
//! `cpu` is the specification and a fast builder at once; cuda and wgpu will stand beside it. The pipeline owns all decisions and hands
//! whole batches down; a backend only computes.

pub mod cpu;

use crate::reservoir::Reservoirs;
use roxanne_core::{
    build_codes::BuildCodec,
    graph::Graph,
    id::NodeId,
    pq::Codebook,
    prune::PruneParams,
    simd::SimdLevel,
    tile::{BuildMetric, pair_distance},
};

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

/// Lists of node ids, one behind the other: clusters and their members, or clusters and their leaders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Where each group begins in `members`, and the end: [groups + 1].
    pub offsets: Vec<u64>,
    /// Node ids, rising within a group.
    pub members: Vec<u32>,
}

impl Groups {
    /// No groups.
    pub fn new() -> Groups {
        Groups { offsets: vec![0], members: Vec::new() }
    }

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
    pub fn range(&self, group: usize) -> std::ops::Range<usize> {
        self.offsets[group] as usize..self.offsets[group + 1] as usize
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

/// Why a stage gave no result.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The device is gone or refuses.
    #[error("{device}: {detail}")]
    Device {
        /// Its name.
        device: String,
        /// What it said.
        detail: String,
    },
}

/// One method a stage.
pub trait Backend: Sync {
    /// What to call it in reports.
    fn name(&self) -> String;

    /// For every member of every cluster the places of its `fanout` nearest leaders in that cluster's group of `leaders`, nearest first:
    /// [members x fanout], [`NO_LEADER`] where a cluster has fewer.
    fn assign(&self, codes: &BuildCodes, clusters: &Groups, leaders: &Groups, fanout: usize) -> Result<Vec<u32>, BackendError>;

    /// For every member of every leaf its `k` nearest others there: entries `distance << 32 | place in the leaf` [members x k], nearest
    /// first, `tile::NO_ENTRY` behind the last.
    fn leaf_knn(&self, codes: &BuildCodes, leaves: &Groups, k: usize) -> Result<Vec<u64>, BackendError>;

    /// Offers every pair of `lists` (from [`Backend::leaf_knn`]) to the reservoirs of both ends.
    fn merge(&self, leaves: &Groups, lists: &[u64], k: usize, reservoirs: &Reservoirs) -> Result<(), BackendError>;

    /// RobustPrune of every reservoir into rows in order of (distance, id).
    fn prune(&self, codes: &BuildCodes, reservoirs: &Reservoirs, params: &PruneParams) -> Result<Graph, BackendError>;

    /// PQ codes [n x subspaces] of the rows `order`.
    fn encode(&self, codes: &BuildCodes, codec: &BuildCodec, codebook: &Codebook, order: &[NodeId]) -> Result<Vec<u8>, BackendError>;
}

/// No such leader.
pub const NO_LEADER: u32 = u32::MAX;
