//! AVX-512 VNNI: `vpdpbusd` multiplies u8 by i8, so rows are broadcast with their top bit flipped and the columns' terms undo it:
//! `x.y = (x - 128).y + 128 sum(y)`.
//!
//! A tile is 12 rows x 32 columns: 24 accumulators. Its distances pass through a small buffer in L1 to the selection, which compares 16 at
//! a time with the row's threshold (and, within one set, with the columns' thresholds, so that each pair is computed once). The few that
//! pass are inserted into a list of 8 or 16 sorted u64 held in one or two registers: `new[i] = max(old[i - 1], min(old[i], x))`.
#![allow(unsafe_code)]

use super::{LANES, Rows, TILE_COLUMNS, TILE_ROWS, TopLists, entry};
use std::arch::x86_64::*;

type TileBuffer = [[i32; TILE_COLUMNS]; TILE_ROWS];

pub(super) fn pack(rows: &mut Rows) {
    // SAFETY: the level is asserted in Tile::at_level.
    unsafe { pack_avx512(rows) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn pack_avx512(rows: &mut Rows) {
    let (stride, blocks) = (rows.stride, rows.blocks());
    let steps = stride / 4;
    // Whole tiles of rows and columns are computed, so both are padded with zero rows; what they give is never read.
    let padded = (blocks * LANES).max(rows.count.div_ceil(TILE_ROWS) * TILE_ROWS);
    rows.bytes.resize(padded * stride, 0);
    rows.packed.resize(blocks * LANES * stride, 0);
    rows.row_terms.clear();
    rows.row_terms.resize(padded, 0);
    rows.column_terms.clear();
    rows.column_terms.resize(blocks * LANES, 0);
    for block in 0..blocks {
        // SAFETY: rows [block * 16, block * 16 + 16) lie inside `bytes` (padded above); the destination block inside `packed`, and its 16
        // terms inside both arrays of terms.
        unsafe {
            let source = rows.bytes.as_ptr().add(block * LANES * stride);
            let target = rows.packed.as_mut_ptr().add(block * LANES * stride).cast::<i32>();
            let mut step = 0;
            while step + 16 <= steps {
                transpose_16x16(source.add(step * 4), stride, target.add(step * LANES));
                step += 16;
            }
            while step < steps {
                for lane in 0..LANES {
                    let quad = source.add(lane * stride + step * 4).cast::<i32>().read_unaligned();
                    target.add(step * LANES + lane).write(quad);
                }
                step += 1;
            }
            let (squares, sums) = squares_and_sums(target, steps);
            _mm512_storeu_si512(rows.row_terms.as_mut_ptr().add(block * LANES).cast(), squares);
            let terms = _mm512_sub_epi32(squares, _mm512_slli_epi32(sums, 8));
            _mm512_storeu_si512(rows.column_terms.as_mut_ptr().add(block * LANES).cast(), terms);
        }
    }
    for byte in &mut rows.bytes {
        *byte ^= 0x80;
    }
}

/// `|x|^2` and `sum(x)` of the 16 rows of one packed block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn squares_and_sums(block: *const i32, steps: usize) -> (__m512i, __m512i) {
    let low_bytes = _mm512_set1_epi16(0xff);
    let ones = _mm512_set1_epi8(1);
    let (mut squares, mut sums) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    for step in 0..steps {
        // SAFETY: the caller owns `steps` vectors of 16 dwords from `block`.
        let quads = unsafe { _mm512_loadu_si512(block.add(step * LANES).cast()) };
        let (even, odd) = (_mm512_and_si512(quads, low_bytes), _mm512_srli_epi16(quads, 8));
        squares = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(squares, even, even), odd, odd);
        sums = _mm512_dpbusd_epi32(sums, quads, ones);
    }
    (squares, sums)
}

