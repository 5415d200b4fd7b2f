//! Which shards a vector goes to: the one of its nearest center, and the one of the next, where it is a ghost.
//!
//! Centers are those of k-means on a sample, one a shard. What a shard has too much of is added to all distances from its center, so that the
//! borders move until shards are of one size, ghosts counted, and stay compact meanwhile (a power diagram). Compact they must be: two
//! neighbors that have no shard in common never meet.
//!
//! The road not taken: a tour from leader to nearest leader, 32 leaders a shard, cut into runs. Of the ten nearest of a row, 92.2% shared one of
//! its two shards there, 98.9% here (eight shards of 100,000 rows of sift1m); a tour's last leaders are those that lay beside its way.

use crate::backend::BuildCodes;
use rayon::prelude::*;
use roxanne_core::{
    id::NodeId,
    random::CounterRng,
    simd::SimdLevel,
    tile::{BuildMetric, pair_distance},
};

/// Rows of the sample for each shard, and of all at most.
const SAMPLE_EACH: u64 = 2048;
const SAMPLE_MOST: u64 = 1 << 17;
/// Rounds in which centers move, and rounds after them in which borders alone do.
const ROUNDS: usize = 24;
const LEVELLING: usize = 36;

/// Rows that so many shards are cut by.
pub(super) fn sample_rows(shards: usize) -> u64 {
    (SAMPLE_EACH * shards as u64).min(SAMPLE_MOST)
}

/// The centers of all shards.
pub(super) struct Router {
    centers: BuildCodes,
    /// Added to distances from each center.
    bias: Vec<i64>,
}

impl Router {
    /// From a sample of the rows; at least two shards.
    pub(super) fn new(sample: &BuildCodes, shards: usize, seed: u64) -> Router {
        let rows = CounterRng::new(seed).part(0x5A4D).sample(sample.n() as u64, shards as u64);
        // Where there are fewer rows than shards, some shards will stay empty.
        let bytes = (0..shards).flat_map(|shard| sample.row(rows[shard % rows.len()] as u32)).copied().collect();
        let mut router = Router { centers: BuildCodes { bytes, ..*sample }, bias: vec![0; shards] };
        let mean = (2 * sample.n() as u64).div_ceil(shards as u64).max(1);
        let mut best: Option<(u64, Vec<i64>)> = None;
        for round in 0..ROUNDS + LEVELLING {
            let nearest = router.shards(sample);
            let mut members = vec![0u64; shards];
            nearest.iter().for_each(|&(own, other)| [own, other].into_iter().for_each(|shard| members[shard as usize] += 1));
            // How far rows are from their centers, in the mean: a border moves by a part of that, ever smaller when centers stand.
            let apart = pair_distance(SimdLevel::detected(), sample.metric);
            let far = |(row, &(own, _)): (usize, &(u32, u32))| u64::from(apart(sample.row(row as u32), router.centers.row(own)));
            let far = nearest.iter().enumerate().map(far).sum::<u64>() / sample.n() as u64;
            let step = (far >> (3 + round.saturating_sub(ROUNDS) / 6)) as i64;
            if round < ROUNDS {
                router.centers = middles(sample, &nearest, &router.centers);
            } else {
                let most = members.iter().copied().max().unwrap_or(0);
                if best.as_ref().is_none_or(|(least, _)| most < *least) {
                    best = Some((most, router.bias.clone()));
                }
            }
            for (bias, &members) in router.bias.iter_mut().zip(&members) {
                *bias += step * (members as i64 - mean as i64) / mean as i64;
            }
        }
        Router { bias: best.map_or(router.bias, |(_, bias)| bias), centers: router.centers }
    }

    /// For each row its shard, and the next nearest.
    pub(super) fn shards(&self, rows: &BuildCodes) -> Vec<(u32, u32)> {
        let apart = pair_distance(SimdLevel::detected(), rows.metric);
        let two_nearest = |row: u32| {
            let (mut first, mut second) = ((i64::MAX, 0), (i64::MAX, 0));
            for (&bias, shard) in self.bias.iter().zip(0u32..) {
                let found = (i64::from(apart(rows.row(row), self.centers.row(shard))) + bias, shard);
                if found < first {
                    (first, second) = (found, first);
                } else if found < second {
                    second = found;
                }
            }
            (first.1, second.1)
        };
        (0..rows.n() as u32).into_par_iter().map(two_nearest).collect()
    }
}

