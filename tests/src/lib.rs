//! The judge of the whole house: its tests stand in `tests/tests`, one binary a subject; here is what several of them stand on.
//!
//! A test that needs one crate lives in that crate; here is what crosses two of them, or looks at the repository itself. Small real
//! vectors stand in `tests/data`. Everything panics with the reason: a fixture that fails is a test that fails.

use roxanne_builder::{BuildParams, Builder, Report};
use roxanne_core::{
    Budget,
    dataset::{Dataset, DatasetWriter},
    element::ElementType,
    metric::Metric,
    recall::{Truth, exact_truth, recall_at_k_with_ties},
};
use roxanne_engine::{Answer, Index, SearchParams, Searcher};
use std::{collections::BTreeMap, fs, path::Path};
use tempfile::TempDir;

/// 4,000 SIFT descriptors of 128 bytes.
pub const SIFT_BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sift-sample.base.u8bin");
/// 200 queries to them.
pub const SIFT_QUERIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sift-sample.query.u8bin");

/// A directory that goes away with its owner.
pub fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The same in memory where the system has such a place: for thousands of small changes that no disk should see.
pub fn scratch_in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| scratch())
}

/// Parameters for indexes of a few hundred vectors.
pub fn small() -> BuildParams {
    BuildParams { max_degree: 16, ..BuildParams::default() }
}

/// `source` as `metric` sees it: under Hamming, bytes are packed bits.
pub fn dataset(source: &str, metric: Metric) -> Dataset {
    let dataset = Dataset::open(source).expect(source);
    let packed = metric == Metric::Hamming && dataset.element() == ElementType::U8;
    if packed { dataset.into_binary().expect(source) } else { dataset }
}

/// Every row of `source`, decoded.
pub fn rows(source: &str, metric: Metric) -> Vec<Vec<f32>> {
    let (dataset, mut values) = (dataset(source, metric), Vec::new());
    dataset.read_rows_f32(0, dataset.n() as usize, &mut values).expect(source);
    values.chunks_exact(dataset.dim()).map(<[f32]>::to_vec).collect()
}

/// Writes `rows` as an fbin and returns its path.
pub fn write_fbin(path: &Path, rows: &[Vec<f32>]) -> String {
    write_as(path, ElementType::F32, rows)
}

/// Writes `rows` in the format that the extension of `path` tells, as `element`, and returns the path.
pub fn write_as(path: &Path, element: ElementType, rows: &[Vec<f32>]) -> String {
    let mut writer = DatasetWriter::create(path, element, rows[0].len()).expect("a dataset to write");
    let mut raw = Vec::new();
    rows.iter().for_each(|row| element.encode(row, &mut raw).expect("values of this type"));
    writer.push_rows(&raw).and_then(|()| writer.finish()).expect("a written dataset");
    path.to_str().expect("a path of UTF-8").to_string()
}

/// Builds `source` into `out`.
pub fn build(source: &str, metric: Metric, params: BuildParams, out: &Path) -> Report {
    let builder = Builder::new(metric).params(params).threads(2).dataset(dataset(source, metric));
    builder.build(out).unwrap_or_else(|error| panic!("{source}, {metric}: {error}"))
}

/// Opens the index at `path` without limits.
pub fn open(path: &Path) -> Index {
    Index::open(path, Budget::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// Searches with `k` hits and a list of `list_size`.
pub fn search(searcher: &mut Searcher, query: &[f32], k: usize, list_size: usize) -> Answer {
    let params = SearchParams { k, list_size, ..SearchParams::default() };
    searcher.search(query, &params).unwrap_or_else(|error| panic!("{error}"))
}

/// Keys and distances of an answer, for comparing.
pub fn hits(answer: &Answer) -> Vec<(u64, f32)> {
    answer.hits.iter().map(|hit| (hit.key.0, hit.distance)).collect()
}

/// The exact 10 nearest of `base` for each of `queries`.
pub fn truth(base: &str, queries: &str, metric: Metric) -> Truth {
    exact_truth(&dataset(base, metric), &dataset(queries, metric), metric, 10, &mut |_| {}).expect("an exact truth")
}

/// Mean recall@10 of `index` at `list_size`; rows at equal distance are as good as each other.
pub fn recall(index: &Index, queries: &[Vec<f32>], truth: &Truth, list_size: usize) -> f64 {
    let mut searcher = index.searcher().expect("a searcher");
    let of_query = |(number, query): (usize, &Vec<f32>)| {
        let (keys, distances): (Vec<u64>, Vec<f32>) = hits(&search(&mut searcher, query, 10, list_size)).into_iter().unzip();
        recall_at_k_with_ties(truth, number as u64, &keys, &distances, 10)
    };
    queries.iter().enumerate().map(of_query).sum::<f64>() / queries.len() as f64
}

/// Every file of `directory` by name, with its bytes; directories in it have none.
pub fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let name_and_bytes =
        |entry: fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap_or_default());
    entries.map(|entry| name_and_bytes(entry.expect("a directory entry"))).collect()
}

/// Names of what is in `directory`, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    contents(directory).into_keys().collect()
}
