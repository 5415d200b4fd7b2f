//! AVX2: bytes are widened to i16 and multiplied in pairs by `vpmaddwd`, which is exact (`vpmaddubsw` would saturate).
//!
//! A tile is 6 rows x 16 columns: 12 accumulators, which with two registers of columns and one of a row are 15 of 16. Columns are stored
//! widened and transposed; of the rows only those of a tile are widened, for all its columns. Selection compares eight distances at a time with
//! the row's threshold (and, within one set, with the columns' thresholds, so that each pair is computed once).
#![allow(unsafe_code)]

use super::{LANES, Rows, TopLists, entry};
use std::arch::x86_64::*;

const ROWS: usize = 6;
/// Lanes of a register.
const HALF: usize = LANES / 2;
type TileBuffer = [[i32; LANES]; ROWS];

pub(super) fn pack(rows: &mut Rows) {
    // SAFETY: the level is asserted in Tile::at_level.
    unsafe { pack_avx2(rows) }
}

#[target_feature(enable = "avx2")]
fn pack_avx2(rows: &mut Rows) {
    let (stride, blocks) = (rows.stride, rows.blocks());
    // Whole tiles of rows and columns are computed, so both are padded with zero rows; what they give is never read.
    let padded = (blocks * LANES).max(rows.count.next_multiple_of(ROWS));
    rows.bytes.resize(padded * stride, 0);
    rows.packed.resize(blocks * LANES * stride * 2, 0);
    rows.row_terms.clear();
    rows.row_terms.extend(rows.bytes.chunks_exact(stride).map(|row| square(row)));
    rows.column_terms.clear();
    rows.column_terms.extend_from_slice(&rows.row_terms);
    for half in 0..blocks * 2 {
        for step in (0..stride).step_by(16) {
            // SAFETY: `bytes` has 8 rows of `stride` from `half * 8`, of which 16 bytes from `step` (ROW_ALIGN is a multiple of 16) are read.
            // Their 8 pairs fill 8 x 64 bytes of the block's, the lower or the upper 32 of each.
            unsafe {
                let source = rows.bytes.as_ptr().add(half * HALF * stride + step);
                let block = rows.packed.as_mut_ptr().add((half / 2) * LANES * stride * 2);
                transpose_8x8(source, stride, block.add(step / 2 * 64 + half % 2 * 32));
            }
        }
    }
}

/// `|x|^2` of a row of whole 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn square(row: &[u8]) -> i32 {
    let mut sums = _mm256_setzero_si256();
    for part in row.as_chunks::<16>().0 {
        // SAFETY: the part is 16 bytes long; the load is an unaligned one.
        let wide = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(part.as_ptr().cast()) });
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(wide, wide));
    }
    let mut lanes = [0i32; HALF];
    // SAFETY: the array is 32 bytes long; the store is an unaligned one.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
    lanes.iter().sum()
}

/// 8 rows of 8 pairs of bytes at `source` (rows `stride` bytes apart): pair p of all rows, each byte widened to i16, at `target + 64 p`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn transpose_8x8(source: *const u8, stride: usize, target: *mut u8) {
    let mut r = [_mm_setzero_si128(); 8];
    for (i, r) in r.iter_mut().enumerate() {
        // SAFETY: the caller owns 8 rows of at least 16 bytes from `source`.
        *r = unsafe { _mm_loadu_si128(source.add(i * stride).cast()) };
    }
    let mut t = [_mm_setzero_si128(); 8];
    for i in 0..4 {
        t[i] = _mm_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
        t[4 + i] = _mm_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
    }
    // t[4 h + i]: pairs 4h..4h + 4 of rows 2i and 2i + 1, a dword a pair.
    for h in 0..2 {
        let [a, b, c, d] = [t[4 * h], t[4 * h + 1], t[4 * h + 2], t[4 * h + 3]];
        let (low, low_rest) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
        let (high, high_rest) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
        let pairs = [
            _mm_unpacklo_epi64(low, low_rest),
            _mm_unpackhi_epi64(low, low_rest),
            _mm_unpacklo_epi64(high, high_rest),
            _mm_unpackhi_epi64(high, high_rest),
        ];
        for (p, pair) in pairs.into_iter().enumerate() {
            // SAFETY: the caller owns 32 bytes at each of 8 places 64 bytes apart from `target`.
            unsafe { _mm256_storeu_si256(target.add((4 * h + p) * 64).cast(), _mm256_cvtepu8_epi16(pair)) };
        }
    }
}

/// The rows of one tile.
struct TileRows {
    /// [6][stride].
    wide: Vec<i16>,
    terms: [i32; ROWS],
}

