//! Pair by pair, for every metric: the oracle's own distance, compiled once for each level so that the compiler may use its vectors.

use super::{BuildMetric, Rows, TopLists, entry};
use crate::simd::SimdLevel;

pub(super) fn nearest_within(level: SimdLevel, metric: BuildMetric, rows: &Rows, lists: &mut TopLists) {
    let pair = pair_distance(level, metric);
    for i in 0..rows.count {
        for j in i + 1..rows.count {
            let d = pair(rows.row(i), rows.row(j));
            lists.insert(i, entry(d, j as u32));
            lists.insert(j, entry(d, i as u32));
        }
    }
}

pub(super) fn nearest_among(level: SimdLevel, metric: BuildMetric, rows: &Rows, columns: &Rows, lists: &mut TopLists) {
    let pair = pair_distance(level, metric);
    for i in 0..rows.count {
        for j in 0..columns.count {
            lists.insert(i, entry(pair(rows.row(i), columns.row(j)), j as u32));
        }
    }
}

pub(super) fn distances_after(level: SimdLevel, metric: BuildMetric, rows: &Rows, of: usize, out: &mut [u32]) {
    let pair = pair_distance(level, metric);
    for (j, d) in out.iter_mut().enumerate().take(rows.count).skip(of + 1) {
        *d = pair(rows.row(of), rows.row(j));
    }
}

impl Rows {
    #[inline]
    fn row(&self, i: usize) -> &[u8] {
        &self.bytes[i * self.stride..][..self.stride]
    }
}

/// A function of two rows of equal length, a multiple of [`super::ROW_ALIGN`].
pub type PairDistance = fn(&[u8], &[u8]) -> u32;

/// The distance of single pairs at a level that this processor has.
pub fn pair_distance(level: SimdLevel, metric: BuildMetric) -> PairDistance {
    match (metric, level) {
        #[cfg(target_arch = "x86_64")]
        (BuildMetric::L2, SimdLevel::Avx512 | SimdLevel::Avx2) => wide::l2,
        #[cfg(target_arch = "x86_64")]
        (BuildMetric::Manhattan, SimdLevel::Avx512 | SimdLevel::Avx2) => wide::manhattan,
        #[cfg(target_arch = "x86_64")]
        (BuildMetric::Hamming, SimdLevel::Avx512 | SimdLevel::Avx2) => wide::hamming,
        (BuildMetric::L2, _) => |a, b| BuildMetric::L2.distance(a, b),
        (BuildMetric::Manhattan, _) => |a, b| BuildMetric::Manhattan.distance(a, b),
        (BuildMetric::Hamming, _) => |a, b| BuildMetric::Hamming.distance(a, b),
    }
}

/// `covered[i]` becomes all ones where `distances[i] <= reach[i]`; distances fit 31 bits.
pub(super) fn cover(level: SimdLevel, distances: &[u32], reach: &[u32], covered: &mut [u32]) {
    match level {
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512 | SimdLevel::Avx2 => wide::cover(distances, reach, covered),
        _ => cover_any(distances, reach, covered),
    }
}

#[inline(always)]
fn cover_any(distances: &[u32], reach: &[u32], covered: &mut [u32]) {
    for ((covered, &reach), &d) in covered.iter_mut().zip(reach).zip(distances) {
        *covered |= if d as i32 <= reach as i32 { u32::MAX } else { 0 };
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod wide {
    use super::BuildMetric;

    pub(super) fn l2(a: &[u8], b: &[u8]) -> u32 {
        #[target_feature(enable = "avx2")]
        fn inner(a: &[u8], b: &[u8]) -> u32 {
            BuildMetric::L2.distance(a, b)
        }
        // SAFETY: chosen by `pair_distance` only for levels that include AVX2; callers have such a level from `SimdLevel::available`.
        unsafe { inner(a, b) }
    }

    pub(super) fn cover(distances: &[u32], reach: &[u32], covered: &mut [u32]) {
        #[target_feature(enable = "avx2")]
        fn inner(distances: &[u32], reach: &[u32], covered: &mut [u32]) {
            super::cover_any(distances, reach, covered);
        }
        // SAFETY: as above.
        unsafe { inner(distances, reach, covered) }
    }

    pub(super) fn manhattan(a: &[u8], b: &[u8]) -> u32 {
        #[target_feature(enable = "avx2")]
        fn inner(a: &[u8], b: &[u8]) -> u32 {
            BuildMetric::Manhattan.distance(a, b)
        }
        // SAFETY: as above.
        unsafe { inner(a, b) }
    }

    pub(super) fn hamming(a: &[u8], b: &[u8]) -> u32 {
        #[target_feature(enable = "avx2,popcnt")]
        fn inner(a: &[u8], b: &[u8]) -> u32 {
            let (a8, b8) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
            a8.iter().zip(b8).map(|(x, y)| (u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y)).count_ones()).sum()
        }
        // SAFETY: as above; every processor with AVX2 has POPCNT. Rows are multiples of 32 bytes, so no tail is left.
        unsafe { inner(a, b) }
    }
}
