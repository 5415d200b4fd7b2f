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

/// Rows of the sample for each leader.
pub(super) const SAMPLE_EACH: usize = 48;
/// What a row of the sample weighs, the most that a cell may, and how often the shards are cut before the most even ones are kept.
const WEIGHT: u64 = 1 << 20;
const HEAVIEST: u64 = 1 << 42;
const ROUNDS: usize = 12;

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
        let mut cell_at = vec![0; count];
        tour.iter().enumerate().for_each(|(cell, &step)| cell_at[step as usize] = cell);
        let mut router = Router { leaders, shard_of: vec![0; count] };
        let cells = router.nearest_cells(backend, sample)?;
        // Cells weigh what the sample has in them, in parts of it, so that they can be made to weigh less or more.
        let mut weights = vec![0u64; count];
        cells.chunks_exact(NEAREST).for_each(|cells| weights[cells[0] as usize] += WEIGHT);
        let mut best: Option<(u64, Vec<u32>)> = None;
        for _ in 0..ROUNDS {
            router.shard_of = cut(&weights, &cell_at, shards);
            // Ghosts count: a shard among many others borrows more than one at the edge.
            let mut members = vec![0u64; shards];
            for (own, other) in cells.chunks_exact(NEAREST).map(|cells| router.two_nearest(cells)) {
                members[own as usize] += 1;
                if other != NO_SHARD {
                    members[other as usize] += 1;
                }
            }
            let (most, mean) = (members.iter().copied().max().unwrap_or(0), (members.iter().sum::<u64>() / shards as u64).max(1));
            if best.as_ref().is_none_or(|(least, _)| most < *least) {
                best = Some((most, router.shard_of.clone()));
            }
            for (weight, &shard) in weights.iter_mut().zip(&router.shard_of) {
                *weight = (*weight * members[shard as usize].max(1) / mean).min(HEAVIEST);
            }
        }
        router.shard_of = best.map(|(_, shard_of)| shard_of).unwrap_or_default();
        Ok(router)
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
        Ok(cells.chunks_exact(NEAREST).map(|cells| self.two_nearest(cells)).collect())
    }

    /// The shard of the nearest cell, and of the nearest one that is of another.
    fn two_nearest(&self, cells: &[u32]) -> (u32, u32) {
        let mut shards = cells.iter().filter(|&&cell| cell != NO_LEADER).map(|&cell| self.shard_of[cell as usize]);
        let own = shards.next().unwrap_or(0);
        (own, shards.find(|&shard| shard != own).unwrap_or(NO_SHARD))
    }
}

/// Cuts the tour `cell_at` into runs of equal weight; the shard of each cell.
fn cut(weights: &[u64], cell_at: &[usize], shards: usize) -> Vec<u32> {
    let (total, mut before) = (weights.iter().sum::<u64>().max(1), 0);
    let mut shard_of = vec![0; weights.len()];
    for &cell in cell_at {
        // By the middle of the cell's share.
        shard_of[cell] = (u128::from(2 * before + weights[cell]) * shards as u128 / u128::from(2 * total)).min(shards as u128 - 1) as u32;
        before += weights[cell];
    }
    shard_of
}

/// The distance that decides which of two rows is nearer to a third.
pub(super) fn distance(codes: &BuildCodes, a: u32, b: u32) -> u32 {
    codes.distance(NodeId(a), NodeId(b))
}
