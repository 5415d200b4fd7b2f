//! Many queries on one searcher: each is answered as if it were alone, and what goes wrong with one is that one's.

use roxanne_builder::BuildParams;
use roxanne_core::{ErrorClass, metric::Metric, random::CounterRng};
use roxanne_engine::{
    Index, SearchError, SearchParams, Searcher,
    io::faulty::{Fault, FaultPlan, FaultyReader},
};
use roxanne_tests::{SIFT_BASE, SIFT_QUERIES, build, hits, open, rows, scratch};
use std::{collections::BTreeMap, time::Duration};
use tempfile::TempDir;

/// With one read in flight there is one order in which the pages of a query can come.
const ALONE: SearchParams = SearchParams { list_size: 40, beam_width: 1, ..SearchParams::DEFAULT };
const DETERMINISTIC: SearchParams = SearchParams { list_size: 40, beam_width: 4, deterministic: true, ..SearchParams::DEFAULT };

type Outcome = Result<Vec<(u64, f32)>, SearchError>;

fn index() -> (TempDir, Index) {
    let dir = scratch();
    build(SIFT_BASE, Metric::L2, BuildParams::default(), &dir.path().join("index"));
    let index = open(&dir.path().join("index"));
    (dir, index)
}

fn faulty(index: &Index, in_flight: usize, plan: FaultPlan) -> Searcher {
    index.searcher_with(in_flight, |reader, file| Box::new(FaultyReader::new(reader, file, plan))).expect("a searcher")
}

/// Answers of all `queries`, as many in flight as the searcher takes; `params(number)` may differ from query to query.
fn answers(searcher: &mut Searcher, queries: &[Vec<f32>], params: impl Fn(usize) -> SearchParams) -> Vec<Outcome> {
    let (mut next, mut outcomes) = (0, BTreeMap::new());
    while outcomes.len() < queries.len() {
        while searcher.has_room() && next < queries.len() {
            searcher.submit(next as u64, &queries[next], &params(next), None).expect("a good query");
            next += 1;
        }
        let ended = searcher.wait(&mut |tag, outcome| assert!(outcomes.insert(tag, outcome.map(|a| hits(&a))).is_none()));
        let ended = ended.expect("a reader that works");
        assert!(ended > 0);
    }
    assert_eq!((searcher.in_flight(), searcher.wait(&mut |_, _| ()).ok()), (0, Some(0)));
    outcomes.into_values().collect()
}

#[test]
fn queries_in_flight_are_answered_as_if_each_were_alone() {
    let (_dir, index) = index();
    let queries = rows(SIFT_QUERIES, Metric::L2);
    let mut alone = index.searcher().unwrap();
    let params = |number: usize| SearchParams { k: 1 + number % 20, ..ALONE };
    let expected: Vec<_> = queries.iter().enumerate().map(|(n, q)| hits(&alone.search(q, &params(n)).unwrap())).collect();
    for in_flight in [1, 2, 8, 64, 256] {
        let found = answers(&mut index.searcher_of(in_flight).unwrap(), &queries, params);
        assert!(found.iter().zip(&expected).all(|(found, expected)| found.as_ref().unwrap() == expected), "{in_flight} in flight");
    }
}

#[test]
fn deterministic_answers_do_not_depend_on_when_pages_come_or_who_else_asks() {
    let (_dir, index) = index();
    let queries = &rows(SIFT_QUERIES, Metric::L2)[..60];
    let expected = answers(&mut index.searcher().unwrap(), queries, |_| DETERMINISTIC);
    for seed in 0..6 {
        let plan = FaultPlan { seed, most_delay: 12, ..FaultPlan::default() };
        let found = answers(&mut faulty(&index, 1 + 9 * seed as usize, plan), queries, |_| DETERMINISTIC);
        assert!(found.iter().zip(&expected).all(|(a, b)| a.as_ref().unwrap() == b.as_ref().unwrap()), "seed {seed}");
    }
}

#[test]
fn a_page_that_two_queries_want_is_read_once() {
    let (_dir, index) = index();
    let query = &rows(SIFT_QUERIES, Metric::L2)[3];
    let mut searcher = index.searcher_of(2).unwrap();
    let alone = searcher.search(query, &ALONE).unwrap().stats;
    let mut both = Vec::new();
    (0..2).for_each(|tag| searcher.submit(tag, query, &ALONE, None).unwrap());
    while both.len() < 2 {
        searcher.wait(&mut |_, outcome| both.push(outcome.unwrap().stats)).unwrap();
    }
    assert_eq!(both.iter().map(|stats| stats.reads).sum::<u64>(), alone.reads);
    assert_eq!(both.iter().map(|stats| stats.cache_hits).sum::<u64>(), alone.reads);
}

