//! AVX2 with FMA and F16C: 8 floats or 16 integers a step; what is left of a row is filled up with zeros.
//!
//! Bytes are widened to i16 before they are multiplied: `vpmaddubsw` would saturate its sums of two products at 32,767.
#![allow(unsafe_code)] // vector loads

use super::{BF16, COSINE, F16, F32, INNER_PRODUCT, L2, MANHATTAN, U8, finish, finish_floats, word};
use std::arch::x86_64::*;

/// The distance `M` of rows of f32, f16 or bf16 (`E`).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn floats<const M: u8, const E: u8>(a: &[u8], b: &[u8]) -> f32 {
    let zero = [_mm256_setzero_ps(); 3];
    let [s0, s1, s2, s3] = match E {
        F32 => walk!(a, b, 8 * 4, zero, float_step::<M, E>),
        _ => walk!(a, b, 8 * 2, zero, float_step::<M, E>),
    };
    let mut sums = [0.0; 3];
    for k in 0..3 {
        sums[k] = sum_of_floats(_mm256_add_ps(_mm256_add_ps(s0[k], s1[k]), _mm256_add_ps(s2[k], s3[k])));
    }
    finish_floats::<M, E>(sums, a, b)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn float_step<const M: u8, const E: u8>(sums: &mut [__m256; 3], a: &[u8], b: &[u8]) {
    let (x, y) = (load_floats::<E>(a), load_floats::<E>(b));
    match M {
        L2 => {
            let d = _mm256_sub_ps(x, y);
            sums[0] = _mm256_fmadd_ps(d, d, sums[0]);
        }
        MANHATTAN => sums[0] = _mm256_add_ps(sums[0], _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_sub_ps(x, y))),
        INNER_PRODUCT => sums[0] = _mm256_fmadd_ps(x, y, sums[0]),
        COSINE => {
            sums[0] = _mm256_fmadd_ps(x, y, sums[0]);
            sums[1] = _mm256_fmadd_ps(x, x, sums[1]);
            sums[2] = _mm256_fmadd_ps(y, y, sums[2]);
        }
        _ => unreachable!("no other metric takes numbers: see kernel()"),
    }
}

/// The distance `M` of rows of u8 or i8 (`E`): at most 8192 * 255 * 255 = 532,676,608, so i32 holds every sum.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn ints<const M: u8, const E: u8>(a: &[u8], b: &[u8]) -> f32 {
    let [s0, s1, s2, s3] = walk!(a, b, 16, [_mm256_setzero_si256(); 3], int_step::<M, E>);
    let mut sums = [0.0; 3];
    for k in 0..3 {
        let sum = _mm256_add_epi32(_mm256_add_epi32(s0[k], s1[k]), _mm256_add_epi32(s2[k], s3[k]));
        sums[k] = f64::from(sum_of_ints(sum));
    }
    finish::<M>(sums)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn int_step<const M: u8, const E: u8>(sums: &mut [__m256i; 3], a: &[u8], b: &[u8]) {
    let (x, y) = (load_ints::<E>(a), load_ints::<E>(b));
    match M {
        L2 => {
            let d = _mm256_sub_epi16(x, y);
            add_products(&mut sums[0], d, d);
        }
        MANHATTAN => add_products(&mut sums[0], _mm256_abs_epi16(_mm256_sub_epi16(x, y)), _mm256_set1_epi16(1)),
        INNER_PRODUCT => add_products(&mut sums[0], x, y),
        COSINE => {
            add_products(&mut sums[0], x, y);
            add_products(&mut sums[1], x, x);
            add_products(&mut sums[2], y, y);
        }
        _ => unreachable!("no other metric takes numbers: see kernel()"),
    }
}

/// Adds `x.y` of 16 pairs of i16 to the eight i32 of `sum`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_products(sum: &mut __m256i, x: __m256i, y: __m256i) {
    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, y));
}

/// The number of bits in which two rows differ: the count of each half byte is looked up, `vpsadbw` adds them up.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn bits(a: &[u8], b: &[u8]) -> f32 {
    let [s0, s1, s2, s3] = walk!(a, b, 32, _mm256_setzero_si256(), bit_step);
    // Four i64 counts below 2^31 each, so their upper halves are 0 and adding all halves adds the counts.
    sum_of_ints(_mm256_add_epi64(_mm256_add_epi64(s0, s1), _mm256_add_epi64(s2, s3))) as f32
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bit_step(sum: &mut __m256i, a: &[u8], b: &[u8]) {
    let counts = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    let low_half = _mm256_set1_epi8(0x0f);
    let differ = _mm256_xor_si256(load_32(a), load_32(b));
    let low = _mm256_shuffle_epi8(counts, _mm256_and_si256(differ, low_half));
    let high = _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16::<4>(differ), low_half));
    *sum = _mm256_add_epi64(*sum, _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256()));
}

/// Up to 8 coordinates; those that are missing are 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_floats<const E: u8>(bytes: &[u8]) -> __m256 {
    match E {
        F32 => _mm256_castsi256_ps(load_32(bytes)),
        F16 => _mm256_cvtph_ps(load_16(bytes)),
        BF16 => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_16(bytes)))),
        _ => unreachable!("not a float: see kernel()"),
    }
}

/// Up to 16 coordinates as i16; those that are missing are 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_ints<const E: u8>(bytes: &[u8]) -> __m256i {
    if E == U8 { _mm256_cvtepu8_epi16(load_16(bytes)) } else { _mm256_cvtepi8_epi16(load_16(bytes)) }
}

/// The first 32 of `bytes`; those that are missing are 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_32(bytes: &[u8]) -> __m256i {
    let Some(whole) = bytes.first_chunk::<32>() else {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let full_lanes = _mm256_set1_epi32((bytes.len() / 4) as i32);
        // SAFETY: the mask names the lanes below `len / 4`, which are bytes of `bytes`; lanes outside the mask are not touched.
        let full = unsafe { _mm256_maskload_epi32(bytes.as_ptr().cast(), _mm256_cmpgt_epi32(full_lanes, lane)) };
        let (_, rest) = bytes.as_chunks::<4>();
        let partial = _mm256_and_si256(_mm256_cmpeq_epi32(full_lanes, lane), _mm256_set1_epi32(word(rest) as i32));
        return _mm256_or_si256(full, partial);
    };
    // SAFETY: `whole` holds the 32 bytes that are read; the load takes any alignment.
    unsafe { _mm256_loadu_si256(whole.as_ptr().cast()) }
}

/// The first 16 of `bytes`; those that are missing are 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_16(bytes: &[u8]) -> __m128i {
    let Some(whole) = bytes.first_chunk::<16>() else {
        let (low, high) = bytes.split_at(bytes.len().min(8));
        return _mm_set_epi64x(word(high) as i64, word(low) as i64);
    };
    // SAFETY: `whole` holds the 16 bytes that are read; the load takes any alignment.
    unsafe { _mm_loadu_si128(whole.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_of_floats(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_of_ints(v: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two)))
}
