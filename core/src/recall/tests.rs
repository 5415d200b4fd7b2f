use super::*;
use crate::dataset::Dataset;
use crate::distance::DistanceFn;
use crate::metric::Metric;
use std::fs;

/// The oracle: sorts all distances of one query.
fn by_sorting(base: &Dataset, query: &[u8], metric: Metric, k: usize) -> Vec<(f32, u32)> {
    let distance = DistanceFn::new(metric, base.element(), base.dim()).unwrap();
    let mut rows = Vec::new();
    base.read_rows(0, base.n() as usize, &mut rows).unwrap();
    let mut all: Vec<_> = (0..).zip(rows.chunks(base.row_bytes())).map(|(id, row)| (distance.distance(query, row), id)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    all.truncate(k);
    all
}

fn check_against_sorting(base: &str, queries: &str, metric: Metric, k: usize) {
    let (base, queries) = (Dataset::open(base).unwrap(), Dataset::open(queries).unwrap());
    let mut done = Vec::new();
    let truth = exact_truth(&base, &queries, metric, k, &mut |rows| done.push(rows)).unwrap();
    assert_eq!((truth.n, truth.k), (queries.n(), k.min(base.n() as usize)));
    assert_eq!(done.last().copied().unwrap_or(0), base.n());
    for query in 0..queries.n() {
        let mut row = Vec::new();
        queries.read_rows(query, 1, &mut row).unwrap();
        let found: Vec<_> = truth.distances(query).unwrap_or(&[]).iter().copied().zip(truth.ids(query).iter().copied()).collect();
        assert_eq!(found, by_sorting(&base, &row, metric, k), "query {query}, {metric}, {}", base.source());
    }
}

#[test]
fn truth_equals_sorting_everything() {
    for (element, metric) in [("u8", Metric::L2), ("f32", Metric::Cosine), ("f16", Metric::InnerProduct), ("i8", Metric::Manhattan)] {
        for (n, dim) in [(1, 1), (2, 3), (257, 33), (3000, 100)] {
            let base = format!("synth:n={n},dim={dim},type={element}");
            check_against_sorting(&base, &format!("synth:n=70,dim={dim},type={element},part=query"), metric, 10);
        }
    }
    check_against_sorting("synth:n=2000,dim=64,type=binary", "synth:n=9,dim=64,type=binary,part=query", Metric::Hamming, 100);
    // Rows of 16 KiB: several chunks, and blocks of one row.
    check_against_sorting("synth:n=600,dim=8192,clusters=4", "synth:n=3,dim=8192,clusters=4,part=query", Metric::L2, 5);
}

#[test]
fn k_beyond_n_gives_n_columns_and_no_rows_give_none() {
    check_against_sorting("synth:n=3,dim=4", "synth:n=5,dim=4,part=query", Metric::L2, 10);
    check_against_sorting("synth:n=0,dim=4", "synth:n=5,dim=4,part=query", Metric::L2, 10);
    check_against_sorting("synth:n=3,dim=4", "synth:n=0,dim=4,part=query", Metric::L2, 10);
}

#[test]
fn rows_at_equal_distance_come_in_order_of_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("equal.u8bin");
    fs::write(&path, [&dataset::counts_header(300, 2)[..], &[7; 600]].concat()).unwrap();
    let base = Dataset::open(path.to_str().unwrap()).unwrap();
    let query = Dataset::open(path.to_str().unwrap()).unwrap().limit(1);
    let truth = exact_truth(&base, &query, Metric::L2, 4, &mut |_| {}).unwrap();
    assert_eq!((truth.ids, truth.distances), (vec![0, 1, 2, 3], vec![0.0; 4]));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let open = |text: &str| Dataset::open(text).unwrap();
    let base = open("synth:n=3,dim=8");
    let refused = |queries: &str, metric, k| exact_truth(&base, &open(queries), metric, k, &mut |_| {}).unwrap_err();
    assert!(matches!(refused("synth:n=1,dim=9", Metric::L2, 1), TruthError::Mismatch { base_dim: 8, query_dim: 9, .. }));
    let error = refused("synth:n=1,dim=8,type=u8", Metric::L2, 1);
    assert_eq!(error.to_string(), "base rows are 8 x f32, queries 8 x u8; convert one of them (roxanne convert)");
    assert!(matches!(refused("synth:n=1,dim=8", Metric::Hamming, 1), TruthError::Metric(_)));
    assert!(matches!(refused("synth:n=1,dim=8", Metric::L2, 0), TruthError::NoNeighbors));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nan.fbin");
    let mut bytes = [&dataset::counts_header(3, 8)[..], &[0; 96]].concat();
    bytes[8 + 32 + 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let error = exact_truth(&open(path.to_str().unwrap()), &base, Metric::L2, 1, &mut |_| {}).unwrap_err();
    assert!(matches!(error, TruthError::Dataset(DatasetError::NotFinite { row: 1, at: 1, .. })), "{error}");
}

fn small() -> Truth {
    Truth { n: 2, k: 3, ids: vec![5, 9, 2, 1, 0, 7], distances: vec![0.0, 1.0, 1.0, 0.5, 2.5, 8.0] }
}

#[test]
fn truth_that_was_written_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let (bin, ivecs) = (dir.path().join("t.bin"), dir.path().join("t.ivecs"));
    for _ in 0..2 {
        small().write(&bin).unwrap(); // the second time over the first
        small().write(&ivecs).unwrap();
    }
    assert_eq!(Truth::read(&bin).unwrap(), small());
    assert_eq!(Truth::read(&ivecs).unwrap(), Truth { distances: vec![], ..small() });
    assert_eq!(fs::read(&bin).unwrap()[..12], [2, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing temporary is left");
}

#[test]
fn truth_files_that_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        Truth::read(&path).unwrap_err()
    };
    let huge = [255; 8];
    assert!(matches!(refused("a.bin", &huge), TruthError::Length { expected: u64::MAX, got: 8, .. }));
    let short = refused("a.bin", &[&dataset::counts_header(2, 1)[..], &[0; 15]].concat());
    assert!(matches!(short, TruthError::Length { n: 2, k: 1, expected: 24, got: 23, .. }), "{short}");
    assert!(matches!(refused("a.bin", &[0; 7]), TruthError::Dataset(DatasetError::NoHeader { expected: 8, got: 7, .. })));
    assert!(matches!(refused("a.npy", &[]), TruthError::UnknownFormat { .. }));
    let words = |words: &[i32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
    let ragged = refused("a.ivecs", &words(&[2, 8, 9, 3, 1, 1, 1]));
    assert!(matches!(ragged, TruthError::Ragged { query: 1, offset: 12, expected: 2, got: 3, .. }), "{ragged}");
    let cut = refused("a.ivecs", &words(&[2, 8, 9, 2, 1]));
    assert!(matches!(cut, TruthError::Ragged { query: 1, expected: 2, got: 1, .. }), "{cut}");
    assert!(matches!(refused("a.ivecs", &words(&[-1, 3])), TruthError::Ragged { query: 0, .. }));
    assert!(matches!(refused("a.ivecs", &[1, 0, 0, 0, 1]), TruthError::NotWords { got: 5, .. }));
    assert!(matches!(Truth::read(dir.path().join("none.bin")), Err(TruthError::Dataset(DatasetError::Io { .. }))));
    assert!(matches!(Truth { n: 3, ..small() }.write(dir.path().join("b.bin")), Err(TruthError::Shape { .. })));
}

#[test]
fn of_equals_any_is_as_good_and_none_counts_beyond_the_truth() {
    let count = |found: &[f32], truth: &[f32]| found_by_distance(found.iter().copied(), truth);
    assert_eq!(count(&[1.0, 2.0, 3.0], &[1.0, 2.0, 2.5]), 2);
    assert_eq!(count(&[2.0, 2.0, 2.0, 2.0], &[1.0, 2.0]), 2);
    assert_eq!((count(&[1.0], &[]), count(&[], &[1.0]), count(&[f32::NAN], &[1.0])), (0, 0, 0));
}

#[test]
fn recall_counts_each_true_neighbor_once() {
    let truth = small();
    assert_eq!(recall_at_k(&truth, 0, &[9, 5, 2], 3), 1.0);
    assert_eq!(recall_at_k(&truth, 0, &[5, 5, 5], 3), 1.0 / 3.0);
    assert_eq!(recall_at_k(&truth, 0, &[2, 9, 5], 2), 0.5, "2 is third, and 5 was found third");
    assert_eq!(recall_at_k(&truth, 1, &[], 2), 0.0);
    assert_eq!(recall_at_k(&truth, 1, &[7, 0, 1, 4], 10), 1.0, "there are only three to find");
    assert_eq!(recall_at_k(&Truth { n: 1, ..Truth::default() }, 0, &[1], 10), 1.0, "there is nothing to find");
}

#[test]
fn a_row_as_near_as_the_last_true_neighbor_counts_with_ties() {
    let truth = small();
    assert_eq!(recall_at_k(&truth, 0, &[5, 2], 2), 0.5);
    assert_eq!(recall_at_k_with_ties(&truth, 0, &[5, 2], &[0.0, 1.0], 2), 1.0);
    assert_eq!(recall_at_k_with_ties(&truth, 0, &[2, 2], &[1.0, 1.0], 2), 0.5, "once");
    assert_eq!(recall_at_k_with_ties(&truth, 0, &[5, 4], &[0.0, 0.9], 2), 0.5, "an estimate gains nothing");
    let no_distances = Truth { distances: vec![], ..truth };
    assert_eq!(recall_at_k_with_ties(&no_distances, 0, &[5, 2], &[0.0, 1.0], 2), 0.5);
}
