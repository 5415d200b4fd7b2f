//! AVX-512 F, BW, DQ, VL and VNNI: 16 floats or 32 integers a step; the last step of a row reads under a mask.
//!
//! Bytes are widened to i16 before anything else: differences of i8 need nine bits, and `vpdpwssd` then serves u8 and i8 and every
//! metric alike. `vpdpbusd` takes u8 times i8 only, so it would need a bias, a second sum to undo it, and still not square differences.
#![allow(unsafe_code)] // masked loads

use super::{BF16, COSINE, F16, F32, INNER_PRODUCT, L2, MANHATTAN, U8, finish, finish_floats};
use std::arch::x86_64::*;

/// The distance `M` of rows of f32, f16 or bf16 (`E`).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn floats<const M: u8, const E: u8>(a: &[u8], b: &[u8]) -> f32 {
    let zero = [_mm512_setzero_ps(); 3];
    let [s0, s1, s2, s3] = match E {
        F32 => walk!(a, b, 16 * 4, zero, float_step::<M, E>),
        _ => walk!(a, b, 16 * 2, zero, float_step::<M, E>),
    };
    let mut sums = [0.0; 3];
    for k in 0..3 {
        sums[k] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0[k], s1[k]), _mm512_add_ps(s2[k], s3[k])));
    }
    finish_floats::<M, E>(sums, a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn float_step<const M: u8, const E: u8>(sums: &mut [__m512; 3], a: &[u8], b: &[u8]) {
    let (x, y) = (load_floats::<E>(a), load_floats::<E>(b));
    match M {
        L2 => {
            let d = _mm512_sub_ps(x, y);
            sums[0] = _mm512_fmadd_ps(d, d, sums[0]);
        }
        MANHATTAN => sums[0] = _mm512_add_ps(sums[0], _mm512_abs_ps(_mm512_sub_ps(x, y))),
        INNER_PRODUCT => sums[0] = _mm512_fmadd_ps(x, y, sums[0]),
        COSINE => {
            sums[0] = _mm512_fmadd_ps(x, y, sums[0]);
            sums[1] = _mm512_fmadd_ps(x, x, sums[1]);
            sums[2] = _mm512_fmadd_ps(y, y, sums[2]);
        }
        _ => unreachable!("no other metric takes numbers: see kernel()"),
    }
}

/// The distance `M` of rows of u8 or i8 (`E`): at most 8192 * 255 * 255 = 532,676,608, so i32 holds every sum.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn ints<const M: u8, const E: u8>(a: &[u8], b: &[u8]) -> f32 {
    let [s0, s1, s2, s3] = walk!(a, b, 32, [_mm512_setzero_si512(); 3], int_step::<M, E>);
    let mut sums = [0.0; 3];
    for k in 0..3 {
        let sum = _mm512_add_epi32(_mm512_add_epi32(s0[k], s1[k]), _mm512_add_epi32(s2[k], s3[k]));
        sums[k] = f64::from(_mm512_reduce_add_epi32(sum));
    }
    finish::<M>(sums)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn int_step<const M: u8, const E: u8>(sums: &mut [__m512i; 3], a: &[u8], b: &[u8]) {
    let (x, y) = (load_ints::<E>(a), load_ints::<E>(b));
    match M {
        L2 => {
            let d = _mm512_sub_epi16(x, y);
            sums[0] = _mm512_dpwssd_epi32(sums[0], d, d);
        }
        MANHATTAN => sums[0] = _mm512_dpwssd_epi32(sums[0], _mm512_abs_epi16(_mm512_sub_epi16(x, y)), _mm512_set1_epi16(1)),
        INNER_PRODUCT => sums[0] = _mm512_dpwssd_epi32(sums[0], x, y),
        COSINE => {
            sums[0] = _mm512_dpwssd_epi32(sums[0], x, y);
            sums[1] = _mm512_dpwssd_epi32(sums[1], x, x);
            sums[2] = _mm512_dpwssd_epi32(sums[2], y, y);
        }
        _ => unreachable!("no other metric takes numbers: see kernel()"),
    }
}

/// The number of bits in which two rows differ: the count of each half byte is looked up, `vpsadbw` adds them up.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn bits(a: &[u8], b: &[u8]) -> f32 {
    let [s0, s1, s2, s3] = walk!(a, b, 64, _mm512_setzero_si512(), bit_step);
    _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_add_epi64(s0, s1), _mm512_add_epi64(s2, s3))) as f32
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn bit_step(sum: &mut __m512i, a: &[u8], b: &[u8]) {
    // VPOPCNTDQ would be one instruction, but it is not part of the level (Cascade Lake lacks it).
    let counts = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    let low_half = _mm512_set1_epi8(0x0f);
    let differ = _mm512_xor_si512(load_64(a), load_64(b));
    let low = _mm512_shuffle_epi8(counts, _mm512_and_si512(differ, low_half));
    let high = _mm512_shuffle_epi8(counts, _mm512_and_si512(_mm512_srli_epi16::<4>(differ), low_half));
    *sum = _mm512_add_epi64(*sum, _mm512_sad_epu8(_mm512_add_epi8(low, high), _mm512_setzero_si512()));
}

/// Up to 16 coordinates; those that are missing are 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn load_floats<const E: u8>(bytes: &[u8]) -> __m512 {
    match E {
        F32 => _mm512_castsi512_ps(load_64(bytes)),
        F16 => _mm512_cvtph_ps(load_32(bytes)),
        BF16 => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load_32(bytes)))),
        _ => unreachable!("not a float: see kernel()"),
    }
}

/// Up to 32 coordinates as i16; those that are missing are 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn load_ints<const E: u8>(bytes: &[u8]) -> __m512i {
    if E == U8 { _mm512_cvtepu8_epi16(load_32(bytes)) } else { _mm512_cvtepi8_epi16(load_32(bytes)) }
}

/// One bit for each of the first 64 bytes of a slice. Where the length is a constant, so is this, and the load loses its mask.
#[inline]
fn first_bytes(bytes: &[u8]) -> u64 {
    if bytes.len() < 64 { (1 << bytes.len()) - 1 } else { u64::MAX }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn load_64(bytes: &[u8]) -> __m512i {
    // SAFETY: the mask names bytes of `bytes` only (first_bytes), and bytes outside the mask are not touched.
    unsafe { _mm512_maskz_loadu_epi8(first_bytes(bytes), bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn load_32(bytes: &[u8]) -> __m256i {
    // SAFETY: the mask names bytes of `bytes` only (first_bytes), and bytes outside the mask are not touched.
    unsafe { _mm256_maskz_loadu_epi8(first_bytes(bytes) as u32, bytes.as_ptr().cast()) }
}
