//! How much of the truth a search has found.
//!
//! recall@k is the share of the k exact nearest neighbors that are among the k found. The exact ones come from a [`Truth`] file, of
//! the field's own format, or are computed by [`exact_truth`].

mod exact;
#[cfg(test)]
mod tests;

pub use exact::{exact_truth, exact_truth_of};

use crate::dataset::{self, DatasetError, PendingFile};
use crate::distance::UnsupportedMetric;
use crate::element::ElementType;
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Exact nearest neighbors: for each of `n` queries, `k` rows of the base in rising order of (distance, row).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    /// Queries.
    pub n: u64,
    /// Neighbors of each.
    pub k: usize,
    /// Their row numbers in the base `[n * k]`.
    pub ids: Vec<u32>,
    /// Their distances `[n * k]`; empty when the file had none (.ivecs).
    pub distances: Vec<f32>,
}

/// Why there is no truth.
#[derive(Debug, thiserror::Error)]
pub enum TruthError {
    /// The base, the queries or a file could not be read or written.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Nobody knows this extension.
    #[error("{path}: unknown truth format \".{extension}\"; known: .bin (u32 n, u32 k, ids, distances), .ivecs (ids)")]
    UnknownFormat {
        /// The path.
        path: PathBuf,
        /// Its extension, without the dot.
        extension: String,
    },
    /// A header and a length that disagree.
    #[error(
        "{path}: {n} queries of {k} neighbors are {expected} bytes, got {got}; .bin is u32 n, u32 k, u32 ids [n x k], f32 distances [n x k]"
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Queries its header states.
        n: u64,
        /// Neighbors of each.
        k: u64,
        /// Bytes they take.
        expected: u64,
        /// Bytes there are.
        got: u64,
    },
    /// A row of .ivecs that is cut off, or has another number of neighbors than the first.
    #[error("{path}: query {query} at byte {offset}: expected {expected} neighbors, got {got}")]
    Ragged {
        /// The file.
        path: PathBuf,
        /// The query.
        query: u64,
        /// Where its row begins.
        offset: u64,
        /// Neighbors of query 0.
        expected: i64,
        /// Neighbors of this one: those it states, or those there are bytes for.
        got: i64,
    },
    /// .ivecs of a length that is no multiple of 4.
    #[error("{path}: {got} bytes are not whole 32-bit numbers; was the copy interrupted?")]
    NotWords {
        /// The file.
        path: PathBuf,
        /// Bytes there are.
        got: u64,
    },
    /// A [`Truth`] whose vectors are not `[n * k]`.
    #[error("{path}: {n} queries of {k} neighbors, but {ids} ids and {distances} distances; nothing was written")]
    Shape {
        /// The file to be written.
        path: PathBuf,
        /// Queries.
        n: u64,
        /// Neighbors of each.
        k: usize,
        /// Ids there are.
        ids: usize,
        /// Distances there are.
        distances: usize,
    },
    /// Base and queries of different kinds.
    #[error("base rows are {base_dim} x {base}, queries {query_dim} x {query}; convert one of them (roxanne convert)")]
    Mismatch {
        /// Dimension of the base.
        base_dim: usize,
        /// Its element type.
        base: ElementType,
        /// Dimension of the queries.
        query_dim: usize,
        /// Their element type.
        query: ElementType,
    },
    /// A metric that these rows have no distance for.
    #[error(transparent)]
    Metric(#[from] UnsupportedMetric),
    /// No neighbors asked for.
    #[error("k is 0; ask for at least 1 neighbor")]
    NoNeighbors,
    /// A base whose row numbers pass 32 bits.
    #[error("a base of {n} rows; truth files number rows with 32 bits, so at most {} fit (--limit)", u32::MAX)]
    TooManyRows {
        /// Rows of the base.
        n: u64,
    },
}

