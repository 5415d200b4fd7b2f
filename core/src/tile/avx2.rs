//! AVX2: bytes are widened to i16 and multiplied in pairs by `vpmaddwd`, which is exact (`vpmaddubsw` would saturate).
//!
//! The same shape as the AVX-512 kernels with narrower tiles: one row against 16 columns, four rows at a time; selection is scalar.
#![allow(unsafe_code)]

use super::{LANES, Rows, TopLists, entry};
use std::arch::x86_64::*;

const ROWS: usize = 4;
type TileBuffer = [[i32; LANES]; ROWS];

pub(super) fn pack(rows: &mut Rows) {
    let (stride, blocks) = (rows.stride, rows.blocks());
    let padded = (blocks * LANES).max(rows.count.next_multiple_of(ROWS));
    rows.bytes.resize(padded * stride, 0);
    rows.packed.resize(blocks * LANES * stride * 2, 0);
    rows.row_terms.clear();
    rows.row_terms.extend(rows.bytes.chunks_exact(stride).map(|r| r.iter().map(|&x| i32::from(x) * i32::from(x)).sum::<i32>()));
    rows.column_terms.clear();
    rows.column_terms.extend_from_slice(&rows.row_terms);
    for (block, target) in rows.packed.chunks_exact_mut(LANES * stride * 2).enumerate() {
        for lane in 0..LANES {
            let row = &rows.bytes[(block * LANES + lane) * stride..][..stride];
            for (pair, xy) in row.as_chunks::<2>().0.iter().enumerate() {
                // Two i16, little-endian, whose high bytes stay zero.
                target[(pair * LANES + lane) * 4] = xy[0];
                target[(pair * LANES + lane) * 4 + 2] = xy[1];
            }
        }
    }
}

/// Distances of rows [row, row + 4) to the 16 columns of `block`.
#[inline]
#[target_feature(enable = "avx2")]
fn tile(rows: &Rows, row: usize, columns: &Rows, block: usize, out: &mut TileBuffer) {
    let stride = rows.stride;
    assert!((row + ROWS) * stride <= rows.bytes.len() && (block + 1) * LANES * stride * 2 <= columns.packed.len());
    assert!(row + ROWS <= rows.row_terms.len() && (block + 1) * LANES <= columns.column_terms.len());
    // SAFETY: the asserts above bound every address below; all loads are unaligned ones.
    unsafe {
        let b = columns.packed.as_ptr().add(block * LANES * stride * 2);
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for pair in 0..stride / 2 {
            let c0 = _mm256_loadu_si256(b.add(pair * 64).cast());
            let c1 = _mm256_loadu_si256(b.add(pair * 64 + 32).cast());
            for (r, sum) in sums.iter_mut().enumerate() {
                let at = (row + r) * stride + pair * 2;
                let xy = _mm256_set1_epi32(i32::from(rows.bytes[at]) | i32::from(rows.bytes[at + 1]) << 16);
                sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(c0, xy));
                sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(c1, xy));
            }
        }
        for (r, sum) in sums.iter().enumerate() {
            let term = _mm256_set1_epi32(rows.row_terms[row + r]);
            for (half, &sum) in sum.iter().enumerate() {
                let t = _mm256_loadu_si256(columns.column_terms.as_ptr().add(block * LANES + half * 8).cast());
                let d = _mm256_sub_epi32(_mm256_add_epi32(term, t), _mm256_slli_epi32(sum, 1));
                _mm256_storeu_si256(out[r].as_mut_ptr().add(half * 8).cast(), d);
            }
        }
    }
}

fn each_tile(rows: &Rows, columns: &Rows, first_block: impl Fn(usize) -> usize, mut seen: impl FnMut(usize, usize, i32)) {
    let mut buffer: TileBuffer = [[0; LANES]; ROWS];
    for first in (0..rows.count).step_by(ROWS) {
        for block in first_block(first)..columns.count.div_ceil(LANES) {
            // SAFETY: the level is asserted in Tile::at_level.
            unsafe { tile(rows, first, columns, block, &mut buffer) };
            for (r, distances) in buffer.iter().enumerate().take(rows.count - first) {
                for (lane, &d) in distances.iter().enumerate().take(columns.count - block * LANES) {
                    seen(first + r, block * LANES + lane, d);
                }
            }
        }
    }
}

pub(super) fn nearest_within(rows: &Rows, lists: &mut TopLists) {
    each_tile(
        rows,
        rows,
        |first| first / LANES,
        |i, j, d| {
            if j > i {
                if d <= lists.thresholds[i] {
                    lists.insert(i, entry(d as u32, j as u32));
                }
                if d <= lists.thresholds[j] {
                    lists.insert(j, entry(d as u32, i as u32));
                }
            }
        },
    );
}

pub(super) fn nearest_among(rows: &Rows, columns: &Rows, lists: &mut TopLists) {
    each_tile(
        rows,
        columns,
        |_| 0,
        |i, j, d| {
            if d <= lists.thresholds[i] {
                lists.insert(i, entry(d as u32, j as u32));
            }
        },
    );
}

pub(super) fn distances_after(rows: &Rows, of: usize, out: &mut [u32]) {
    let mut buffer: TileBuffer = [[0; LANES]; ROWS];
    let first = of / ROWS * ROWS;
    for block in of / LANES..rows.count.div_ceil(LANES) {
        // SAFETY: the level is asserted in Tile::at_level.
        unsafe { tile(rows, first, rows, block, &mut buffer) };
        for (o, &d) in out[block * LANES..].iter_mut().zip(&buffer[of - first]) {
            *o = d as u32;
        }
    }
}
