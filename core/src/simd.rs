//! Which instructions this processor offers, asked once, at run time.
//!
//! `ROXANNE_SIMD=scalar|avx2|avx512|neon` lowers the choice (never raises it above what the processor has), for tests and for comparing.

use std::{fmt, sync::OnceLock};

/// A set of instructions that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SimdLevel {
    /// Plain Rust: the oracle of all others.
    Scalar,
    /// x86-64 AVX2 with FMA and F16C.
    Avx2,
    /// x86-64 AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// AArch64 with NEON.
    Neon,
}

impl SimdLevel {
    /// The levels this processor can run, slowest first; always begins with `Scalar`.
    pub fn available() -> Vec<SimdLevel> {
        #[allow(unused_mut)]
        let mut levels = vec![SimdLevel::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                levels.push(SimdLevel::Avx2);
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
                {
                    levels.push(SimdLevel::Avx512);
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        levels.push(SimdLevel::Neon);
        levels
    }

    /// The level that this process uses.
    pub fn detected() -> SimdLevel {
        static DETECTED: OnceLock<SimdLevel> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let available = SimdLevel::available();
            let wanted = std::env::var("ROXANNE_SIMD").ok();
            let lowered = available.iter().copied().find(|l| Some(l.name()) == wanted.as_deref());
            lowered.unwrap_or_else(|| available.last().copied().unwrap_or(SimdLevel::Scalar))
        })
    }

    /// The name that `ROXANNE_SIMD` takes.
    pub fn name(self) -> &'static str {
        match self {
            SimdLevel::Scalar => "scalar",
            SimdLevel::Avx2 => "avx2",
            SimdLevel::Avx512 => "avx512",
            SimdLevel::Neon => "neon",
        }
    }
}

impl fmt::Display for SimdLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