/// 16 rows of 16 dwords at `source` (rows `stride` bytes apart), transposed to 16 x 16 dwords at `target`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn transpose_16x16(source: *const u8, stride: usize, target: *mut i32) {
    let mut r = [_mm512_setzero_si512(); 16];
    let mut t = [_mm512_setzero_si512(); 16];
    for (i, r) in r.iter_mut().enumerate() {
        // SAFETY: the caller owns 16 rows of at least 64 bytes from `source`.
        *r = unsafe { _mm512_loadu_si512(source.add(i * stride).cast()) };
    }
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..4 {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // r[4g + c] now holds, in 128-bit part p, column 4p + c of rows 4g..4g + 4.
    for c in 0..4 {
        let low = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
        let low_odd = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        let high = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        let high_odd = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        let columns = [
            (c, _mm512_shuffle_i32x4(low, high, 0x88)),
            (8 + c, _mm512_shuffle_i32x4(low, high, 0xdd)),
            (4 + c, _mm512_shuffle_i32x4(low_odd, high_odd, 0x88)),
            (12 + c, _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd)),
        ];
        for (column, value) in columns {
            // SAFETY: the caller owns 256 dwords from `target`.
            unsafe { _mm512_storeu_si512(target.add(column * LANES).cast(), value) };
        }
    }
}

/// Distances of rows [row, row + 12) to columns [column, column + 32) of packed rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile(rows: &Rows, row: usize, columns: &Rows, column: usize, out: &mut TileBuffer) {
    let stride = rows.stride;
    let steps = stride / 4;
    assert!((row + TILE_ROWS) * stride <= rows.bytes.len() && (column + TILE_COLUMNS) * stride <= columns.packed.len());
    assert!(row + TILE_ROWS <= rows.row_terms.len() && column + TILE_COLUMNS <= columns.column_terms.len());
    // SAFETY: the asserts above bound every address below; all loads are unaligned ones.
    unsafe {
        let a = rows.bytes.as_ptr().add(row * stride);
        let b0 = columns.packed.as_ptr().add(column * stride);
        let b1 = b0.add(LANES * stride);
        let mut sums = [[_mm512_setzero_si512(); 2]; TILE_ROWS];
        for step in 0..steps {
            let c0 = _mm512_loadu_si512(b0.add(step * 64).cast());
            let c1 = _mm512_loadu_si512(b1.add(step * 64).cast());
            for (r, sum) in sums.iter_mut().enumerate() {
                let quad = _mm512_set1_epi32(a.add(r * stride + step * 4).cast::<i32>().read_unaligned());
                sum[0] = _mm512_dpbusd_epi32(sum[0], c0, quad);
                sum[1] = _mm512_dpbusd_epi32(sum[1], c1, quad);
            }
        }
        let t0 = _mm512_loadu_si512(columns.column_terms.as_ptr().add(column).cast());
        let t1 = _mm512_loadu_si512(columns.column_terms.as_ptr().add(column + LANES).cast());
        for (r, sum) in sums.iter().enumerate() {
            let term = _mm512_set1_epi32(rows.row_terms[row + r]);
            for (half, t) in [t0, t1].into_iter().enumerate() {
                let d = _mm512_sub_epi32(_mm512_add_epi32(term, t), _mm512_slli_epi32(sum[half], 1));
                _mm512_storeu_si512(out[r].as_mut_ptr().add(half * LANES).cast(), d);
            }
        }
    }
}

