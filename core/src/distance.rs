//! Exact distances between two rows of raw bytes.
//!
//! A [`DistanceFn`] is chosen once, at the door of a search or a build, from (metric, element type, SIMD level); after that a distance
//! is one call through a function pointer. Rows lie at any alignment, as they do in files and pages.
//!
//! Rows of u8, i8 and bits are summed in integers and converted to f32 once, so every level gives the same bits. Rows of f32, f16 and
//! bf16 are summed in f32 (the oracle: f64), so levels differ by rounding; a sum past `f32::MAX` is infinity.
//!
//! Every level holds the same three kernels (`floats`, `ints`, `bits`); `scalar` is the oracle that the others are tested against.
#![allow(unsafe_code)] // one call through the kernel pointer here; vector loads in the levels

pub use sq8::Sq8Query;

use crate::{element::ElementType, id::MAX_DIM, metric::Metric, simd::SimdLevel};

/// Walks two rows of equal length: four vectors of `$width` bytes at a time, each with sums of its own to hide the latency of an
/// addition, then single vectors, then what is left of one. `$step(&mut sums, &[u8], &[u8])` takes `$width` bytes of each row or fewer.
/// A macro, not a function: a closure does not inline into a function that lacks its target features.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! walk {
    ($a:ident, $b:ident, $width:expr, $zero:expr, $step:expr) => {{
        let (a_whole, a_rest) = $a.as_chunks::<{ $width }>();
        let (b_whole, b_rest) = $b.as_chunks::<{ $width }>();
        let (a_fours, a_singles) = a_whole.as_chunks::<4>();
        let (b_fours, b_singles) = b_whole.as_chunks::<4>();
        let [mut s0, mut s1, mut s2, mut s3] = [$zero; 4];
        for (x, y) in a_fours.iter().zip(b_fours) {
            $step(&mut s0, &x[0], &y[0]);
            $step(&mut s1, &x[1], &y[1]);
            $step(&mut s2, &x[2], &y[2]);
            $step(&mut s3, &x[3], &y[3]);
        }
        for (x, y) in a_singles.iter().zip(b_singles) {
            $step(&mut s0, x, y);
        }
        if !a_rest.is_empty() {
            $step(&mut s1, a_rest, b_rest);
        }
        [s0, s1, s2, s3]
    }};
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod sq8;
#[cfg(test)]
mod tests;

// Const parameters cannot be enums yet: these name them as numbers.
const L2: u8 = Metric::L2 as u8;
const COSINE: u8 = Metric::Cosine as u8;
const INNER_PRODUCT: u8 = Metric::InnerProduct as u8;
const MANHATTAN: u8 = Metric::Manhattan as u8;
const F32: u8 = ElementType::F32 as u8;
const F16: u8 = ElementType::F16 as u8;
const BF16: u8 = ElementType::Bf16 as u8;
const U8: u8 = ElementType::U8 as u8;
const I8: u8 = ElementType::I8 as u8;

/// One kernel: the distance of two rows of equal length. Unsafe only because the processor must have the instructions of its level.
type Kernel = unsafe fn(&[u8], &[u8]) -> f32;

/// A metric that is not defined on an element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the metric {metric} is not defined on {element} vectors; on these use {}", possible(*element))]
pub struct UnsupportedMetric {
    /// The metric asked for.
    pub metric: Metric,
    /// The element type of the vectors.
    pub element: ElementType,
}

fn possible(element: ElementType) -> String {
    let works = |&metric: &Metric| (metric == Metric::Hamming) == (element == ElementType::Binary);
    Metric::ALL.into_iter().filter(works).map(Metric::name).collect::<Vec<_>>().join(", ")
}

/// The distance of one metric on rows of one shape.
#[derive(Clone, Copy, Debug)]
pub struct DistanceFn {
    kernel: Kernel,
    row_bytes: usize,
}

impl DistanceFn {
    /// The distance `metric` on rows of `dim` coordinates of type `element`, with the fastest instructions of this processor.
    ///
    /// # Errors
    /// [`UnsupportedMetric`]: Hamming is defined on binary rows, and on these alone; every other metric on all other types.
    ///
    /// # Panics
    /// If `dim` is above [`MAX_DIM`], which the door of a build refuses: integer sums would pass 32 bits.
    pub fn new(metric: Metric, element: ElementType, dim: usize) -> Result<Self, UnsupportedMetric> {
        DistanceFn::at_level(SimdLevel::detected(), metric, element, dim)
    }

    /// As [`DistanceFn::new`], with the instructions of `level`; for tests and for comparing levels.
    ///
    /// # Errors
    /// As [`DistanceFn::new`].
    ///
    /// # Panics
    /// As [`DistanceFn::new`], and if this processor does not offer `level`.
    pub fn at_level(level: SimdLevel, metric: Metric, element: ElementType, dim: usize) -> Result<Self, UnsupportedMetric> {
        assert!(dim <= MAX_DIM, "a distance on {dim} dimensions: at most {MAX_DIM} are exact");
        assert!(SimdLevel::available().contains(&level), "this processor has no {level}");
        let kernel = kernel(level, metric, element).ok_or(UnsupportedMetric { metric, element })?;
        Ok(DistanceFn { kernel, row_bytes: element.row_bytes(dim) })
    }

