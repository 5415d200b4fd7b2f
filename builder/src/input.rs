//! From a dataset to build codes: every row is read once, checked, and turned into bytes. Streamed; only the codes stay.

use crate::{BuildError, backend::BuildCodes, progress::Watch};
use rayon::prelude::*;
use roxanne_core::{build_codes::BuildCodec, dataset::Dataset, huge, metric::Metric, random::CounterRng};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Rows that the codec's range is learned from.
pub(crate) const CODEC_SAMPLE: u64 = 16_384;
/// Rows that one task reads at once.
pub(crate) const CHUNK_ROWS: usize = 8192;

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
    BuildCodec::check_row(metric, values).map_err(|error| {
        let (source, row) = dataset.place(row);
        BuildError::Row { source_name: source.to_string(), row, error }
    })
}

/// What the rows of an input were when they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// As [`hash_all`] would tell it.
    pub hash: u64,
    /// The sum of the hashes of all rows, in whatever order they come; 0 where nobody reads them again because codes are rows.
    pub row_sum: u64,
}

/// Reads, checks and encodes all rows.
///
/// # Errors
/// The first bad row of a chunk, by number; what reading says.
pub fn encode_all(dataset: &Dataset, codec: &BuildCodec, watch: &Watch<'_>, metric: Metric) -> Result<(BuildCodes, Content), BuildError> {
    let stride = codec.stride();
    let mut bytes: Vec<u8> = huge::zeroed(dataset.n() as usize * stride);
    watch.phase("read", dataset.n(), "rows");
    let row_sum = AtomicU64::new(0);
    let sum = |raw: &[u8], _: usize| {
        if !codec.codes_are_rows() {
            let rows = raw.chunks_exact(dataset.row_bytes()).map(xxh3_64);
            row_sum.fetch_add(rows.fold(0, u64::wrapping_add), Relaxed);
        }
        watch.advance((raw.len() / dataset.row_bytes()) as u64)
    };
    let hashes = encode_range(dataset, codec, metric, 0, &mut bytes, &sum)?;
    let content = Content { hash: hash_of_chunks(&hashes), row_sum: row_sum.into_inner() };
    Ok((BuildCodes { metric: codec.build_metric(), stride, bytes }, content))
}

/// Is shown the bytes of a chunk, and its number.
pub(crate) type HearChunk<'a> = dyn Fn(&[u8], usize) -> Result<(), BuildError> + Sync + 'a;

/// Reads, checks and encodes the rows from `start`, a multiple of [`CHUNK_ROWS`], on into `out`; returns the hash of each chunk. `hear` is
/// shown the bytes of every chunk that is done, and its number.
///
/// # Errors
/// See [`encode_all`].
pub(crate) fn encode_range(
    dataset: &Dataset,
    codec: &BuildCodec,
    metric: Metric,
    start: u64,
    out: &mut [u8],
    hear: &HearChunk<'_>,
) -> Result<Vec<u64>, BuildError> {
    let (dim, stride) = (dataset.dim(), codec.stride());
    // Once a chunk failed, later ones are not worth reading; earlier ones are, so that the first bad row is the one named.
    let failed = AtomicUsize::new(usize::MAX);
    let read_chunk = |raw: &mut Vec<u8>, chunk: usize, out: &mut [u8]| -> Result<u64, BuildError> {
        let (first, count) = (start + (chunk * CHUNK_ROWS) as u64, out.len() / stride);
        dataset.read_rows(first, count, raw)?;
        let row_bytes = dataset.row_bytes();
        let (mut values, mut scratch, mut code) = (vec![0f32; dim], Vec::new(), Vec::new());
        for (row, (raw, out)) in (first..).zip(raw.chunks_exact(row_bytes).zip(out.chunks_exact_mut(stride))) {
            dataset.element().decode(raw, &mut values);
            check(dataset, metric, row, &values)?;
            code.clear();
            codec.encode(raw, &mut scratch, &mut code);
            out.copy_from_slice(&code);
        }
        hear(raw, chunk)?;
        Ok(xxh3_64(raw))
    };
    let hashes: Vec<Result<u64, BuildError>> = out
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
    hashes.into_iter().collect()
}

/// Rows chosen by chance, rising.
pub(crate) fn sample_rows(dataset: &Dataset, rng: CounterRng, count: u64) -> Vec<u64> {
    rng.sample(dataset.n(), count)
}

/// The codes of [`sample_rows`], checked.
///
/// # Errors
/// See [`encode_all`].
pub(crate) fn sample_codes(
    dataset: &Dataset,
    codec: &BuildCodec,
    metric: Metric,
    rng: CounterRng,
    count: u64,
) -> Result<BuildCodes, BuildError> {
    let (rows, stride, dim) = (sample_rows(dataset, rng, count), codec.stride(), dataset.dim());
    let mut bytes = vec![0; rows.len() * stride];
    bytes.par_chunks_exact_mut(stride).zip(&rows).try_for_each_init(
        || (Vec::new(), vec![0f32; dim], Vec::new(), Vec::new()),
        |(raw, values, scratch, code), (out, &row)| -> Result<(), BuildError> {
            dataset.read_rows(row, 1, raw)?;
            dataset.element().decode(raw, values);
            check(dataset, metric, row, values)?;
            code.clear();
            codec.encode(raw, scratch, code);
            out.copy_from_slice(code);
            Ok(())
        },
    )?;
    Ok(BuildCodes { metric: codec.build_metric(), stride, bytes })
}

/// Rows that [`sample_hash`] reads.
const HASHED_ROWS: u64 = 256;

/// A hash of the number of rows and of a few of them, the same ones each time: whether an input changed, at the price of a few reads.
///
/// # Errors
/// What reading says.
pub(crate) fn sample_hash(dataset: &Dataset) -> Result<u64, BuildError> {
    let (mut hash, mut row) = (Xxh3::new(), Vec::new());
    hash.update(&dataset.n().to_le_bytes());
    for at in sample_rows(dataset, CounterRng::new(1).part(0xF1), HASHED_ROWS) {
        dataset.read_rows(at, 1, &mut row)?;
        hash.update(&row);
    }
    Ok(hash.digest())
}

/// The hash of all rows.
///
/// # Errors
/// What reading says; a stop.
pub fn hash_all(dataset: &Dataset, watch: &Watch<'_>) -> Result<u64, BuildError> {
    let n = dataset.n() as usize;
    watch.phase("compare", n as u64, "rows");
    let hash_chunk = |raw: &mut Vec<u8>, chunk: usize| -> Result<u64, BuildError> {
        let first = chunk * CHUNK_ROWS;
        let count = CHUNK_ROWS.min(n - first);
        dataset.read_rows(first as u64, count, raw)?;
        watch.advance(count as u64)?;
        Ok(xxh3_64(raw))
    };
    let hashes = (0..n.div_ceil(CHUNK_ROWS)).into_par_iter().map_init(Vec::new, hash_chunk).collect::<Result<Vec<u64>, _>>()?;
    Ok(hash_of_chunks(&hashes))
}

/// The input's hash, from those of its chunks.
pub(crate) fn hash_of_chunks(chunks: &[u64]) -> u64 {
    let mut hash = Xxh3::new();
    chunks.iter().for_each(|chunk| hash.update(&chunk.to_le_bytes()));
    hash.digest()
}
