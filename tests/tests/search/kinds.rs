//! Other questions than "the nearest k": within a radius, in portions, exactly, among some keys.

use roxanne_builder::{BuildParams, Builder};
use roxanne_core::{Budget, ErrorClass, format::keys::KeyList, metric::Metric};
use roxanne_engine::{Calibration, Index, KeySet, OpenOptions, SearchError, SearchParams, Way};
use roxanne_tests::{SIFT_BASE, SIFT_QUERIES, build, dataset, hits, open, rows, scratch, scratch_in_memory, small};
use std::{collections::HashSet, sync::Arc};
use tempfile::TempDir;

fn sift() -> (TempDir, Index, Index) {
    let dir = scratch();
    let path = dir.path().join("index");
    build(SIFT_BASE, Metric::L2, BuildParams::default(), &path);
    let resident =
        Index::open_with(&path, &OpenOptions { budget: Budget::ram(1 << 30), ..OpenOptions::default() }).expect("an opened index");
    (dir, open(&path), resident)
}

#[test]
fn exact_answers_are_those_of_brute_force() {
    let (_dir, index, resident) = sift();
    let queries = rows(SIFT_QUERIES, Metric::L2);
    let truth = roxanne_tests::truth(SIFT_BASE, SIFT_QUERIES, Metric::L2);
    let some: Vec<&[f32]> = queries[..30].iter().map(Vec::as_slice).collect();
    for index in [&index, &resident] {
        for (number, answer) in index.exact(&some, 10, None).unwrap().iter().enumerate() {
            let distances: Vec<f32> = answer.hits.iter().map(|hit| hit.distance).collect();
            assert_eq!(distances, truth.distances[number * 10..][..10]);
        }
    }
    assert!(index.exact(&some, 0, None).is_err() && index.exact(&[&[1.0; 3]], 1, None).is_err());
    assert!(index.exact(&[], 5, None).unwrap().is_empty());
}

#[test]
fn a_range_finds_what_lies_within_and_nothing_beyond() {
    let (_dir, index, resident) = sift();
    let queries = rows(SIFT_QUERIES, Metric::L2);
    let params = SearchParams { list_size: 32, ..SearchParams::DEFAULT };
    for index in [&index, &resident] {
        let (mut found, mut all) = (0, 0);
        for query in &queries[..40] {
            let exact = &index.exact(&[query], 400, None).unwrap()[0];
            for rank in [0, 3, 60, 300] {
                let radius = exact.hits[rank].distance;
                let answer = index.range(query, radius, &params).unwrap();
                assert!(answer.hits.iter().all(|hit| hit.distance <= radius) && answer.hits.is_sorted_by(|a, b| a.distance <= b.distance));
                let keys: HashSet<u64> = answer.hits.iter().map(|hit| hit.key.0).collect();
                assert_eq!(keys.len(), answer.hits.len(), "a key twice");
                found += answer.hits.len();
                all += exact.hits.iter().filter(|hit| hit.distance <= radius).count();
            }
        }
        assert!(found as f64 > 0.97 * all as f64, "{found} of {all}");
    }
    assert!(index.range(&queries[0], -1.0, &params).unwrap().hits.is_empty());
    assert_eq!(index.range(&queries[0], f32::INFINITY, &params).unwrap().hits.len(), 4000, "a range without end is everything");
    assert!(matches!(index.range(&queries[0], f32::NAN, &params), Err(SearchError::Radius)));
}

#[test]
fn a_cursor_goes_on_to_the_last_vector_and_gives_none_twice() {
    let dir = scratch_in_memory();
    let path = dir.path().join("index");
    build("synth:n=500,dim=16,clusters=8", Metric::L2, small(), &path);
    let resident = Index::open_with(&path, &OpenOptions { budget: Budget::ram(1 << 30), ..OpenOptions::default() }).unwrap();
    let query = &rows("synth:n=1,dim=16,clusters=8,part=query", Metric::L2)[0];
    for index in [&open(&path), &resident] {
        let params = SearchParams { list_size: 20, ..SearchParams::DEFAULT };
        let mut cursor = index.cursor(query, &params, None).unwrap();
        let (mut keys, mut portions) = (HashSet::new(), Vec::new());
        loop {
            let answer = cursor.next(37).unwrap();
            assert!(answer.hits.iter().all(|hit| keys.insert(hit.key.0)), "a key twice");
            if answer.hits.is_empty() {
                break;
            }
            portions.push(answer.hits.len());
        }
        assert_eq!((keys.len(), portions[0]), (500, 37));
        let first: Vec<_> = index.exact(&[query], 37, None).unwrap()[0].hits.iter().map(|hit| hit.key).collect();
        let again = index.cursor(query, &params, None).unwrap().next(37).unwrap();
        let near = again.hits.iter().filter(|hit| first.contains(&hit.key)).count();
        assert!(near >= 35, "{near} of the nearest 37");
    }
}

