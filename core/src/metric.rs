//! What "near" means.

use std::{fmt, str::FromStr};

/// How far apart two vectors are; smaller is nearer for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Squared Euclidean distance.
    L2,
    /// `1 - cos(x, y)`.
    Cosine,
    /// `-x.y`, so that the largest product is the nearest.
    InnerProduct,
    /// Sum of absolute differences.
    Manhattan,
    /// Number of differing bits of packed binary vectors.
    Hamming,
}

impl Metric {
    /// Every metric, in the order of their numbers on disk.
    pub const ALL: [Metric; 5] = [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::Manhattan, Metric::Hamming];

    /// The name at every door; `FromStr` reads it back, and the aliases users know.
    pub fn name(self) -> &'static str {
        match self {
            Metric::L2 => "l2",
            Metric::Cosine => "cos",
            Metric::InnerProduct => "dot",
            Metric::Manhattan => "l1",
            Metric::Hamming => "hamming",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metric name nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("unknown metric \"{0}\"; known: l2, cos, dot, l1, hamming")]
pub struct UnknownMetric(pub String);

impl FromStr for Metric {
    type Err = UnknownMetric;
    fn from_str(text: &str) -> Result<Self, UnknownMetric> {
        match text.to_ascii_lowercase().as_str() {
            "l2" | "euclidean" | "l2sq" => Ok(Metric::L2),
            "cos" | "cosine" | "angular" => Ok(Metric::Cosine),
            "dot" | "ip" | "inner-product" | "mips" => Ok(Metric::InnerProduct),
            "l1" | "manhattan" => Ok(Metric::Manhattan),
            "hamming" => Ok(Metric::Hamming),
            _ => Err(UnknownMetric(text.to_string())),
        }
    }
}