impl TileRows {
    fn new(stride: usize) -> TileRows {
        TileRows { wide: vec![0; ROWS * stride], terms: [0; ROWS] }
    }

    /// Takes rows [first, first + 6).
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(&mut self, rows: &Rows, first: usize) {
        let bytes = &rows.bytes[first * rows.stride..][..ROWS * rows.stride];
        self.wide.iter_mut().zip(bytes).for_each(|(wide, &byte)| *wide = i16::from(byte));
        self.terms.copy_from_slice(&rows.row_terms[first..first + ROWS]);
    }
}

/// Distances of the tile's rows to the 16 columns of `block`.
#[inline]
#[target_feature(enable = "avx2")]
fn tile(rows: &TileRows, columns: &Rows, block: usize, out: &mut TileBuffer) {
    let (stride, pairs) = (columns.stride, columns.stride / 2);
    assert!(rows.wide.len() == ROWS * stride && (block + 1) * LANES * stride * 2 <= columns.packed.len());
    assert!((block + 1) * LANES <= columns.column_terms.len());
    // SAFETY: the asserts above bound every address below; all loads are unaligned ones.
    unsafe {
        let a = rows.wide.as_ptr().cast::<i32>();
        let b = columns.packed.as_ptr().add(block * LANES * stride * 2);
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for pair in 0..pairs {
            let c0 = _mm256_loadu_si256(b.add(pair * 64).cast());
            let c1 = _mm256_loadu_si256(b.add(pair * 64 + 32).cast());
            for (r, sum) in sums.iter_mut().enumerate() {
                let xy = _mm256_set1_epi32(a.add(r * pairs + pair).read_unaligned());
                sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(c0, xy));
                sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(c1, xy));
            }
        }
        let terms = columns.column_terms.as_ptr().add(block * LANES);
        let (t0, t1) = (_mm256_loadu_si256(terms.cast()), _mm256_loadu_si256(terms.add(HALF).cast()));
        for ((sum, &term), out) in sums.iter().zip(&rows.terms).zip(out) {
            let term = _mm256_set1_epi32(term);
            for (half, (&sum, t)) in sum.iter().zip([t0, t1]).enumerate() {
                let d = _mm256_sub_epi32(_mm256_add_epi32(term, t), _mm256_slli_epi32(sum, 1));
                _mm256_storeu_si256(out.as_mut_ptr().add(half * HALF).cast(), d);
            }
        }
    }
}

/// Which of 16 distances do not exceed their threshold.
#[inline]
#[target_feature(enable = "avx2")]
fn near(distances: &[i32; LANES], thresholds: [__m256i; 2]) -> u32 {
    let far = |half: usize| {
        // SAFETY: `half` is 0 or 1, and the array 16 long; the load is an unaligned one.
        let d = unsafe { _mm256_loadu_si256(distances.as_ptr().add(half * HALF).cast()) };
        _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(d, thresholds[half]))) as u32
    };
    !(far(0) | far(1) << HALF) & 0xffff
}

/// Lanes of a block from row `base` whose column is one of `columns`.
#[inline]
fn lanes(base: usize, columns: std::ops::Range<usize>) -> u32 {
    let below = |end: usize| (1u32 << end.saturating_sub(base).min(LANES)) - 1;
    below(columns.end) & !below(columns.start)
}

/// The lanes that are set.
#[inline]
fn each(mut mask: u32, mut found: impl FnMut(usize)) {
    while mask != 0 {
        found(mask.trailing_zeros() as usize);
        mask &= mask - 1;
    }
}

pub(super) fn nearest_within(rows: &Rows, lists: &mut TopLists) {
    // SAFETY: the level is asserted in Tile::at_level.
    unsafe { nearest_within_avx2(rows, lists) }
}

#[target_feature(enable = "avx2")]
fn nearest_within_avx2(rows: &Rows, lists: &mut TopLists) {
    let (mut of_tile, mut buffer) = (TileRows::new(rows.stride), [[0; LANES]; ROWS]);
    // From the last rows to the first: rows loaded near each other tend to be near, so columns too meet their nearest early, and later
    // distances seldom pass their thresholds.
    for first in (0..rows.count).step_by(ROWS).rev() {
        let last = (first + ROWS).min(rows.count);
        of_tile.load(rows, first);
        for block in first / LANES..rows.count.div_ceil(LANES) {
            tile(&of_tile, rows, block, &mut buffer);
            let base = block * LANES;
            let mut of_columns = thresholds(lists, base);
            for (row, distances) in (first..last).zip(&buffer) {
                let later = lanes(base, row + 1..rows.count);
                let of_row = _mm256_set1_epi32(lists.thresholds[row]);
                each(near(distances, [of_row; 2]) & later, |lane| lists.insert(row, entry(distances[lane] as u32, (base + lane) as u32)));
                let near_columns = near(distances, of_columns) & later;
                if near_columns != 0 {
                    each(near_columns, |lane| lists.insert(base + lane, entry(distances[lane] as u32, row as u32)));
                    of_columns = thresholds(lists, base);
                }
            }
        }
    }
}

