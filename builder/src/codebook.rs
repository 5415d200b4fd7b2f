//! Training of the PQ codebook: PQ and OPQ on a sample, the better one on held-out vectors is kept (core::pq).

use crate::{BuildError, backend::BuildCodes};
use roxanne_core::{
    build_codes::BuildCodec,
    metric::Metric,
    pq::{Codebook, TrainParams, TrainReport, train_best},
    random::CounterRng,
};

/// Rows that a codebook is trained on, by dimension: wide vectors cost more a row and their rotations more still.
pub(crate) fn sample_rows(dim: usize) -> u64 {
    (25_600 * 128 / dim.max(128) as u64).clamp(8_192, 25_600)
}

/// Bytes of a code when none were asked for: `dim / 8`, at least 32, at most one a coordinate (one a byte of packed bits).
pub fn auto_pq_bytes(metric: Metric, dim: usize) -> usize {
    let (widest, share) = if metric == Metric::Hamming { (dim / 8, dim / 32) } else { (dim, dim / 8) };
    share.max(32).min(widest)
}

/// The rows that a codebook is trained on.
pub struct Sample {
    /// [rows x dim]
    rows: Vec<u8>,
    dim: usize,
}

impl Sample {
    /// Of `codes`: the same rows for the same seed.
    pub fn of(codes: &BuildCodes, codec: &BuildCodec, seed: u64) -> Sample {
        let dim = codec.pq_dim();
        let places = CounterRng::new(seed).part(0x7241).sample(codes.n() as u64, sample_rows(dim));
        let (mut rows, mut scratch) = (Vec::with_capacity(places.len() * dim), Vec::new());
        for row in places {
            rows.extend_from_slice(codec.pq_row(codes.row(row as u32), &mut scratch));
        }
        Sample { rows, dim }
    }

    /// Trains a codebook of `subspaces` bytes a code.
    ///
    /// # Errors
    /// See `core::pq::TrainError`.
    pub fn train(&self, metric: Metric, subspaces: usize, seed: u64) -> Result<(Codebook, TrainReport), BuildError> {
        let params = TrainParams { subspaces, allow_rotation: metric != Metric::Manhattan, seed };
        Ok(train_best(&self.rows, self.dim, self.dim, &params)?)
    }
}