#[test]
fn a_fault_fails_the_queries_that_met_it_and_no_other() {
    let (_dir, index) = index();
    let queries = rows(SIFT_QUERIES, Metric::L2);
    let healthy = answers(&mut index.searcher().unwrap(), &queries, |_| ALONE);
    for (fault, class) in [(Fault::Eio, ErrorClass::Device), (Fault::BitFlip, ErrorClass::Corrupt), (Fault::Torn, ErrorClass::Corrupt)] {
        for page in [0, 7, 100] {
            let plan = FaultPlan { seed: page, on_page: [(page, fault)].into(), most_delay: 5, ..FaultPlan::default() };
            let found = answers(&mut faulty(&index, 32, plan), &queries, |_| ALONE);
            let failed: Vec<_> = found.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
            assert!(!failed.is_empty() && failed.len() < queries.len(), "{} of {} fail by page {page}", failed.len(), queries.len());
            assert!(failed.iter().all(|e| e.class() == class && e.to_string().contains(&format!("page {page}"))), "{}", failed[0]);
            let right = found.iter().zip(&healthy).all(|(a, b)| a.as_ref().map_or(true, |a| a == b.as_ref().unwrap()));
            assert!(right, "{fault:?} on page {page} changed the answer of a query that did not meet it");
        }
    }
}

#[test]
fn more_queries_than_there_is_room_for_are_refused() {
    let (_dir, index) = index();
    let query = &rows(SIFT_QUERIES, Metric::L2)[0];
    let mut searcher = index.searcher_of(2).unwrap();
    (0..2).for_each(|tag| searcher.submit(tag, query, &ALONE, None).unwrap());
    assert!(!searcher.has_room());
    assert!(matches!(searcher.submit(2, query, &ALONE, None), Err(SearchError::Busy { in_flight: 2 })));
    assert!(matches!(searcher.search(query, &ALONE), Err(SearchError::Busy { in_flight: 2 })));
    let mut ended = 0;
    while ended < 2 {
        ended += searcher.wait(&mut |_, outcome| drop(outcome.unwrap())).unwrap();
    }
    assert!(searcher.search(query, &ALONE).is_ok());
    for in_flight in [0, 257] {
        assert!(matches!(index.searcher_of(in_flight), Err(SearchError::Param { name: "in_flight", .. })));
    }
}

#[test]
fn a_query_that_is_refused_takes_no_room() {
    let (_dir, index) = index();
    let mut searcher = index.searcher_of(1).unwrap();
    for _ in 0..3 {
        assert!(searcher.submit(0, &[1.0; 3], &ALONE, None).is_err());
        assert!(searcher.submit(0, &[f32::NAN; 128], &ALONE, None).is_err());
        assert!(searcher.submit(0, &[1.0; 128], &SearchParams { k: 0, ..ALONE }, None).is_err());
    }
    assert!(searcher.has_room() && searcher.search(&[1.0; 128], &ALONE).is_ok());
}

#[test]
fn a_search_whose_time_is_over_gives_what_it_found_and_says_so() {
    let (_dir, index) = index();
    let queries = rows(SIFT_QUERIES, Metric::L2);
    let late = SearchParams { list_size: 400, deadline: Some(Duration::ZERO), ..SearchParams::DEFAULT };
    let patient = SearchParams { deadline: Some(Duration::from_secs(3600)), ..late };
    let mut searcher = index.searcher().unwrap();
    for query in &queries[..20] {
        let (cut, whole) = (searcher.search(query, &late).unwrap(), searcher.search(query, &patient).unwrap());
        assert!(!cut.complete && whole.complete && whole.hits.len() == 10);
        assert!(cut.stats.reads < whole.stats.reads);
        assert!(cut.hits.is_sorted_by(|a, b| a.distance <= b.distance));
    }
}

#[test]
fn searchers_that_are_dropped_with_queries_in_flight_leave_nothing_behind() {
    let (_dir, index) = index();
    let queries = rows(SIFT_QUERIES, Metric::L2);
    let rng = CounterRng::new(5);
    for round in 0..20 {
        let mut searcher = index.searcher_of(8).unwrap();
        (0..8).for_each(|tag| searcher.submit(tag, &queries[tag as usize], &ALONE, None).unwrap());
        for _ in 0..rng.below(round, 3) {
            searcher.wait(&mut |_, _| ()).unwrap();
        }
    }
    assert!(index.search(&queries[0], &ALONE).is_ok());
}
