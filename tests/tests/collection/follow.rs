//! Processes that only read follow the one that writes: they see all that was acknowledged, and never what is no point any more.

use super::{
    merge::{Kind, PLAIN, merge_all, step},
    *,
};
use roxanne_engine::{SearchParams, collection::MergeLimits};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

fn reader_of(path: &Path) -> Collection {
    Collection::open(path, &CollectionOptions { read_only: true, ..FAST() }).unwrap()
}

/// How many of those that follow have a place in the directory.
fn places(path: &Path) -> usize {
    std::fs::read_dir(path.join("readers")).unwrap().count()
}

#[test]
fn a_reader_sees_what_was_written_merged_and_promoted() {
    for kind in [PLAIN, Kind { metric: Metric::Cosine, element: ElementType::U8, keys: KeyKind::Strings, ..PLAIN }] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c");
        let (collection, mut model) = kind.based(&path, 300, 700, &FAST());
        let reader = reader_of(&path);
        kind.holds(&reader, &model, "opened");
        let limits = MergeLimits { inserts: 90, removals: 60, threads: 2 };
        let mut reused = 0;
        for turn in 0..8 {
            let told = format!("{} turn {turn}", kind.metric);
            collection.write(step(&kind, &mut model, turn, (turn..420).step_by(3 + turn as usize % 3))).unwrap();
            assert_eq!(reader.catch_up().unwrap(), collection.stats().sequence, "{told}");
            kind.holds(&reader, &model, &format!("{told}, written"));
            // Batches and merges between two looks, of all and of parts.
            collection.write(step(&kind, &mut model, turn + 50, (0..420).step_by(7))).unwrap();
            let report = if turn % 2 == 0 { collection.merge(&limits).unwrap() } else { merge_all(&collection, &limits) };
            assert!(report.inserted > 0, "{told}: {report:?}");
            reused += report.removed;
            collection.write(step(&kind, &mut model, turn + 90, (1..420).step_by(11))).unwrap();
            reader.catch_up().unwrap();
            kind.holds(&reader, &model, &format!("{told}, merged"));
            let (ours, theirs) = (collection.stats(), reader.stats());
            assert_eq!(
                (ours.base_points, ours.base_free, ours.base_dead),
                (theirs.base_points, theirs.base_free, theirs.base_dead),
                "{told}"
            );
            if turn == 5 {
                kind.rebase(&collection, &path, 700);
                collection.write(step(&kind, &mut model, turn + 200, (2..420).step_by(9))).unwrap();
                reader.catch_up().unwrap();
                kind.holds(&reader, &model, &format!("{told}, promoted"));
            }
        }
        assert!(reused > 100, "{reused}");
        let late = reader_of(&path);
        kind.holds(&late, &model, "opened late");
        assert_eq!(places(&path), 2);
        drop((late, reader));
        assert_eq!(places(&path), 0);
    }
}