    /// How far `a` is from `b`; smaller is nearer. Both are rows as [`ElementType`] describes them, at any alignment; bits that fill up
    /// the last byte of a binary row count like the others and should be 0.
    ///
    /// L2 is squared; cosine lies in 0..=2 and is 1 when a row has no length; the inner product is negated; 0 is always +0.
    ///
    /// # Panics
    /// If a row has another length than `element.row_bytes(dim)`.
    #[inline]
    pub fn distance(&self, a: &[u8], b: &[u8]) -> f32 {
        assert!(
            a.len() == self.row_bytes && b.len() == self.row_bytes,
            "rows of {} and {} bytes, not {}",
            a.len(),
            b.len(),
            self.row_bytes
        );
        // SAFETY: a kernel asks only that the processor offers its level, which `at_level`, the only constructor, has asserted.
        unsafe { (self.kernel)(a, b) }
    }
}

/// The kernel for (`level`, `metric`, `element`); `None` where the metric is not defined.
fn kernel(level: SimdLevel, metric: Metric, element: ElementType) -> Option<Kernel> {
    macro_rules! of_elements {
        ($level:ident, $metric:ident) => {
            match element {
                ElementType::F32 => Some($level::floats::<$metric, F32> as Kernel),
                ElementType::F16 => Some($level::floats::<$metric, F16>),
                ElementType::Bf16 => Some($level::floats::<$metric, BF16>),
                ElementType::U8 => Some($level::ints::<$metric, U8>),
                ElementType::I8 => Some($level::ints::<$metric, I8>),
                ElementType::Binary => None,
            }
        };
    }
    macro_rules! of_level {
        ($level:ident) => {
            match metric {
                Metric::L2 => of_elements!($level, L2),
                Metric::Cosine => of_elements!($level, COSINE),
                Metric::InnerProduct => of_elements!($level, INNER_PRODUCT),
                Metric::Manhattan => of_elements!($level, MANHATTAN),
                Metric::Hamming => (element == ElementType::Binary).then_some($level::bits as Kernel),
            }
        };
    }
    match level {
        SimdLevel::Scalar => of_level!(scalar),
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => of_level!(avx2),
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512 => of_level!(avx512),
        #[cfg(target_arch = "aarch64")]
        SimdLevel::Neon => of_level!(neon),
        other => unreachable!("{other} is not available on this architecture: asserted by at_level"),
    }
}

/// The distance that the sums of a pass amount to: `[the metric's sum, x.x, y.y]`, the last two for cosine only.
#[inline]
fn finish<const M: u8>([sum, xx, yy]: [f64; 3]) -> f32 {
    match M {
        // Not `-sum`: a product of zero is +0 at every level, so that ties fall to the id.
        INNER_PRODUCT => 0.0 - sum as f32,
        COSINE if xx == 0.0 || yy == 0.0 => 1.0,
        // Rounding may pass the ends a little. One root, not two: `sqrt(x * x)` is x, so equal rows are at exactly 0.
        COSINE => (1.0 - sum / (xx * yy).sqrt()).clamp(0.0, 2.0) as f32,
        _ => sum as f32,
    }
}

/// [`finish`] for sums made in f32; where squares or products left the range of f32, the oracle does the work again in f64.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline]
fn finish_floats<const M: u8, const E: u8>(sums: [f32; 3], a: &[u8], b: &[u8]) -> f32 {
    // Below this a squared norm of MAX_DIM terms may have lost more than 1e-9 of itself to squares under f32::MIN_POSITIVE.
    const LEAST_SQUARED_NORM: f32 = 1e-25;
    let [sum, xx, yy] = sums;
    let in_range = match M {
        COSINE => sum.is_finite() && [xx, yy].iter().all(|s| (LEAST_SQUARED_NORM..f32::INFINITY).contains(s)),
        INNER_PRODUCT => sum.is_finite(),
        _ => true,
    };
    if in_range { finish::<M>([f64::from(sum), f64::from(xx), f64::from(yy)]) } else { scalar::floats::<M, E>(a, b) }
}

/// The first 8 of `bytes` as they lie in memory, with zeros for those that are missing.
// In registers: a tail copied into a buffer and loaded from there waits for its own stores, 15 ns a row on Zen 4.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline]
fn word(bytes: &[u8]) -> u64 {
    let last_half = 8 * bytes.len().saturating_sub(4);
    match (bytes.first_chunk(), bytes.first_chunk(), bytes.last_chunk()) {
        (Some(all), _, _) => u64::from_le_bytes(*all),
        // The halves may overlap, and where they do they agree.
        (_, Some(low), Some(high)) => u64::from(u32::from_le_bytes(*low)) | u64::from(u32::from_le_bytes(*high)) << last_half,
        _ => bytes.iter().rfold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}
