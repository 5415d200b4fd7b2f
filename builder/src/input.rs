//! From a dataset to build codes: every row is read once, checked, and turned into bytes. Streamed; only the codes stay.

use crate::{BuildError, backend::BuildCodes, progress::Watch};
use rayon::prelude::*;
use roxanne_core::{build_codes::BuildCodec, dataset::Dataset, huge, metric::Metric, random::CounterRng};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Rows that the codec's range is learned from.
pub(crate) const CODEC_SAMPLE: u64 = 16_384;
/// Rows that one task reads at once.
const CHUNK_ROWS: usize = 8192;

/// Learns the codec from a sample.
///
/// # Errors
/// Unreadable or unusable rows, named; a metric that does not fit.
pub fn learn_codec(dataset: &Dataset, metric: Metric, seed: u64) -> Result<BuildCodec, BuildError> {
    let rows = CounterRng::new(seed).part(0xC0DE).sample(dataset.n(), CODEC_SAMPLE);
    let dim = dataset.dim();
    let mut sample = vec![0f32; rows.len() * dim];
    sample.par_chunks_mut(dim).zip(&rows).try_for_each_init(Vec::new, |buffer, (out, &row)| -> Result<(), BuildError> {
        dataset.read_rows_f32(row, 1, buffer)?;
        check(dataset, metric, row, buffer)?;
        out.copy_from_slice(buffer);
        Ok(())
    })?;
    Ok(BuildCodec::learn(dataset.element(), metric, dim, &sample)?)
}

fn check(dataset: &Dataset, metric: Metric, row: u64, values: &[f32]) -> Result<(), BuildError> {
    BuildCodec::check_row(metric, values).map_err(|error| BuildError::Row { source_name: dataset.source().to_string(), row, error })
}

/// Reads, checks and encodes all rows; returns them with the input's hash, as [`hash_all`] would.
///
/// # Errors
/// The first bad row of a chunk, by number; what reading says.
pub fn encode_all(dataset: &Dataset, codec: &BuildCodec, watch: &Watch<'_>, metric: Metric) -> Result<(BuildCodes, u64), BuildError> {
    let (n, dim, stride) = (dataset.n() as usize, dataset.dim(), codec.stride());
    let mut bytes: Vec<u8> = huge::zeroed(n * stride);
    watch.phase("read", n as u64, "rows");
    // Once a chunk failed, later ones are not worth reading; earlier ones are, so that the first bad row is the one named.
    let failed = AtomicUsize::new(usize::MAX);
    let read_chunk = |raw: &mut Vec<u8>, chunk: usize, out: &mut [u8]| -> Result<u64, BuildError> {
        let (first, count) = (chunk * CHUNK_ROWS, out.len() / stride);
        dataset.read_rows(first as u64, count, raw)?;
        let row_bytes = dataset.row_bytes();
        let (mut values, mut scratch, mut code) = (vec![0f32; dim], Vec::new(), Vec::new());
        for (at, (raw, out)) in raw.chunks_exact(row_bytes).zip(out.chunks_exact_mut(stride)).enumerate() {
            dataset.element().decode(raw, &mut values);
            check(dataset, metric, (first + at) as u64, &values)?;
            code.clear();
            codec.encode(raw, &mut scratch, &mut code);
            out.copy_from_slice(&code);
        }
        watch.advance(count as u64)?;
        Ok(xxh3_64(raw))
    };
    let chunk_hashes: Vec<Result<u64, BuildError>> = bytes
        .par_chunks_mut(CHUNK_ROWS * stride)
        .enumerate()
        .map_init(Vec::new, |raw, (chunk, out)| {
            if failed.load(Relaxed) < chunk {
                return Ok(0);
            }
            read_chunk(raw, chunk, out).inspect_err(|_| {
                failed.fetch_min(chunk, Relaxed);
            })
        })
        .collect();
    Ok((BuildCodes { metric: codec.build_metric(), stride, bytes }, hash_of(chunk_hashes)?))
}

/// The hash of all rows.
///
/// # Errors
/// What reading says.
pub fn hash_all(dataset: &Dataset) -> Result<u64, BuildError> {
    let n = dataset.n() as usize;
    let hash_chunk = |raw: &mut Vec<u8>, chunk: usize| -> Result<u64, BuildError> {
        let first = chunk * CHUNK_ROWS;
        dataset.read_rows(first as u64, CHUNK_ROWS.min(n - first), raw)?;
        Ok(xxh3_64(raw))
    };
    hash_of((0..n.div_ceil(CHUNK_ROWS)).into_par_iter().map_init(Vec::new, hash_chunk).collect())
}

fn hash_of(chunks: Vec<Result<u64, BuildError>>) -> Result<u64, BuildError> {
    let mut hash = Xxh3::new();
    for chunk in chunks {
        hash.update(&chunk?.to_le_bytes());
    }
    Ok(hash.digest())
}
