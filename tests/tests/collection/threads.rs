//! Many threads: a search sees a batch wholly or not at all, and a write that was answered is seen by every search after it.

use super::*;
use roxanne_engine::SearchParams;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

#[test]
fn a_search_sees_a_batch_wholly_or_not_at_all() {
    const KEYS: u64 = 8;
    let directory = tempfile::tempdir().unwrap();
    let collection = numbers(&directory.path().join("c"), 4);
    // Enough others for a graph, far away.
    let rng = CounterRng::new(3);
    let others =
        |from: u64| (from..from + 500).map(|i| upsert(1000 + i, &[5000.0 + i as f32, rng.below(i, 100) as f32, 0.0, 0.0])).collect();
    for batch in 0..12 {
        collection.write(others(batch * 500)).unwrap();
    }
    let keys = |found: &roxanne_engine::collection::Found| {
        let mut keys: Vec<_> = found.hits.iter().map(|hit| hit.key.clone()).collect();
        keys.sort_unstable();
        keys
    };
    let expected: Vec<PointKey> = (0..KEYS).map(PointKey::Number).collect();
    let all = |value: f32| (0..KEYS).map(|key| upsert(key, &[value; 4])).collect::<Vec<_>>();
    collection.write(all(0.0)).unwrap();
    let (stop, acked) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let before = acked.load(Ordering::SeqCst);
                        let found = collection.search(&[0.0; 4], &SearchParams { k: KEYS as usize, ..SearchParams::default() }).unwrap();
                        assert_eq!(keys(&found), expected);
                        let values: Vec<f32> = found.hits.iter().map(|hit| (hit.distance / 4.0).sqrt()).collect();
                        assert!(values.len() == KEYS as usize && values.iter().all(|v| *v == values[0]), "a torn batch: {values:?}");
                        assert!(values[0] as u64 >= before, "an older one than was answered: {} < {before}", values[0]);
                        seen += 1;
                    }
                    seen
                })
            })
            .collect();
        for value in 1..=600u64 {
            collection.write(all(value as f32)).unwrap();
            acked.store(value, Ordering::SeqCst);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    });
    // Among thousands of their dead, which are nearer than all that live.
    collection.settle();
    let found = collection.search(&[0.0; 4], &SearchParams { k: KEYS as usize, ..SearchParams::default() }).unwrap();
    assert_eq!(keys(&found), expected);
    let stats = collection.stats();
    assert_eq!((stats.points, stats.delta_points - stats.delta_dead), (6008, 6008));
}

#[test]
fn writers_share_a_write_and_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let collection = numbers(&path, 2);
    thread::scope(|scope| {
        for writer in 0..8u64 {
            let collection = &collection;
            scope.spawn(move || {
                for i in 0..100 {
                    let key = writer * 1000 + i;
                    collection.write(vec![upsert(key, &[writer as f32, i as f32])]).unwrap();
                    assert!(collection.contains(&PointKey::Number(key)).unwrap());
                }
            });
        }
    });
    assert_eq!((collection.stats().sequence, collection.count()), (800, 800));
    drop(collection);
    assert_eq!(reopen(&path, &FAST()).count(), 800);
}

#[test]
fn what_is_mostly_dead_starts_over_and_finds_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let collection = numbers(&directory.path().join("c"), 8);
    let rng = CounterRng::new(9);
    let (n, rounds) = (9000, 4);
    for round in 0..rounds {
        for from in (0..n).step_by(500) {
            collection.write((from..from + 500).map(|key| upsert(key, &vector(rng, round * n + key, 8))).collect()).unwrap();
        }
    }
    collection.write((0..n).filter(|key| key % 3 == 0).map(delete).collect()).unwrap();
    collection.settle();
    let stats = collection.stats();
    assert_eq!(stats.points, n / 3 * 2);
    assert!(stats.delta_dead * 2 <= stats.delta_points && stats.delta_points < 2 * n, "{stats:?}");
    let mut hits = 0;
    for q in 0..50 {
        let query = vector(rng, (rounds - 1) * n + q * 101, 8);
        let truth = collection.exact(&query, 10).unwrap().hits;
        assert!(truth.iter().all(|hit| matches!(hit.key, PointKey::Number(key) if key % 3 != 0)));
        let found = collection.search(&query, &SearchParams::default()).unwrap().hits;
        hits += found.iter().filter(|hit| truth.contains(hit)).count();
    }
    assert!(hits >= 475, "{hits} of 500");
}
