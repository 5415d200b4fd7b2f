//! What is kept in RAM changes what a search costs, not what it may find.

use roxanne_builder::BuildParams;
use roxanne_core::{Budget, ErrorClass, metric::Metric};
use roxanne_engine::{Index, OpenError, OpenOptions, SearchError, SearchParams, WARM_FILE, Way};
use roxanne_tests::{SIFT_BASE, SIFT_QUERIES, build, hits, open, recall, rows, scratch, scratch_in_memory, small, truth};
use std::{fs, path::Path};

/// The least budget that opens the index at `path`.
fn least(path: &Path, options: &OpenOptions) -> u64 {
    match Index::open_with(path, &OpenOptions { budget: Budget::ram(1), ..*options }) {
        Err(OpenError::Budget { needed, .. }) => needed,
        _ => panic!("opened within a byte"),
    }
}

fn open_beside(path: &Path, bytes: u64, options: OpenOptions) -> Index {
    let budget = Budget::ram(least(path, &options) + bytes);
    Index::open_with(path, &OpenOptions { budget, ..options }).expect("an opened index")
}

#[test]
fn every_way_finds_as_much_with_fewer_reads() {
    let dir = scratch();
    let path = dir.path().join("index");
    build(SIFT_BASE, Metric::L2, BuildParams::default(), &path);
    let (queries, truth) = (rows(SIFT_QUERIES, Metric::L2), truth(SIFT_BASE, SIFT_QUERIES, Metric::L2));
    let params = SearchParams { list_size: 40, ..SearchParams::DEFAULT };
    let judged = |index: &Index, way: Way| {
        let mut searcher = index.searcher().unwrap();
        let mut reads = 0;
        for query in &queries {
            let answer = searcher.search(query, &params).unwrap();
            assert_eq!(answer.stats.way, way);
            reads += answer.stats.reads;
        }
        (recall(index, &queries, &truth, 40), reads as f64 / queries.len() as f64)
    };
    let (lean, lean_reads) = judged(&open(&path), Way::Flash);
    let pages = open(&path).info().page_count * 4096;
    let cached = open_beside(&path, pages / 2, OpenOptions::default());
    assert!(cached.info().kept_bytes > pages / 3 && cached.info().kept_bytes <= pages / 2 && !cached.info().all_resident);
    let _ = judged(&cached, Way::Flash);
    let (some, some_reads) = judged(&cached, Way::Flash);
    let resident = open_beside(&path, pages, OpenOptions::default());
    assert!(resident.info().all_resident);
    let (all, all_reads) = judged(&resident, Way::Resident);
    let adjacency = open_beside(&path, 0, OpenOptions { adjacency_in_ram: true, ..OpenOptions::default() });
    let (near, near_reads) = judged(&adjacency, Way::Adjacency);
    assert!(lean > 0.97 && (some - lean).abs() < 0.01 && all > lean - 0.005 && near > lean - 0.02, "{lean} {some} {all} {near}");
    assert!(some_reads < 0.7 * lean_reads && all_reads == 0.0 && near_reads < lean_reads, "{lean_reads} {some_reads} {near_reads}");
}

#[test]
fn all_pages_in_ram_give_every_key_at_its_exact_distance_under_every_metric() {
    for metric in Metric::ALL {
        let source = if metric == Metric::Hamming { "synth:n=700,dim=32,type=u8,clusters=8" } else { "synth:n=700,dim=24,clusters=8" };
        let dir = scratch_in_memory();
        let path = dir.path().join("index");
        build(source, metric, small(), &path);
        let resident = open_beside(&path, 64 << 20, OpenOptions::default());
        let params = SearchParams { k: 700, list_size: 700, ..SearchParams::DEFAULT };
        let lean = open(&path);
        for query in rows(source, metric).iter().step_by(50) {
            let (a, b) = (resident.search(query, &params).unwrap(), lean.search(query, &params).unwrap());
            assert_eq!((a.stats.way, a.stats.reads), (Way::Resident, 0));
            assert_eq!(hits(&a), hits(&b), "{metric}");
            assert_eq!(hits(&a), hits(&resident.exact(&[query], 700, None).unwrap()[0]), "{metric}");
        }
    }
}

#[test]
fn a_page_that_is_damaged_is_met_when_all_are_loaded() {
    let dir = scratch_in_memory();
    let path = dir.path().join("index");
    build("synth:n=700,dim=24", Metric::L2, small(), &path);
    let options = OpenOptions::default();
    let needed = least(&path, &options);
    let graph = path.join("graph.rx");
    let mut bytes = fs::read(&graph).unwrap();
    bytes[65536 + 3 * 4096 + 100] ^= 4;
    fs::write(&graph, &bytes).unwrap();
    for (beside, adjacency_in_ram) in [(64 << 20, false), (0, true)] {
        let budget = Budget::ram(needed + beside + 700 * 200);
        let error = Index::open_with(&path, &OpenOptions { budget, adjacency_in_ram, ..options }).err().expect("a refusal");
        assert!(error.class() == ErrorClass::Corrupt && error.to_string().contains("page 3"), "{error}");
    }
}

#[test]
fn pages_that_were_wanted_are_there_from_the_start_the_next_time() {
    let dir = scratch();
    let path = dir.path().join("index");
    build(SIFT_BASE, Metric::L2, BuildParams::default(), &path);
    let queries = rows(SIFT_QUERIES, Metric::L2);
    let pages = open(&path).info().page_count * 4096;
    // With one read in flight there is one order in which pages come, into the cache too.
    let params = SearchParams { beam_width: 1, ..SearchParams::DEFAULT };
    let reads = |index: &Index| -> u64 {
        let mut searcher = index.searcher().unwrap();
        queries[..8].iter().map(|query| searcher.search(query, &params).unwrap().stats.reads).sum()
    };
    let first = open_beside(&path, pages / 3, OpenOptions::default());
    let cold = reads(&first);
    queries.iter().for_each(|query| drop(first.search(query, &SearchParams::DEFAULT).unwrap()));
    assert!(first.remember_pages().unwrap() && !open(&path).remember_pages().unwrap());
    let warm = reads(&open_beside(&path, pages / 3, OpenOptions::default()));
    let lean = reads(&open(&path));
    assert!(warm < cold && warm * 4 < lean * 3, "{warm} reads warm, {cold} cold, {lean} without a cache");
    // A hint that is damaged is none.
    let hint = path.join(WARM_FILE);
    let mut bytes = fs::read(&hint).unwrap();
    bytes[77] ^= 1;
    fs::write(&hint, bytes).unwrap();
    assert_eq!(reads(&open_beside(&path, pages / 3, OpenOptions::default())), cold);
}

#[test]
fn a_searcher_beyond_the_budget_is_refused_and_a_search_waits_for_one() {
    let dir = scratch_in_memory();
    let path = dir.path().join("index");
    build("synth:n=700,dim=24", Metric::L2, small(), &path);
    let index = open_beside(&path, 0, OpenOptions { searchers: 2, ..OpenOptions::default() });
    let (query, params) = (vec![0.5; 24], SearchParams::DEFAULT);
    let held = [index.searcher().unwrap(), index.searcher().unwrap()];
    let error = index.searcher().err().expect("a refusal");
    assert!(matches!(error, SearchError::Budget { .. }) && error.class() == ErrorClass::Budget, "{error}");
    assert!(index.search(&query, &params).is_err(), "nobody will give one back");
    drop(held);
    std::thread::scope(|scope| {
        (0..6).for_each(|_| drop(scope.spawn(|| (0..50).for_each(|_| drop(index.search(&query, &params).unwrap())))));
    });
}
