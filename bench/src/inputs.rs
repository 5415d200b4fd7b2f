//! Vectors for the micro benches: real ones where their dimension serves, else the realistic mixture; never uniform noise.

use roxanne_builder::{BuildError, backend::BuildCodes, input, progress::Silent, progress::Watch};
use roxanne_core::{build_codes::BuildCodec, dataset::Dataset, dataset::DatasetError, element::ElementType, metric::Metric};
use std::sync::atomic::AtomicBool;

/// The SIFT descriptors that stand in the repository: 4,000 x 128 u8.
pub const SIFT_SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/sift-sample.base.u8bin");

/// A generated mixture of `n` rows of `dim` coordinates.
///
/// # Errors
/// A dimension that no data set has.
pub fn mixture(n: u64, dim: usize, element: ElementType) -> Result<Dataset, DatasetError> {
    Dataset::open(&format!("synth:n={n},dim={dim},type={element},seed=1"))
}

/// All rows, raw `[n * row_bytes]`.
///
/// # Errors
/// What reading can meet.
pub fn raw_rows(dataset: &Dataset) -> Result<Vec<u8>, DatasetError> {
    let mut rows = Vec::new();
    dataset.read_rows(0, dataset.n() as usize, &mut rows)?;
    Ok(rows)
}

/// All rows as a build sees them, and the codec that made them so.
///
/// # Errors
/// Rows that `metric` cannot take.
pub fn build_codes(dataset: &Dataset, metric: Metric, seed: u64) -> Result<(BuildCodes, BuildCodec), BuildError> {
    let stop = AtomicBool::new(false);
    let codec = input::learn_codec(dataset, metric, seed)?;
    let (codes, _) = input::encode_all(dataset, &codec, &Watch::new(&Silent, &stop), metric)?;
    Ok((codes, codec))
}