/// Thresholds of 16 rows from `base`.
#[inline]
#[target_feature(enable = "avx2")]
fn thresholds(lists: &TopLists, base: usize) -> [__m256i; 2] {
    let of_block = &lists.thresholds[base..base + LANES];
    // SAFETY: the slice is 16 long; the loads are unaligned ones.
    unsafe { [_mm256_loadu_si256(of_block.as_ptr().cast()), _mm256_loadu_si256(of_block.as_ptr().add(HALF).cast())] }
}

pub(super) fn nearest_among(rows: &Rows, columns: &Rows, lists: &mut TopLists) {
    // SAFETY: the level is asserted in Tile::at_level.
    unsafe { nearest_among_avx2(rows, columns, lists) }
}

#[target_feature(enable = "avx2")]
fn nearest_among_avx2(rows: &Rows, columns: &Rows, lists: &mut TopLists) {
    let (mut of_tile, mut buffer) = (TileRows::new(rows.stride), [[0; LANES]; ROWS]);
    for first in (0..rows.count).step_by(ROWS) {
        let last = (first + ROWS).min(rows.count);
        of_tile.load(rows, first);
        for block in 0..columns.count.div_ceil(LANES) {
            tile(&of_tile, columns, block, &mut buffer);
            let base = block * LANES;
            let real = lanes(base, 0..columns.count);
            for (row, distances) in (first..last).zip(&buffer) {
                let of_row = _mm256_set1_epi32(lists.thresholds[row]);
                each(near(distances, [of_row; 2]) & real, |lane| lists.insert(row, entry(distances[lane] as u32, (base + lane) as u32)));
            }
        }
    }
}

pub(super) fn distances_after(rows: &Rows, of: usize, out: &mut [u32]) {
    // SAFETY: the level is asserted in Tile::at_level.
    unsafe { distances_after_avx2(rows, of, out) }
}

#[target_feature(enable = "avx2")]
fn distances_after_avx2(rows: &Rows, of: usize, out: &mut [u32]) {
    let blocks = rows.count.div_ceil(LANES);
    let mut block = of / LANES;
    while block < blocks {
        // Eight accumulators hide the latency of the product.
        match blocks - block {
            1 => block = distances_to_blocks::<1>(rows, of, block, out),
            2 => block = distances_to_blocks::<2>(rows, of, block, out),
            3 => block = distances_to_blocks::<3>(rows, of, block, out),
            _ => block = distances_to_blocks::<4>(rows, of, block, out),
        }
    }
}

/// Distances of row `of` to `BLOCKS` blocks from `block`; returns the block after them.
#[inline]
#[target_feature(enable = "avx2")]
fn distances_to_blocks<const BLOCKS: usize>(rows: &Rows, of: usize, block: usize, out: &mut [u32]) -> usize {
    let (stride, end) = (rows.stride, (block + BLOCKS) * LANES);
    assert!(out.len() >= end && rows.packed.len() >= end * stride * 2 && rows.column_terms.len() >= end);
    let a = &rows.bytes[of * stride..][..stride];
    let term = _mm256_set1_epi32(rows.row_terms[of]);
    let mut sums = [[_mm256_setzero_si256(); 2]; BLOCKS];
    // SAFETY: the assert above bounds every block; `a` is `stride` bytes.
    unsafe {
        let b = rows.packed.as_ptr().add(block * LANES * stride * 2);
        for (pair, &xy) in a.as_chunks::<2>().0.iter().enumerate() {
            let xy = _mm256_cvtepu8_epi16(_mm_set1_epi16(i16::from_le_bytes(xy)));
            for (g, sum) in sums.iter_mut().enumerate() {
                let columns = b.add(g * LANES * stride * 2 + pair * 64);
                sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(_mm256_loadu_si256(columns.cast()), xy));
                sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(_mm256_loadu_si256(columns.add(32).cast()), xy));
            }
        }
        for (half, sum) in sums.into_iter().flatten().enumerate() {
            let at = block * LANES + half * HALF;
            let t = _mm256_loadu_si256(rows.column_terms.as_ptr().add(at).cast());
            let d = _mm256_sub_epi32(_mm256_add_epi32(term, t), _mm256_slli_epi32(sum, 1));
            _mm256_storeu_si256(out.as_mut_ptr().add(at).cast(), d);
        }
    }
    block + BLOCKS
}
