//! Which shards a vector goes to: the one of its nearest cell, and the nearest other one, where it is a ghost.
//!
//! Cells are those of random leaders, many to a shard; a tour from leader to nearest leader is cut into as many runs as there are shards, of
//! equal weight by a sample. So shards are of one size, and near cells are mostly of one shard.

use crate::{
    BuildError,
    backend::{Backend, BuildCodes, Groups, NO_LEADER},
    partition::tour_of,
};
use roxanne_core::id::NodeId;

/// Leaders for each shard, and of all.
const LEADERS_EACH: usize = 32;
const LEADERS: std::ops::RangeInclusive<usize> = 256..=4096;
/// Nearest cells that are looked at for a ghost's shard. A vector whose nearest cells are all of one shard lies deep inside it.
const NEAREST: usize = 10;

/// Leaders a build with so many shards has.
pub(super) fn leader_count(shards: usize) -> usize {
    (shards * LEADERS_EACH).clamp(*LEADERS.start(), *LEADERS.end())
}

/// No second shard.
pub(super) const NO_SHARD: u32 = u32::MAX;

/// Cells and the shard of each.
pub(super) struct Router {
    /// Rows of the leaders.
    leaders: Vec<u8>,
    shard_of: Vec<u32>,
}

impl Router {
    /// From `sample` rows, the first `leader_count(shards)` of which lead.
    pub(super) fn new<B: Backend>(backend: &B, sample: &BuildCodes, shards: usize) -> Result<Router, BuildError> {
        let count = leader_count(shards).min(sample.n());
        let leaders = sample.bytes[..count * sample.stride].to_vec();
        let ids: Vec<u32> = (0..count as u32).collect();
        let tour = tour_of(sample, &ids);
        // Until shards are known, every cell is one of its own.
        let router = Router { leaders, shard_of: ids };
        let mut weights = vec![0u64; count];
        router.nearest_cells(backend, sample)?.chunks_exact(NEAREST).for_each(|cells| weights[cells[0] as usize] += 1);
        let mut at = vec![0; count];
        tour.iter().enumerate().for_each(|(leader, &step)| at[step as usize] = leader);
        let (total, mut before) = (sample.n() as u64, 0);
        let mut shard_of = vec![0; count];
        for leader in at {
            // By the middle of the cell's share of all weight.
            shard_of[leader] = ((2 * before + weights[leader]) * shards as u64 / (2 * total).max(1)).min(shards as u64 - 1) as u32;
            before += weights[leader];
        }
        Ok(Router { shard_of, ..router })
    }

    fn nearest_cells<B: Backend>(&self, backend: &B, rows: &BuildCodes) -> Result<Vec<u32>, BuildError> {
        // Leaders behind the rows, so that one set of rows has both.
        let (n, count) = (rows.n() as u32, (self.leaders.len() / rows.stride) as u32);
        let codes = BuildCodes { bytes: [rows.bytes.as_slice(), &self.leaders].concat(), ..*rows };
        let clusters = Groups { offsets: vec![0, u64::from(n)], members: backend.place((0..n).collect())? };
        let leaders = Groups { offsets: vec![0, u64::from(count)], members: backend.place((n..n + count).collect())? };
        let loaded = backend.load(&codes)?;
        let choice = backend.assign(&loaded, &clusters, &leaders, NEAREST)?;
        Ok(backend.fetch(&choice)?)
    }

    /// For each row its shard, and the nearest other one or [`NO_SHARD`].
    pub(super) fn shards<B: Backend>(&self, backend: &B, rows: &BuildCodes) -> Result<Vec<(u32, u32)>, BuildError> {
        let cells = self.nearest_cells(backend, rows)?;
        let shards = |cells: &[u32]| {
            let mut shards = cells.iter().filter(|&&cell| cell != NO_LEADER).map(|&cell| self.shard_of[cell as usize]);
            let own = shards.next().unwrap_or(0);
            (own, shards.find(|&shard| shard != own).unwrap_or(NO_SHARD))
        };
        Ok(cells.chunks_exact(NEAREST).map(shards).collect())
    }
}

/// The distance that decides which of two rows is nearer to a third.
pub(super) fn distance(codes: &BuildCodes, a: u32, b: u32) -> u32 {
    codes.distance(NodeId(a), NodeId(b))
}
