//! A search over a disk that fails, lies or dawdles: an error that names the place, or the right answer; and the next query is unharmed.

use roxanne_builder::BuildParams;
use roxanne_core::{ErrorClass, metric::Metric};
use roxanne_engine::{
    Index, SearchParams, Searcher,
    io::faulty::{Fault, FaultPlan, FaultyReader},
};
use roxanne_tests::{SIFT_BASE, SIFT_QUERIES, build, hits, open, rows, scratch};

const PARAMS: SearchParams = SearchParams { k: 10, list_size: 40, beam_width: 4, ..SearchParams::DEFAULT };

fn faulty(index: &Index, plan: FaultPlan) -> Searcher {
    index.searcher_with(1, |reader, file| Box::new(FaultyReader::new(reader, file, plan))).expect("a searcher")
}

#[test]
fn every_fault_is_reported_and_the_next_query_is_answered() {
    let dir = scratch();
    let path = dir.path().join("index");
    build(SIFT_BASE, Metric::L2, BuildParams::default(), &path);
    let index = open(&path);
    let queries = rows(SIFT_QUERIES, Metric::L2);
    for (fault, class) in [
        (Fault::Eio, ErrorClass::Device),
        (Fault::UnexpectedEnd, ErrorClass::Corrupt),
        (Fault::BitFlip, ErrorClass::Corrupt),
        (Fault::Torn, ErrorClass::Corrupt),
    ] {
        for at in [0, 1, 5, 11] {
            let plan = FaultPlan { seed: at, at_read: [(at, fault)].into(), ..FaultPlan::default() };
            let mut searcher = faulty(&index, plan);
            let error = searcher.search(&queries[0], &PARAMS).expect_err("a fault within the first twelve reads");
            assert_eq!(error.class(), class, "{fault:?} at read {at}: {error}");
            assert!(error.to_string().contains("graph.rx"), "{error}");
            // The reads that were in flight are not met again, and the answer is the one of a healthy reader.
            let mut healthy = faulty(&index, FaultPlan { seed: at, ..FaultPlan::default() });
            let (after, expected) = (searcher.search(&queries[1], &PARAMS).unwrap(), healthy.search(&queries[1], &PARAMS).unwrap());
            let near = |answer| hits(answer).into_iter().take(3).collect::<Vec<_>>();
            assert_eq!(near(&after), near(&expected), "{fault:?} at read {at}");
        }
    }
}

#[test]
fn pages_that_come_late_and_in_any_order_cost_no_recall() {
    let dir = scratch();
    let path = dir.path().join("index");
    build(SIFT_BASE, Metric::L2, BuildParams::default(), &path);
    let index = open(&path);
    let mut plain = index.searcher().unwrap();
    let mut late = faulty(&index, FaultPlan { seed: 3, most_delay: 20, ..FaultPlan::default() });
    let (mut same, mut all) = (0, 0);
    for query in &rows(SIFT_QUERIES, Metric::L2)[..100] {
        let [a, b] = [&mut plain, &mut late].map(|searcher| hits(&searcher.search(query, &PARAMS).unwrap()));
        same += a.iter().filter(|hit| b.contains(hit)).count();
        all += a.len();
    }
    assert!(same * 100 >= all * 97, "{same} of {all} hits are the same");
}