impl Truth {
    /// Reads `.bin` (u32 n, u32 k, u32 ids `[n * k]`, f32 distances `[n * k]`) or `.ivecs` (i32 k before the ids of each query; no
    /// distances), little-endian. It is loaded whole, after its length was held against its header.
    ///
    /// # Errors
    /// An unknown extension; a length that does not fit; a failing disk.
    pub fn read(path: impl AsRef<Path>) -> Result<Truth, TruthError> {
        let path = path.as_ref();
        let extension = dataset::extension(path);
        if extension != "bin" && extension != "ivecs" {
            return Err(TruthError::UnknownFormat { path: path.to_path_buf(), extension });
        }
        let (file, bytes) = dataset::open_regular(path)?;
        if extension == "bin" { read_bin(&file, path, bytes) } else { read_ivecs(&file, path, bytes) }
    }

    /// Writes `.bin`, or `.ivecs` (without the distances), in one piece: what stood at `path` is replaced when all is written.
    ///
    /// # Errors
    /// An unknown extension; `.bin` without distances; counts that pass 32 bits; a full disk.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), TruthError> {
        let path = path.as_ref();
        let extension = dataset::extension(path);
        let shape =
            || TruthError::Shape { path: path.to_path_buf(), n: self.n, k: self.k, ids: self.ids.len(), distances: self.distances.len() };
        let n = u32::try_from(self.n).map_err(|_| shape())?;
        let k = u32::try_from(self.k).map_err(|_| shape())?;
        let values = u64::from(n) * u64::from(k);
        let bin = extension == "bin";
        if self.ids.len() as u64 != values || (bin && self.distances.len() as u64 != values) {
            return Err(shape());
        }
        match extension.as_str() {
            "bin" => {
                let mut out = PendingFile::create(path)?;
                let header = dataset::counts_header(n, k);
                out.write(&header)?;
                write_words(&mut out, &self.ids)?;
                write_words(&mut out, bytemuck::cast_slice(&self.distances))?;
                Ok(out.finish(&header)?)
            }
            "ivecs" => {
                let mut out = PendingFile::create(path)?;
                for query in 0..self.n {
                    out.write(&k.to_le_bytes())?;
                    write_words(&mut out, self.ids(query))?;
                }
                Ok(out.finish(&[])?)
            }
            _ => Err(TruthError::UnknownFormat { path: path.to_path_buf(), extension }),
        }
    }

    /// The neighbors of `query` `[k]`, nearest first.
    ///
    /// # Panics
    /// When `query >= n`.
    pub fn ids(&self, query: u64) -> &[u32] {
        &self.ids[query as usize * self.k..][..self.k]
    }

    /// Their distances `[k]`, when the truth has them.
    ///
    /// # Panics
    /// When `query >= n`.
    pub fn distances(&self, query: u64) -> Option<&[f32]> {
        (!self.distances.is_empty()).then(|| &self.distances[query as usize * self.k..][..self.k])
    }
}

/// How many of the true neighbors, whose distances `truth` are in rising order, stand for those of `found`: of equals any is as good as another.
pub fn found_by_distance(found: impl Iterator<Item = f32>, truth: &[f32]) -> usize {
    let Some(&farthest) = truth.last() else { return 0 };
    found.filter(|&distance| distance <= farthest).count().min(truth.len())
}

/// recall@k of one query: which share of its first `k` true neighbors is among the first `k` of `found` (keys that are row numbers of
/// the base, in any order). A key found twice counts once.
///
/// Where the truth has fewer than `k` neighbors, all of those are asked for; of none, 1 is found. Averaged over the queries, this is
/// the recall of the literature. It punishes an answer that picked another of several rows at equal distance; see
/// [`recall_at_k_with_ties`].
///
/// # Panics
/// When `query >= truth.n`.
pub fn recall_at_k(truth: &Truth, query: u64, found: &[u64], k: usize) -> f64 {
    let wanted = &truth.ids(query)[..k.min(truth.k)];
    let found = &found[..k.min(found.len())];
    share(wanted.iter().filter(|&&id| found.contains(&u64::from(id))).count(), wanted.len())
}