/// By itself, with searches at work all the time: each vector says which key it is of, and which batch wrote it.
#[test]
fn searches_of_a_reader_find_points_and_nothing_else_while_another_writes_and_merges() {
    const KEYS: u64 = 400;
    let kind = Kind { dim: 4, ..PLAIN };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let (collection, _) = kind.based(&path, KEYS, 900, &FAST());
    let vector_of = |key: u64, turn: u64| vec![key as f32, turn as f32, (key % 7) as f32, 5.0];
    collection.write((0..KEYS).map(|key| upsert(key, &vector_of(key, 0))).collect()).unwrap();
    let reader = reader_of(&path);
    // The turn that each key was written in last, before that was acknowledged and after.
    let (begun, acked) = (AtomicU64::new(0), AtomicU64::new(0));
    let (done, searches) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for searcher in 0..2u64 {
            let (reader, begun, acked, done, searches) = (&reader, &begun, &acked, &done, &searches);
            scope.spawn(move || {
                let rng = CounterRng::new(searcher);
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let before = acked.load(Ordering::SeqCst);
                    reader.catch_up().unwrap();
                    let query = vector_of(rng.below(number, KEYS), before);
                    let params = SearchParams { k: KEYS as usize + 50, list_size: 1000, ..SearchParams::DEFAULT };
                    let found = reader.search(&query, &params).unwrap();
                    let after = begun.load(Ordering::SeqCst);
                    let mut seen = HashMap::new();
                    for hit in &found.hits {
                        let PointKey::Number(key) = hit.key else { panic!("a number") };
                        assert!(seen.insert(key, hit.distance).is_none(), "key {key} twice");
                        // It is the vector of a turn that it may be of: none that was replaced before the search began.
                        let distance = |turn: u64| -> f32 { vector_of(key, turn).iter().zip(&query).map(|(a, b)| (a - b) * (a - b)).sum() };
                        assert!(
                            (before..=after).any(|turn| distance(turn) == hit.distance),
                            "key {key} at {} of turns {before} to {after}",
                            hit.distance
                        );
                    }
                    // Of every turn the third part is deleted, another in each.
                    assert!(seen.len() as u64 >= KEYS / 3 && seen.len() as u64 <= KEYS, "{} found", seen.len());
                    searches.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for turn in 1..=25u64 {
            begun.store(turn, Ordering::SeqCst);
            let changes =
                (0..KEYS).map(|key| if (key + turn).is_multiple_of(3) { delete(key) } else { upsert(key, &vector_of(key, turn)) });
            collection.write(changes.collect()).unwrap();
            acked.store(turn, Ordering::SeqCst);
            collection.merge(&MergeLimits { inserts: 200, removals: 300, threads: 1 }).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let stats = collection.stats();
    assert!(searches.load(Ordering::Relaxed) > 5 && stats.base_points <= 900, "{stats:?}");
    assert_eq!(collection.trouble(), None);
    assert_eq!(reader.trouble(), None);
}

/// Not a test of its own: a process that reads.
const PATH: &str = "ROXANNE_READ_COLLECTION";

#[test]
fn reading_child() {
    let Ok(path) = std::env::var(PATH) else { return };
    let reader = reader_of(Path::new(&path));
    // The line that the harness has begun ends first.
    println!("\nack {}", reader.stats().sequence);
    let mut last = reader.stats().sequence;
    loop {
        let now = reader.stats().sequence;
        if now != last {
            last = now;
            println!("ack {now}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn another_process_follows_by_itself_and_one_that_is_killed_holds_nothing_up() {
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let (collection, mut model) = PLAIN.based(&path, 300, 700, &FAST());
    let mut child = super::child("follow::reading_child", PATH, &path);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut seen = lines.filter_map(|line| super::acked(&line));
    assert_eq!(seen.next(), Some(1));
    collection.write(step(&PLAIN, &mut model, 1, (0..300).step_by(2))).unwrap();
    assert_eq!(seen.next(), Some(2));
    // Removed and used again beside the other process, once it has seen enough.
    let limits = MergeLimits { inserts: 500, removals: 500, threads: 1 };
    let mut removed = 0;
    for turn in 2..8 {
        collection.write(step(&PLAIN, &mut model, turn, (0..300).step_by(2))).unwrap();
        removed += collection.merge(&limits).unwrap().removed;
    }
    assert!(removed > 100, "{removed}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(places(&path), 1);
    collection.write(step(&PLAIN, &mut model, 9, (1..300).step_by(2))).unwrap();
    assert!(collection.merge(&limits).unwrap().removed > 0);
    assert_eq!(places(&path), 0, "what it left was cleared away");
    PLAIN.holds(&collection, &model, "at the end");
}

/// Where it cannot say what it sees, all stays as it is.
#[test]
fn who_cannot_follow_holds_merges_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let (collection, mut model) = PLAIN.based(&path, 300, 700, &FAST());
    std::fs::remove_dir(path.join("readers")).unwrap();
    let reader = reader_of(&path);
    let before = model.clone();
    collection.write(step(&PLAIN, &mut model, 1, (0..300).step_by(2))).unwrap();
    let error = collection.merge(&MergeLimits::default()).unwrap_err();
    assert!(matches!(error, CollectionError::BeingRead { .. }), "{error}");
    assert_eq!(reader.catch_up().unwrap(), 1);
    PLAIN.holds(&reader, &before, "as it was");
    drop(reader);
    merge_all(&collection, &MergeLimits::default());
    PLAIN.holds(&collection, &model, "merged");
}
