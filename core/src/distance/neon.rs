//! NEON, which every AArch64 has: 4 floats or 8 integers a step; what is left of a row is filled up with zeros.
//!
//! Bytes are widened to i16 and multiplied into i32, so nothing saturates. The dot product extension is not asked for.
#![allow(unsafe_code)] // one vector load

use super::{BF16, COSINE, F16, F32, INNER_PRODUCT, L2, MANHATTAN, U8, finish, finish_floats, word};
use std::arch::aarch64::*;

/// The distance `M` of rows of f32, f16 or bf16 (`E`).
#[target_feature(enable = "neon")]
pub(super) fn floats<const M: u8, const E: u8>(a: &[u8], b: &[u8]) -> f32 {
    let zero = [vdupq_n_f32(0.0); 3];
    let [s0, s1, s2, s3] = match E {
        F32 => walk!(a, b, 4 * 4, zero, float_step::<M, E>),
        _ => walk!(a, b, 4 * 2, zero, float_step::<M, E>),
    };
    let mut sums = [0.0; 3];
    for k in 0..3 {
        sums[k] = vaddvq_f32(vaddq_f32(vaddq_f32(s0[k], s1[k]), vaddq_f32(s2[k], s3[k])));
    }
    finish_floats::<M, E>(sums, a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn float_step<const M: u8, const E: u8>(sums: &mut [float32x4_t; 3], a: &[u8], b: &[u8]) {
    let (x, y) = (load_floats::<E>(a), load_floats::<E>(b));
    match M {
        L2 => {
            let d = vsubq_f32(x, y);
            sums[0] = vfmaq_f32(sums[0], d, d);
        }
        MANHATTAN => sums[0] = vaddq_f32(sums[0], vabdq_f32(x, y)),
        INNER_PRODUCT => sums[0] = vfmaq_f32(sums[0], x, y),
        COSINE => {
            sums[0] = vfmaq_f32(sums[0], x, y);
            sums[1] = vfmaq_f32(sums[1], x, x);
            sums[2] = vfmaq_f32(sums[2], y, y);
        }
        _ => unreachable!("no other metric takes numbers: see kernel()"),
    }
}

/// The distance `M` of rows of u8 or i8 (`E`): at most 8192 * 255 * 255 = 532,676,608, so i32 holds every sum.
#[target_feature(enable = "neon")]
pub(super) fn ints<const M: u8, const E: u8>(a: &[u8], b: &[u8]) -> f32 {
    let [s0, s1, s2, s3] = walk!(a, b, 8, [vdupq_n_s32(0); 3], int_step::<M, E>);
    let mut sums = [0.0; 3];
    for k in 0..3 {
        sums[k] = f64::from(vaddvq_s32(vaddq_s32(vaddq_s32(s0[k], s1[k]), vaddq_s32(s2[k], s3[k]))));
    }
    finish::<M>(sums)
}

#[inline]
#[target_feature(enable = "neon")]
fn int_step<const M: u8, const E: u8>(sums: &mut [int32x4_t; 3], a: &[u8], b: &[u8]) {
    let (x, y) = (load_ints::<E>(a), load_ints::<E>(b));
    match M {
        L2 => {
            let d = vsubq_s16(x, y);
            add_products(&mut sums[0], d, d);
        }
        MANHATTAN => sums[0] = vpadalq_s16(sums[0], vabdq_s16(x, y)),
        INNER_PRODUCT => add_products(&mut sums[0], x, y),
        COSINE => {
            add_products(&mut sums[0], x, y);
            add_products(&mut sums[1], x, x);
            add_products(&mut sums[2], y, y);
        }
        _ => unreachable!("no other metric takes numbers: see kernel()"),
    }
}

/// Adds `x.y` of 8 pairs of i16 to the four i32 of `sum`.
#[inline]
#[target_feature(enable = "neon")]
fn add_products(sum: &mut int32x4_t, x: int16x8_t, y: int16x8_t) {
    *sum = vmlal_high_s16(vmlal_s16(*sum, vget_low_s16(x), vget_low_s16(y)), x, y);
}

/// The number of bits in which two rows differ.
#[target_feature(enable = "neon")]
pub(super) fn bits(a: &[u8], b: &[u8]) -> f32 {
    let [s0, s1, s2, s3] = walk!(a, b, 16, vdupq_n_u32(0), bit_step);
    vaddvq_u32(vaddq_u32(vaddq_u32(s0, s1), vaddq_u32(s2, s3))) as f32
}

#[inline]
#[target_feature(enable = "neon")]
fn bit_step(sum: &mut uint32x4_t, a: &[u8], b: &[u8]) {
    *sum = vpadalq_u16(*sum, vpaddlq_u8(vcntq_u8(veorq_u8(load_16(a), load_16(b)))));
}

/// Up to 4 coordinates; those that are missing are 0.
#[inline]
#[target_feature(enable = "neon")]
fn load_floats<const E: u8>(bytes: &[u8]) -> float32x4_t {
    match E {
        F32 => vreinterpretq_f32_u8(load_16(bytes)),
        F16 => vcvt_f32_f16(vreinterpret_f16_u8(load_8(bytes))),
        BF16 => vreinterpretq_f32_u32(vshll_n_u16::<16>(vreinterpret_u16_u8(load_8(bytes)))),
        _ => unreachable!("not a float: see kernel()"),
    }
}

/// Up to 8 coordinates as i16; those that are missing are 0.
#[inline]
#[target_feature(enable = "neon")]
fn load_ints<const E: u8>(bytes: &[u8]) -> int16x8_t {
    let bytes = load_8(bytes);
    if E == U8 { vreinterpretq_s16_u16(vmovl_u8(bytes)) } else { vmovl_s8(vreinterpret_s8_u8(bytes)) }
}

/// The first 16 of `bytes`; those that are missing are 0.
#[inline]
#[target_feature(enable = "neon")]
fn load_16(bytes: &[u8]) -> uint8x16_t {
    let Some(whole) = bytes.first_chunk::<16>() else {
        let (low, high) = bytes.split_at(bytes.len().min(8));
        return vcombine_u8(load_8(low), load_8(high));
    };
    // SAFETY: `whole` holds the 16 bytes that are read; the load takes any alignment.
    unsafe { vld1q_u8(whole.as_ptr()) }
}

/// The first 8 of `bytes`; those that are missing are 0.
#[inline]
#[target_feature(enable = "neon")]
fn load_8(bytes: &[u8]) -> uint8x8_t {
    vcreate_u8(word(bytes))
}
