//! How pages come must not show in what is found.

use roxanne_builder::BuildParams;
use roxanne_core::metric::Metric;
use roxanne_engine::{
    Index, OpenOptions, SearchParams,
    io::{ReaderKind, probe_io_uring},
    verify::verify,
};
use roxanne_tests::{SIFT_BASE, SIFT_QUERIES, build, hits, open, rows, scratch, scratch_in_memory, search, small};
use std::{fs, path::Path, thread};

const SOURCE: &str = "synth:n=900,dim=32,clusters=32";

fn open_with(path: &Path, reader: ReaderKind) -> Index {
    Index::open_with(path, &OpenOptions { reader, ..OpenOptions::default() }).expect("an opened index")
}

#[test]
fn io_uring_and_pread_give_the_same_hits_for_the_same_reads() {
    if let Err(why) = probe_io_uring() {
        println!("SKIPPED: {why}");
        return;
    }
    let dir = scratch();
    let path = dir.path().join("index");
    build(SIFT_BASE, Metric::L2, BuildParams::default(), &path);
    let [uring, pread] = [ReaderKind::IoUring, ReaderKind::Pread].map(|kind| open_with(&path, kind));
    assert_eq!((uring.info().reader, pread.info().reader), ("io_uring", "pread"));
    let (mut uring, mut pread) = (uring.searcher().unwrap(), pread.searcher().unwrap());
    // With one read in flight there is one order in which pages can come.
    for params in [
        SearchParams { beam_width: 1, list_size: 20, ..SearchParams::DEFAULT },
        SearchParams { beam_width: 1, list_size: 100, k: 100, ..SearchParams::DEFAULT },
    ] {
        for query in &rows(SIFT_QUERIES, Metric::L2)[..40] {
            let [a, b] = [&mut uring, &mut pread].map(|searcher| searcher.search(query, &params).unwrap());
            assert_eq!(hits(&a), hits(&b));
            assert_eq!((a.stats.reads, a.stats.expanded, a.stats.distances), (b.stats.reads, b.stats.expanded, b.stats.distances));
        }
    }
}

#[test]
fn every_beam_width_finds_every_key_and_reads_no_page_twice() {
    let dir = scratch();
    let path = dir.path().join("index");
    build(SOURCE, Metric::L2, small(), &path);
    for kind in [ReaderKind::Auto, ReaderKind::Pread] {
        let index = open_with(&path, kind);
        let mut searcher = index.searcher().unwrap();
        let all: Vec<_> = (1..=8)
            .chain([64])
            .map(|beam_width| {
                let params = SearchParams { k: 900, list_size: 900, beam_width, ..SearchParams::DEFAULT };
                let answer = searcher.search(&rows(SOURCE, Metric::L2)[77], &params).unwrap();
                let stats = answer.stats;
                assert_eq!((stats.reads, stats.expanded), (index.info().page_count, 900), "W {beam_width}: every node is expanded once");
                assert_eq!((answer.hits.len(), answer.hits[0].key.0, answer.hits[0].distance), (900, 77, 0.0));
                hits(&answer)
            })
            .collect();
        assert!(all.iter().all(|hits| *hits == all[0]), "a full search is the same at every width");
    }
}

#[test]
fn a_searcher_that_was_used_before_answers_as_a_new_one() {
    let dir = scratch_in_memory();
    let path = dir.path().join("index");
    build(SOURCE, Metric::L2, small(), &path);
    let (index, queries) = (open(&path), rows(SOURCE, Metric::L2));
    let mut used = index.searcher().unwrap();
    for (number, query) in queries.iter().step_by(30).enumerate() {
        // Sizes go up and down, so that scratch of another search would show.
        let params = SearchParams { k: 1 + number * 7 % 40, list_size: 10 + number * 13 % 90, beam_width: 1, ..SearchParams::DEFAULT };
        let (a, b) = (used.search(query, &params).unwrap(), index.searcher().unwrap().search(query, &params).unwrap());
        assert_eq!((hits(&a), a.stats.reads, a.stats.distances), (hits(&b), b.stats.reads, b.stats.distances));
        assert!(used.search(&query[1..], &params).is_err(), "a refused query leaves nothing behind");
    }
}

#[test]
fn clones_of_an_index_serve_many_threads() {
    let dir = scratch();
    let path = dir.path().join("index");
    build(SOURCE, Metric::L2, small(), &path);
    let (index, queries) = (open(&path), rows(SOURCE, Metric::L2));
    let params = SearchParams { k: 5, list_size: 50, beam_width: 1, ..SearchParams::DEFAULT };
    let expected: Vec<_> = queries.iter().step_by(9).map(|query| hits(&index.search(query, &params).unwrap())).collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            let (index, queries, expected) = (index.clone(), &queries, &expected);
            scope.spawn(move || {
                for (query, expected) in queries.iter().step_by(9).zip(expected) {
                    assert_eq!(hits(&index.search(query, &params).unwrap()), *expected);
                }
            });
        }
    });
}

#[test]
fn an_index_in_memory_serves_as_one_on_disk() {
    let (disk, memory) = (scratch(), scratch_in_memory());
    let answers = [disk.path(), memory.path()].map(|dir| {
        let path = dir.join("index");
        build(SOURCE, Metric::Cosine, small(), &path);
        let index = open(&path);
        assert_eq!(verify(&path, &mut |_, _| {}).unwrap().nodes, 900);
        let mut searcher = index.searcher().unwrap();
        rows(SOURCE, Metric::Cosine).iter().step_by(20).map(|query| hits(&search(&mut searcher, query, 900, 900))).collect::<Vec<_>>()
    });
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn an_index_that_was_moved_is_the_same_index() {
    let dir = scratch();
    let (path, moved) = (dir.path().join("index"), dir.path().join("somewhere else é"));
    build(SOURCE, Metric::L2, small(), &path);
    let query = &rows(SOURCE, Metric::L2)[5];
    let (index, before) = (open(&path), open(&path).search(query, &SearchParams::default()).unwrap());
    fs::rename(&path, &moved).unwrap();
    assert_eq!(open(&moved).search(query, &SearchParams::default()).unwrap().hits[0], before.hits[0]);
    // What is open stays open.
    assert_eq!(index.search(query, &SearchParams::default()).unwrap().hits[0], before.hits[0]);
}

#[test]
fn an_index_that_is_cut_while_open_answers_with_an_error() {
    let dir = scratch_in_memory();
    for kind in [ReaderKind::Auto, ReaderKind::Pread] {
        let path = dir.path().join(format!("{kind:?}"));
        build(SOURCE, Metric::L2, small(), &path);
        let (index, query) = (open_with(&path, kind), &rows(SOURCE, Metric::L2)[0]);
        let params = SearchParams { k: 900, list_size: 900, beam_width: 4, ..SearchParams::DEFAULT };
        let mut searcher = index.searcher().unwrap();
        let before = hits(&searcher.search(query, &params).unwrap());
        let whole = fs::read(path.join("graph.rx")).unwrap();
        let file = fs::OpenOptions::new().write(true).open(path.join("graph.rx")).unwrap();
        file.set_len(whole.len() as u64 - 5000).unwrap();
        let error = searcher.search(query, &params).unwrap_err().to_string();
        assert!(error.contains("graph.rx") && error.contains("page"), "{error}");
        // The same searcher goes on when the file is whole again.
        fs::write(path.join("graph.rx"), &whole).unwrap();
        assert_eq!(hits(&searcher.search(query, &params).unwrap()), before);
    }
}
