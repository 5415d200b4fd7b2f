//! Plain Rust: what every other level must equal. Integers in i64, floats in f64, one coordinate after another.

use super::{BF16, COSINE, F32, I8, INNER_PRODUCT, L2, MANHATTAN, finish};
use half::{bf16, f16};

/// The distance `M` of rows of f32, f16 or bf16 (`E`).
// Not inlined: the other levels call it only for rows that leave the range of f32.
#[inline(never)]
pub(super) fn floats<const M: u8, const E: u8>(a: &[u8], b: &[u8]) -> f32 {
    let four = |bytes: &[u8; 4]| f64::from(f32::from_le_bytes(*bytes));
    let two = |bytes: &[u8; 2]| match E {
        BF16 => bf16::from_le_bytes(*bytes).to_f64(),
        _ => f16::from_le_bytes(*bytes).to_f64(),
    };
    let sums = match E {
        F32 => float_sums::<M>(a.as_chunks().0.iter().map(four), b.as_chunks().0.iter().map(four)),
        _ => float_sums::<M>(a.as_chunks().0.iter().map(two), b.as_chunks().0.iter().map(two)),
    };
    finish::<M>(sums)
}

fn float_sums<const M: u8>(a: impl Iterator<Item = f64>, b: impl Iterator<Item = f64>) -> [f64; 3] {
    let [mut sum, mut xx, mut yy] = [0.0; 3];
    for (x, y) in a.zip(b) {
        match M {
            L2 => sum += (x - y) * (x - y),
            MANHATTAN => sum += (x - y).abs(),
            INNER_PRODUCT => sum += x * y,
            COSINE => {
                sum += x * y;
                xx += x * x;
                yy += y * y;
            }
            _ => unreachable!("no other metric takes numbers: see kernel()"),
        }
    }
    [sum, xx, yy]
}

/// The distance `M` of rows of u8 or i8 (`E`).
pub(super) fn ints<const M: u8, const E: u8>(a: &[u8], b: &[u8]) -> f32 {
    let value = |&byte: &u8| if E == I8 { i64::from(byte as i8) } else { i64::from(byte) };
    let [mut sum, mut xx, mut yy] = [0i64; 3];
    for (x, y) in a.iter().map(value).zip(b.iter().map(value)) {
        match M {
            L2 => sum += (x - y) * (x - y),
            MANHATTAN => sum += (x - y).abs(),
            INNER_PRODUCT => sum += x * y,
            COSINE => {
                sum += x * y;
                xx += x * x;
                yy += y * y;
            }
            _ => unreachable!("no other metric takes numbers: see kernel()"),
        }
    }
    finish::<M>([sum as f64, xx as f64, yy as f64])
}

/// The number of bits in which two rows differ.
pub(super) fn bits(a: &[u8], b: &[u8]) -> f32 {
    a.iter().zip(b).map(|(x, y)| (x ^ y).count_ones()).sum::<u32>() as f32
}