/// recall@k of one query where rows at equal distance are as good as each other: of the first `k` found, those count that are among
/// the first `k` true neighbors or whose distance equals that of the k-th.
///
/// `found_distances` `[found.len()]` are distances of the truth's own metric and arithmetic: they are compared for equality, so an
/// answer that only estimates them gains nothing. Without distances in the truth this is [`recall_at_k`].
///
/// # Panics
/// When `query >= truth.n`, or `found_distances` is shorter than `found`.
pub fn recall_at_k_with_ties(truth: &Truth, query: u64, found: &[u64], found_distances: &[f32], k: usize) -> f64 {
    assert!(found_distances.len() >= found.len(), "a distance for every key found");
    let wanted = &truth.ids(query)[..k.min(truth.k)];
    let (Some(distances), true) = (truth.distances(query), !wanted.is_empty()) else {
        return recall_at_k(truth, query, found, k);
    };
    let last = distances[wanted.len() - 1];
    let found = &found[..k.min(found.len())];
    let counts = |i: usize| {
        let first_time = !found[..i].contains(&found[i]);
        first_time && (found_distances[i] == last || wanted.iter().any(|&id| u64::from(id) == found[i]))
    };
    share((0..found.len()).filter(|&i| counts(i)).count().min(wanted.len()), wanted.len())
}

fn share(count: usize, of: usize) -> f64 {
    if of == 0 { 1.0 } else { count as f64 / of as f64 }
}

fn read_bin(file: &File, path: &Path, bytes: u64) -> Result<Truth, TruthError> {
    let [n, k] = dataset::read_counts(file, path, bytes)?.map(u64::from);
    let header_bytes = dataset::counts_header(0, 0).len() as u64;
    // Below 2^64 for n * k below 2^61; a product beyond is no file's length.
    let expected = (n * k).checked_mul(8).and_then(|b| b.checked_add(header_bytes)).unwrap_or(u64::MAX);
    if bytes != expected {
        return Err(TruthError::Length { path: path.to_path_buf(), n, k, expected, got: bytes });
    }
    let values = (n * k) as usize;
    let ids = read_words(file, path, header_bytes, values)?;
    let distances = read_words(file, path, header_bytes + n * k * 4, values)?;
    Ok(Truth { n, k: k as usize, ids, distances: distances.into_iter().map(f32::from_bits).collect() })
}

fn read_ivecs(file: &File, path: &Path, bytes: u64) -> Result<Truth, TruthError> {
    let ragged =
        |query: u64, offset: u64, expected: i64, got: i64| TruthError::Ragged { path: path.to_path_buf(), query, offset, expected, got };
    if bytes == 0 {
        return Ok(Truth::default());
    }
    if !bytes.is_multiple_of(4) {
        return Err(TruthError::NotWords { path: path.to_path_buf(), got: bytes });
    }
    let words = read_words(file, path, 0, (bytes / 4) as usize)?;
    let k = words[0] as usize;
    let mut ids = Vec::with_capacity(words.len());
    for (query, row) in (0..).zip(words.chunks(k + 1)) {
        let offset = query * (k as u64 + 1) * 4;
        if row[0] as usize != k {
            return Err(ragged(query, offset, k as i64, i64::from(row[0] as i32)));
        }
        if row.len() < k + 1 {
            return Err(ragged(query, offset, k as i64, row.len() as i64 - 1));
        }
        ids.extend_from_slice(&row[1..]);
    }
    Ok(Truth { n: (words.len() / (k + 1)) as u64, k, ids, distances: Vec::new() })
}

fn read_words(file: &File, path: &Path, offset: u64, count: usize) -> Result<Vec<u32>, DatasetError> {
    let mut words = vec![0; count];
    file.read_exact_at(bytemuck::cast_slice_mut(&mut words), offset).map_err(DatasetError::io(path, "read"))?;
    words.iter_mut().for_each(|w| *w = u32::from_le(*w));
    Ok(words)
}

fn write_words(out: &mut PendingFile, words: &[u32]) -> Result<(), DatasetError> {
    for chunk in words.chunks(1 << 14) {
        let little: Vec<u32> = chunk.iter().map(|w| w.to_le()).collect();
        out.write(bytemuck::cast_slice(&little))?;
    }
    Ok(())
}
