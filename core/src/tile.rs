//! Many integer distances at once, and the nearest few of them: the inner loop of the whole build.
//!
//! A build spends its time on dense products: all pairs inside a leaf, every row against a cluster's leaders, a kept neighbor against
//! all candidates. Rows are 8-bit build codes (`BuildMetric`), distances are exact `u32`, and selection is fused with the product, so
//! no matrix of distances is ever in memory. `|x - y|^2 = |x|^2 + |y|^2 - 2 x.y` holds exactly in integers, in any order of
//! summation: every level below gives equal results (tests), and so do the GPU kernels.
//!
//! [`Tile`] is the door: it owns the scratch of one thread. Ties fall to the smaller row number, which callers make the smaller id by
//! loading rows in rising order of id.

use crate::simd::SimdLevel;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

pub use scalar::{PairDistance, pair_distance};

/// The integer metric that a graph is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildMetric {
    /// Squared Euclidean distance of u8 coordinates; cosine and inner product are brought to it by the builder.
    L2,
    /// Sum of absolute differences of u8 coordinates.
    Manhattan,
    /// Differing bits of packed bytes.
    Hamming,
}

impl BuildMetric {
    /// The distance of two rows of equal length: the oracle of every kernel. At most 8,224 x 255^2, so it fits 30 bits.
    #[inline(always)]
    pub fn distance(self, a: &[u8], b: &[u8]) -> u32 {
        match self {
            BuildMetric::L2 => a
                .iter()
                .zip(b)
                .map(|(&x, &y)| {
                    let d = i32::from(x) - i32::from(y);
                    (d * d) as u32
                })
                .sum(),
            BuildMetric::Manhattan => a.iter().zip(b).map(|(&x, &y)| u32::from(x.abs_diff(y))).sum(),
            BuildMetric::Hamming => a.iter().zip(b).map(|(&x, &y)| (x ^ y).count_ones()).sum(),
        }
    }
}

/// Rows are loaded padded to a multiple of this many bytes with zeros, which change no distance.
pub const ROW_ALIGN: usize = 32;
/// The most neighbors that one row can ask for.
pub const MAX_K: usize = 16;
/// Lanes of one packed block of rows.
const LANES: usize = 16;
/// Rows and columns (in lanes) of one product tile: 24 accumulators, which is what 32 vector registers hold beside the operands.
const TILE_ROWS: usize = 12;
const TILE_COLUMNS: usize = 2 * LANES;

/// An entry of a list of nearest rows: `distance << 32 | row`, so that integer order is (distance, row) order.
#[inline]
pub fn entry(distance: u32, row: u32) -> u64 {
    u64::from(distance) << 32 | u64::from(row)
}

/// The distance of an [`entry`].
#[inline]
pub fn entry_distance(entry: u64) -> u32 {
    (entry >> 32) as u32
}

/// The row of an [`entry`].
#[inline]
pub fn entry_row(entry: u64) -> u32 {
    entry as u32
}

/// No entry: what a list holds behind its last neighbor.
pub const NO_ENTRY: u64 = u64::MAX;

/// Asks for the cache lines of `row`, which will be loaded soon.
#[inline]
pub fn prefetch(row: &[u8]) {
    row.chunks(64).for_each(|line| prefetch_line(&line[0]));
}

/// Asks for the cache line where `value` begins.
#[inline]
#[allow(unsafe_code)]
pub fn prefetch_line<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and cannot fault.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// A set of rows, loaded in the shape that the level's kernels want.
#[derive(Default)]
pub struct Rows {
    count: usize,
    stride: usize,
    /// Row-major bytes; with the top bit flipped (as i8) where the product is VNNI.
    bytes: Vec<u8>,
    /// Blocks of 16 rows, transposed: VNNI `[block][stride / 4][16][4]` u8; AVX2 `[block][stride / 2][16][2]` i16; else empty.
    packed: Vec<u8>,
    /// `|x|^2`, and what the column adds: `|x|^2`, less the correction of the flipped bit under VNNI.
    row_terms: Vec<i32>,
    column_terms: Vec<i32>,
}

impl Rows {
    /// How many rows are loaded.
    pub fn count(&self) -> usize {
        self.count
    }

    fn blocks(&self) -> usize {
        self.count.div_ceil(TILE_COLUMNS) * 2
    }
}