/// Inserts into the sorted list of `row` the newcomers that `near` marks among 16 distances; newcomer `lane` is row `base + lane`.
///
/// The list stays in registers meanwhile; a newcomer that is not near after all falls out at its end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn insert(lists: &mut TopLists, row: usize, distances: &[i32], mut near: u16, base: usize) {
    let (k, width) = (lists.k, lists.width);
    let list = &mut lists.entries[row * width..][..width];
    // SAFETY: the list is `width` = 8 or 16 entries long (slice above).
    unsafe {
        let mut low = _mm512_loadu_si512(list.as_ptr().cast());
        let zero = _mm512_setzero_si512();
        if width == 8 {
            while near != 0 {
                let lane = near.trailing_zeros() as usize;
                near &= near - 1;
                let x = _mm512_set1_epi64(entry(distances[lane] as u32, (base + lane) as u32) as i64);
                low = _mm512_max_epu64(_mm512_alignr_epi64(low, zero, 7), _mm512_min_epu64(low, x));
            }
        } else {
            let mut high = _mm512_loadu_si512(list.as_ptr().add(8).cast());
            while near != 0 {
                let lane = near.trailing_zeros() as usize;
                near &= near - 1;
                let x = _mm512_set1_epi64(entry(distances[lane] as u32, (base + lane) as u32) as i64);
                high = _mm512_max_epu64(_mm512_alignr_epi64(high, low, 7), _mm512_min_epu64(high, x));
                low = _mm512_max_epu64(_mm512_alignr_epi64(low, zero, 7), _mm512_min_epu64(low, x));
            }
            _mm512_storeu_si512(list.as_mut_ptr().add(8).cast(), high);
        }
        _mm512_storeu_si512(list.as_mut_ptr().cast(), low);
    }
    // NO_ENTRY shifts to u32::MAX; as a threshold it must admit every distance.
    lists.thresholds[row] = ((list[k - 1] >> 32) as u32).min(i32::MAX as u32) as i32;
}