/// The middle of each shard's own rows; an empty shard's center stays.
fn middles(sample: &BuildCodes, nearest: &[(u32, u32)], centers: &BuildCodes) -> BuildCodes {
    let (stride, bits) = (sample.stride, sample.metric == BuildMetric::Hamming);
    // Coordinates are bytes, or bits.
    let width = if bits { 8 * stride } else { stride };
    let (mut sums, mut counts) = (vec![0u64; centers.n() * width], vec![0u64; centers.n()]);
    for (row, &(own, _)) in (0..).zip(nearest) {
        counts[own as usize] += 1;
        let sums = &mut sums[own as usize * width..][..width];
        match bits {
            true => sums.iter_mut().enumerate().for_each(|(bit, sum)| *sum += u64::from(sample.row(row)[bit / 8] >> (bit % 8) & 1)),
            false => sums.iter_mut().zip(sample.row(row)).for_each(|(sum, &byte)| *sum += u64::from(byte)),
        }
    }
    let mut bytes = centers.bytes.clone();
    for (shard, (&count, center)) in counts.iter().zip(bytes.chunks_exact_mut(stride)).enumerate().filter(|(_, (count, _))| **count > 0) {
        let mean = |at: usize| (2 * sums[shard * width + at] + count) / (2 * count);
        for (at, byte) in center.iter_mut().enumerate() {
            *byte = if bits { (0..8).fold(0, |byte, bit| byte | (mean(8 * at + bit) as u8) << bit) } else { mean(at) as u8 };
        }
    }
    BuildCodes { bytes, ..*centers }
}

/// The distance that decides which of two rows is nearer to a third.
pub(super) fn distance(codes: &BuildCodes, a: u32, b: u32) -> u32 {
    codes.distance(NodeId(a), NodeId(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_even_and_near_rows_share_one() {
        // Pairs of near rows, anywhere in a cube.
        let rng = CounterRng::new(3);
        let place = |row: u64| [0, 1, 2].map(|axis| 1 + rng.part(axis).below(row / 2, 254) + row % 2);
        let bytes = (0..5000).flat_map(|row| (0..32).map(move |at| if at < 3 { place(row)[at] as u8 } else { 0 })).collect();
        let rows = BuildCodes { metric: BuildMetric::L2, stride: 32, bytes };
        let shards = Router::new(&rows, 5, 1).shards(&rows);
        let mut members = [0; 5];
        shards.iter().for_each(|&(own, other)| [own, other].into_iter().for_each(|shard| members[shard as usize] += 1));
        assert_eq!(members.iter().sum::<usize>(), 10_000);
        assert!(members.iter().all(|&m| m < 2400), "{members:?}");
        assert!(shards.iter().all(|(own, other)| own != other));
        let together = shards.chunks_exact(2).filter(|pair| [pair[1].0, pair[1].1].iter().any(|s| *s == pair[0].0 || *s == pair[0].1));
        assert!(together.count() > 2480);
    }

    #[test]
    fn bytes_and_bits_have_a_middle_and_an_empty_center_stays() {
        let bytes = [1, 4, 0b1100, 0b0101, 0b0100, 77].iter().flat_map(|&b| [b; 32]).collect();
        let rows = BuildCodes { metric: BuildMetric::L2, stride: 32, bytes };
        let centers = BuildCodes { bytes: vec![9; 96], ..rows };
        let nearest = [(0, 1), (0, 1), (1, 0), (1, 0), (1, 0), (0, 1)];
        let middle = |metric| middles(&BuildCodes { metric, ..rows.clone() }, &nearest, &centers).bytes;
        assert_eq!(middle(BuildMetric::L2), [[27; 32], [7; 32], [9; 32]].concat());
        assert_eq!(middle(BuildMetric::Hamming), [[0b101; 32], [0b100; 32], [9; 32]].concat());
    }

    #[test]
    fn equal_rows_and_fewer_rows_than_shards_are_no_harm() {
        for (n, count) in [(1, 4), (3, 4), (300, 7)] {
            let rows = BuildCodes { metric: BuildMetric::L2, stride: 32, bytes: vec![9; n * 32] };
            assert_eq!(Router::new(&rows, count, 1).shards(&rows).len(), n);
        }
    }
}