/// The nearest few rows of each of many rows, while they are being found.
#[derive(Default)]
pub struct TopLists {
    k: usize,
    /// Entries a list holds: 8 or 16 (whole vectors), of which the first `k` are asked for.
    width: usize,
    entries: Vec<u64>,
    /// Distance of the k-th entry: what a newcomer must not exceed.
    thresholds: Vec<i32>,
}

impl TopLists {
    fn reset(&mut self, count: usize, k: usize) {
        assert!((1..=MAX_K).contains(&k), "k {k} is not in 1..={MAX_K}");
        self.k = k;
        self.width = if k <= 8 { 8 } else { 16 };
        self.entries.clear();
        self.entries.resize(count * self.width, NO_ENTRY);
        self.thresholds.clear();
        self.thresholds.resize(count, i32::MAX);
    }

    /// The nearest `k` of `row`, nearest first; the tail is `NO_ENTRY` where there were fewer.
    #[inline]
    pub fn list(&self, row: usize) -> &[u64] {
        &self.entries[row * self.width..row * self.width + self.k]
    }

    #[inline]
    fn insert(&mut self, row: usize, newcomer: u64) {
        let list = &mut self.entries[row * self.width..][..self.k];
        if newcomer >= list[self.k - 1] {
            return;
        }
        let mut at = self.k - 1;
        while at > 0 && list[at - 1] > newcomer {
            list[at] = list[at - 1];
            at -= 1;
        }
        list[at] = newcomer;
        let last = list[self.k - 1];
        self.thresholds[row] = if last == NO_ENTRY { i32::MAX } else { entry_distance(last) as i32 };
    }
}

/// The kernels of one level for one metric and row length.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    level: SimdLevel,
    metric: BuildMetric,
    stride: usize,
}

impl Tile {
    /// Kernels for rows of `stride` bytes (a multiple of [`ROW_ALIGN`]) at the process's level.
    pub fn new(metric: BuildMetric, stride: usize) -> Tile {
        Tile::at_level(SimdLevel::detected(), metric, stride)
    }

    /// Kernels at a level that this processor has.
    pub fn at_level(level: SimdLevel, metric: BuildMetric, stride: usize) -> Tile {
        assert!(stride > 0 && stride.is_multiple_of(ROW_ALIGN), "row length {stride} is no multiple of {ROW_ALIGN}");
        assert!(SimdLevel::available().contains(&level), "this processor has no {level}");
        Tile { level, metric, stride }
    }