pub(super) fn nearest_within(rows: &Rows, lists: &mut TopLists) {
    // SAFETY: the level is asserted in Tile::at_level.
    unsafe { nearest_within_avx512(rows, lists) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn nearest_within_avx512(rows: &Rows, lists: &mut TopLists) {
    let mut buffer: TileBuffer = [[0; TILE_COLUMNS]; TILE_ROWS];
    // From the last rows to the first: rows loaded near each other tend to be near, so columns too meet their nearest early, and later
    // distances seldom pass their thresholds.
    for first in (0..rows.count).step_by(TILE_ROWS).rev() {
        let last = (first + TILE_ROWS).min(rows.count);
        for column in ((first / TILE_COLUMNS) * TILE_COLUMNS..rows.count).step_by(TILE_COLUMNS) {
            tile(rows, first, rows, column, &mut buffer);
            for half in 0..2 {
                let base = column + half * LANES;
                if base >= rows.count {
                    break;
                }
                assert!(base + LANES <= lists.thresholds.len());
                // SAFETY: bounded by the assert; thresholds has whole tiles of columns (reset with blocks() * 16).
                let mut of_columns = unsafe { _mm512_loadu_si512(lists.thresholds.as_ptr().add(base).cast()) };
                for row in first..last {
                    let later = later_lanes(base, row, rows.count);
                    // SAFETY: `buffer` rows are 32 entries long.
                    let d = unsafe { _mm512_loadu_si512(buffer[row - first].as_ptr().add(half * LANES).cast()) };
                    let of_row = _mm512_set1_epi32(lists.thresholds[row]);
                    let near_row = _mm512_mask_cmple_epi32_mask(later, d, of_row);
                    if near_row != 0 {
                        insert(lists, row, &buffer[row - first][half * LANES..], near_row, base);
                    }
                    let mut near_column = _mm512_mask_cmple_epi32_mask(later, d, of_columns);
                    if near_column != 0 {
                        while near_column != 0 {
                            let lane = near_column.trailing_zeros() as usize;
                            near_column &= near_column - 1;
                            insert(lists, base + lane, &buffer[row - first][half * LANES + lane..], 1, row);
                        }
                        // SAFETY: as above.
                        of_columns = unsafe { _mm512_loadu_si512(lists.thresholds.as_ptr().add(base).cast()) };
                    }
                }
            }
        }
    }
}

/// Lanes whose column is a real row of the set.
#[inline]
fn real_lanes(base: usize, count: usize) -> u16 {
    if count - base >= LANES { u16::MAX } else { (1 << (count - base)) - 1 }
}

/// Real lanes whose column comes after `row`: within one set each pair is handled once.
#[inline]
fn later_lanes(base: usize, row: usize, count: usize) -> u16 {
    let after = if row < base { u32::MAX } else { u32::MAX << (row - base + 1).min(31) };
    after as u16 & real_lanes(base, count)
}

pub(super) fn nearest_among(rows: &Rows, columns: &Rows, lists: &mut TopLists) {
    // SAFETY: the level is asserted in Tile::at_level.
    unsafe { nearest_among_avx512(rows, columns, lists) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn nearest_among_avx512(rows: &Rows, columns: &Rows, lists: &mut TopLists) {
    let mut buffer: TileBuffer = [[0; TILE_COLUMNS]; TILE_ROWS];
    for first in (0..rows.count).step_by(TILE_ROWS) {
        let last = (first + TILE_ROWS).min(rows.count);
        for column in (0..columns.count).step_by(TILE_COLUMNS) {
            tile(rows, first, columns, column, &mut buffer);
            for half in 0..2 {
                let base = column + half * LANES;
                if base >= columns.count {
                    break;
                }
                let real = real_lanes(base, columns.count);
                for row in first..last {
                    // SAFETY: `buffer` rows are 32 entries long.
                    let d = unsafe { _mm512_loadu_si512(buffer[row - first].as_ptr().add(half * LANES).cast()) };
                    let near = _mm512_mask_cmple_epi32_mask(real, d, _mm512_set1_epi32(lists.thresholds[row]));
                    if near != 0 {
                        insert(lists, row, &buffer[row - first][half * LANES..], near, base);
                    }
                }
            }
        }
    }
}

pub(super) fn distances_after(rows: &Rows, of: usize, out: &mut [u32]) {
    // SAFETY: the level is asserted in Tile::at_level.
    unsafe { distances_after_avx512(rows, of, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn distances_after_avx512(rows: &Rows, of: usize, out: &mut [u32]) {
    let blocks = rows.blocks();
    let mut block = of / TILE_COLUMNS * 2;
    // Six or more accumulators hide the latency of the product; blocks come in pairs.
    while block < blocks {
        match blocks - block {
            2 => block = distances_to_blocks::<2>(rows, of, block, out),
            4 => block = distances_to_blocks::<4>(rows, of, block, out),
            _ => block = distances_to_blocks::<6>(rows, of, block, out),
        }
    }
}

/// Distances of row `of` to `BLOCKS` blocks from `block`; returns the block after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn distances_to_blocks<const BLOCKS: usize>(rows: &Rows, of: usize, block: usize, out: &mut [u32]) -> usize {
    let (stride, end) = (rows.stride, (block + BLOCKS) * LANES);
    assert!(out.len() >= end && rows.packed.len() >= end * stride && rows.column_terms.len() >= end);
    let a = &rows.bytes[of * stride..][..stride];
    let term = _mm512_set1_epi32(rows.row_terms[of]);
    let mut sums = [_mm512_setzero_si512(); BLOCKS];
    // SAFETY: the assert above bounds every block; `a` is `stride` bytes.
    unsafe {
        let b = rows.packed.as_ptr().add(block * LANES * stride);
        for step in 0..stride / 4 {
            let quad = _mm512_set1_epi32(a.as_ptr().add(step * 4).cast::<i32>().read_unaligned());
            for (g, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_loadu_si512(b.add(g * LANES * stride + step * 64).cast()), quad);
            }
        }
        for (g, sum) in sums.into_iter().enumerate() {
            let t = _mm512_loadu_si512(rows.column_terms.as_ptr().add((block + g) * LANES).cast());
            let d = _mm512_sub_epi32(_mm512_add_epi32(term, t), _mm512_slli_epi32(sum, 1));
            _mm512_storeu_si512(out.as_mut_ptr().add((block + g) * LANES).cast(), d);
        }
    }
    block + BLOCKS
}