/// Checks a filter against brute force: membership always, and all of them where there are fewer than were asked for.
fn check_filter(index: &Index, queries: &[Vec<f32>], keys: &Arc<KeySet>, floor: f64) -> Way {
    let params = SearchParams { list_size: 64, ..SearchParams::DEFAULT };
    let (mut found, mut all, mut way) = (0, 0, Way::Flash);
    for query in queries {
        let answer = index.search_in(query, &params, keys).expect("an answer");
        let exact = &index.exact(&[query], 10, Some(keys)).expect("an exact answer")[0];
        assert!(answer.hits.iter().all(|hit| keys.contains(hit.key)), "a key that was not asked for");
        assert_eq!(answer.hits.len(), exact.hits.len());
        found += answer.hits.iter().filter(|hit| exact.hits.iter().any(|e| e.distance == hit.distance)).count();
        all += exact.hits.len();
        way = answer.stats.way;
    }
    assert!(found as f64 >= floor * all as f64, "{found} of {all} by {}", way.name());
    way
}

#[test]
fn a_filter_never_leaks_and_never_misses_whatever_its_share() {
    let (_dir, index, resident) = sift();
    let queries = &rows(SIFT_QUERIES, Metric::L2)[..40];
    for index in [&index, &resident] {
        for step in [1, 2, 10, 100, 1000] {
            let keys = index.key_set((0..4000).step_by(step)).unwrap();
            assert_eq!(keys.len(), 4000_u64.div_ceil(step as u64));
            check_filter(index, queries, &keys, 0.95);
        }
        // None, one, unknown ones, and far more than there are.
        for keys in [vec![], vec![17], vec![1 << 40, 3], (0..100_000).collect::<Vec<u64>>()] {
            check_filter(index, queries, &index.key_set(keys).unwrap(), 0.9);
        }
    }
    let few = index.key_set(0..40).unwrap();
    assert_eq!(check_filter(&index, queries, &few, 1.0), Way::Scan, "few that match are ranked by their codes");
}

#[test]
fn filters_of_string_keys_are_named() {
    let dir = scratch_in_memory();
    let path = dir.path().join("index");
    let source = "synth:n=300,dim=8,clusters=4";
    let names: Vec<String> = (0..300).map(|row| format!("doc {row}")).collect();
    Builder::new(Metric::L2).params(small()).dataset(dataset(source, Metric::L2)).keys(KeyList::Strings(names)).build(&path).unwrap();
    let (index, query) = (open(&path), &rows(source, Metric::L2)[7]);
    let keys = index.key_set_of(["doc 9", "doc 100", "nobody", "doc 9"]).unwrap();
    let answer = index.search_in(query, &SearchParams::DEFAULT, &keys).unwrap();
    let mut found: Vec<String> = answer.hits.iter().map(|hit| index.key_name(hit.key).unwrap().unwrap()).collect();
    found.sort();
    assert_eq!(found, ["doc 100", "doc 9"]);
    let error = index.key_set([9]).unwrap_err();
    assert!(error.class() == ErrorClass::Usage && error.to_string().contains("strings"), "{error}");
}

#[test]
fn a_range_and_a_cursor_keep_to_their_filter() {
    let (_dir, index, _) = sift();
    let query = &rows(SIFT_QUERIES, Metric::L2)[1];
    let keys = index.key_set((0..4000).filter(|key| key % 3 == 0)).unwrap();
    let mut searcher = index.searcher().unwrap();
    let radius = index.exact(&[query], 200, None).unwrap()[0].hits[199].distance;
    let found = hits(&searcher.range(query, radius, &SearchParams::DEFAULT, Some(&keys)).unwrap());
    assert!(found.len() > 40 && found.iter().all(|(key, _)| key % 3 == 0));
    // Of few that match a cursor gives all, portion by portion, whatever the way.
    let few = index.key_set((0..4000).filter(|key| key % 40 == 0)).unwrap();
    let mut cursor = index.cursor(query, &SearchParams { list_size: 10, ..SearchParams::DEFAULT }, Some(&few)).unwrap();
    let mut all = HashSet::new();
    while all.len() < 100 {
        let portion = hits(&cursor.next(7).unwrap());
        assert!(!portion.is_empty(), "{} of 100", all.len());
        assert!(portion.iter().all(|(key, _)| key % 40 == 0 && all.insert(*key)), "a key twice");
    }
    assert!(cursor.next(7).unwrap().hits.is_empty());
    let portion = hits(&index.cursor(query, &SearchParams::DEFAULT, Some(&keys)).unwrap().next(30).unwrap());
    assert!(portion.len() == 30 && portion.iter().all(|(key, _)| key % 3 == 0));
}

#[test]
fn what_tuning_found_is_read_with_the_index() {
    let (dir, index, _) = sift();
    assert_eq!(index.calibration().unwrap(), None);
    let calibration = Calibration { k: 10, points: vec![(0.1, 0.9), (0.5, 0.99)] };
    calibration.write(&dir.path().join("index"), index.info().generation).unwrap();
    assert_eq!(index.calibration().unwrap(), Some(calibration));
}