    /// Loads `source` rows, each `stride` bytes.
    pub fn load<'a>(&self, source: impl Iterator<Item = &'a [u8]>, rows: &mut Rows) {
        rows.stride = self.stride;
        rows.bytes.clear();
        for row in source {
            assert_eq!(row.len(), self.stride, "row length");
            rows.bytes.extend_from_slice(row);
        }
        rows.count = rows.bytes.len() / self.stride;
        if self.metric != BuildMetric::L2 {
            return;
        }
        match self.level {
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => avx512::pack(rows),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => avx2::pack(rows),
            _ => {}
        }
    }

    /// For every row the `k` nearest other rows of the same set.
    pub fn nearest_within(&self, rows: &Rows, k: usize, lists: &mut TopLists) {
        lists.reset(rows.blocks() * LANES, k);
        match (self.metric, self.level) {
            #[cfg(target_arch = "x86_64")]
            (BuildMetric::L2, SimdLevel::Avx512) => avx512::nearest_within(rows, lists),
            #[cfg(target_arch = "x86_64")]
            (BuildMetric::L2, SimdLevel::Avx2) => avx2::nearest_within(rows, lists),
            _ => scalar::nearest_within(self.level, self.metric, rows, lists),
        }
    }

    /// For every row of `rows` its `k` nearest of `columns`.
    pub fn nearest_among(&self, rows: &Rows, columns: &Rows, k: usize, lists: &mut TopLists) {
        lists.reset(rows.count, k);
        match (self.metric, self.level) {
            #[cfg(target_arch = "x86_64")]
            (BuildMetric::L2, SimdLevel::Avx512) => avx512::nearest_among(rows, columns, lists),
            #[cfg(target_arch = "x86_64")]
            (BuildMetric::L2, SimdLevel::Avx2) => avx2::nearest_among(rows, columns, lists),
            _ => scalar::nearest_among(self.level, self.metric, rows, columns, lists),
        }
    }

    /// Distances of row `of` to the rows after it: `out` `[count]`, of which the first `of + 1` mean nothing.
    pub fn distances_after(&self, rows: &Rows, of: usize, out: &mut Vec<u32>) {
        assert!(of < rows.count, "row {of} of {}", rows.count);
        out.resize(rows.blocks() * LANES, 0);
        match (self.metric, self.level) {
            #[cfg(target_arch = "x86_64")]
            (BuildMetric::L2, SimdLevel::Avx512) => avx512::distances_after(rows, of, out),
            #[cfg(target_arch = "x86_64")]
            (BuildMetric::L2, SimdLevel::Avx2) => avx2::distances_after(rows, of, out),
            _ => scalar::distances_after(self.level, self.metric, rows, of, out),
        }
        out.truncate(rows.count);
    }

    /// What a kept neighbor covers: `covered[i]` becomes all ones where `distances[i] <= reach[i]` (both below 2^31).
    pub fn cover(&self, distances: &[u32], reach: &[u32], covered: &mut [u32]) {
        scalar::cover(self.level, distances, reach, covered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::CounterRng;

    fn rows_of(n: usize, stride: usize, seed: u64, span: u64) -> Vec<u8> {
        let rng = CounterRng::new(seed);
        (0..n * stride)
            .map(|i| {
                if span == 256 && seed.is_multiple_of(2) {
                    [0u8, 255][rng.below(i as u64, 2) as usize]
                } else {
                    rng.below(i as u64, span) as u8
                }
            })
            .collect()
    }

    fn oracle(metric: BuildMetric, rows: &[u8], columns: &[u8], stride: usize, k: usize, same: bool) -> Vec<Vec<u64>> {
        let near = |(i, a): (usize, &[u8])| {
            let mut all: Vec<u64> = columns
                .chunks(stride)
                .enumerate()
                .filter(|&(j, _)| !same || i != j)
                .map(|(j, b)| entry(metric.distance(a, b), j as u32))
                .collect();
            all.sort_unstable();
            all.resize(k, NO_ENTRY);
            all
        };
        rows.chunks(stride).enumerate().map(near).collect()
    }

    #[test]
    fn every_level_equals_the_oracle_on_awkward_shapes() {
        for level in SimdLevel::available() {
            for metric in [BuildMetric::L2, BuildMetric::Manhattan, BuildMetric::Hamming] {
                for (n, stride, k, span) in [
                    (0, 32, 3, 256),
                    (1, 32, 5, 256),
                    (2, 32, 5, 256),
                    (12, 32, 1, 2),
                    (13, 64, 8, 256),
                    (31, 96, 5, 256),
                    (32, 128, 5, 256),
                    (33, 128, 9, 3),
                    (65, 160, 16, 256),
                    (143, 128, 5, 256),
                    (100, 8224, 3, 256),
                    (256, 32, 5, 1),
                ] {
                    for seed in [1, 2] {
                        let bytes = rows_of(n, stride, seed, span);
                        let tile = Tile::at_level(level, metric, stride);
                        let (mut rows, mut lists) = (Rows::default(), TopLists::default());
                        tile.load(bytes.chunks(stride), &mut rows);
                        tile.nearest_within(&rows, k, &mut lists);
                        let expected = oracle(metric, &bytes, &bytes, stride, k, true);
                        for (i, want) in expected.iter().enumerate() {
                            assert_eq!(lists.list(i), want, "{level} {metric:?} within n {n} stride {stride} k {k} seed {seed} row {i}");
                        }
                        let others = rows_of(n / 2 + 5, stride, seed + 9, span);
                        let mut columns = Rows::default();
                        tile.load(others.chunks(stride), &mut columns);
                        tile.nearest_among(&rows, &columns, k, &mut lists);
                        let expected = oracle(metric, &bytes, &others, stride, k, false);
                        for (i, want) in expected.iter().enumerate() {
                            assert_eq!(lists.list(i), want, "{level} {metric:?} among n {n} stride {stride} k {k} seed {seed} row {i}");
                        }
                        let mut out = Vec::new();
                        for i in (0..n).step_by(7) {
                            tile.distances_after(&rows, i, &mut out);
                            let a = &bytes[i * stride..][..stride];
                            assert_eq!(out.len(), n);
                            for j in i + 1..n {
                                let d = metric.distance(a, &bytes[j * stride..][..stride]);
                                assert_eq!(out[j], d, "{level} {metric:?} n {n} rows {i} {j}");
                            }
                        }
                    }
                }
            }
        }
    }
}
