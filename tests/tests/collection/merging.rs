//! A base that is merged into while it is searched, written to, read by other processes, and killed.

use super::{
    merge::{Kind, merge_all},
    *,
};
use roxanne_builder::{BuildParams, Builder, Device};
use roxanne_core::{dataset::Dataset, format::manifest::Manifest, id::MAX_NODES};
use roxanne_engine::{
    SearchParams,
    collection::{Found, MergeLimits},
};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

const DIM: usize = 4;
const KIND: Kind = Kind { metric: Metric::L2, element: ElementType::F32, keys: KeyKind::Numbers, dim: DIM };
/// Small rounds, so that there are many.
const LIMITS: MergeLimits = MergeLimits { inserts: 20, removals: 20, threads: 1 };

/// A collection whose base holds keys from 1,000 on, far from the origin.
fn far_ones(path: &Path, options: &CollectionOptions) -> Collection {
    let collection = Collection::create(path, &config(DIM, KIND.metric, KIND.element, KIND.keys), options).unwrap();
    let rng = CounterRng::new(3);
    let far = |i: u64| upsert(1000 + i, &[5000.0 + i as f32, rng.below(i, 100) as f32, 0.0, 0.0]);
    collection.write((0..800).map(far).collect()).unwrap();
    KIND.rebase(&collection, path, 4000);
    collection
}

fn keys(found: &Found) -> Vec<PointKey> {
    let mut keys: Vec<_> = found.hits.iter().map(|hit| hit.key.clone()).collect();
    keys.sort_unstable();
    keys
}

/// Says that it is over.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_search_sees_a_batch_wholly_while_it_is_merged() {
    const KEYS: u64 = 8;
    let directory = tempfile::tempdir().unwrap();
    let collection = far_ones(&directory.path().join("c"), &FAST());
    let expected: Vec<PointKey> = (0..KEYS).map(PointKey::Number).collect();
    let all = |value: f32| (0..KEYS).map(|key| upsert(key, &[value; DIM])).collect::<Vec<_>>();
    collection.write(all(0.0)).unwrap();
    let (stop, acked, rounds) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let look = || {
        let before = acked.load(Ordering::SeqCst);
        let found = collection.search(&[0.0; DIM], &SearchParams { k: KEYS as usize, ..SearchParams::default() }).unwrap();
        assert_eq!(keys(&found), expected, "{:?}", found.hits);
        let values: Vec<f32> = found.hits.iter().map(|hit| (hit.distance / DIM as f32).sqrt()).collect();
        assert!(values.iter().all(|v| *v == values[0]), "a torn batch: {values:?}");
        assert!(values[0] as u64 >= before, "an older one than was answered: {} < {before}", values[0]);
        let got = collection.get(&PointKey::Number(3)).unwrap().unwrap();
        assert!(got.vector[0] as u64 >= before, "an older one than was answered");
    };
    thread::scope(|scope| {
        let searching = || {
            while !stop.load(Ordering::Relaxed) {
                look();
            }
        };
        let searchers: Vec<_> = (0..2).map(|_| scope.spawn(searching)).collect();
        let merger = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let report = collection.merge(&LIMITS).unwrap();
                rounds.fetch_add(u64::from(report.inserted > 0), Ordering::Relaxed);
            }
        });
        // Whatever fails here, nobody goes on for ever.
        let until_here = Stop(&stop);
        let mut value = 0;
        while rounds.load(Ordering::Relaxed) < 60 {
            value += 1;
            collection.write(all(value as f32)).unwrap();
            acked.store(value, Ordering::SeqCst);
            // So that they stay nearer than the others, and their squares whole numbers of floats.
            // Merging stands back while others search, which these do all the time.
            thread::sleep(std::time::Duration::from_millis(if value < 1000 { 2 } else { 60 }));
            assert!(value < 2000, "merging stands still");
            assert!(searchers.iter().all(|one| !one.is_finished()) && !merger.is_finished());
        }
        drop(until_here);
        searchers.into_iter().chain([merger]).for_each(|one| one.join().unwrap());
    });
    merge_all(&collection, &LIMITS);
    look();
    let stats = collection.stats();
    assert!(stats.base_points < 800 + 200, "slots are used again: {stats:?}");
}

/// Where the child finds its collection.
const PATH: &str = "ROXANNE_MERGED_COLLECTION";
const KEYS: u64 = 12;

/// Not a test of its own: the process that is killed. Batch i writes i to all keys of its group and deletes those of the group after it, which is the
/// oldest; beside it the base is merged into without an end.
#[test]
fn child() {
    let Ok(path) = std::env::var(PATH) else { return };
    let collection = reopen(Path::new(&path), &CollectionOptions { merges: false, ..CollectionOptions::default() });
    let first = collection.stats().sequence + 1;
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                if collection.merge(&LIMITS).unwrap().inserted > 0 {
                    println!("merged");
                }
            }
        });
        for batch in first.. {
            let group = |batch: u64| (0..KEYS).map(move |key| batch % 3 * KEYS + key);
            let mut changes: Vec<Change> = group(batch).map(|key| upsert(key, &[batch as f32; DIM])).collect();
            changes.extend(group(batch + 1).map(delete));
            let written = collection.write(changes).unwrap();
            assert_eq!(written.sequence, batch);
            println!("ack {batch}");
        }
    });
}

#[test]
fn a_process_that_is_killed_while_it_merges_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    drop(far_ones(&path, &CollectionOptions::default()));
    let (rng, mut merges) = (CounterRng::new(1), 0);
    for round in 0..rounds("ROXANNE_KILLS", 10) {
        if reopen(&path, &FAST()).stats().sequence > 400 {
            // Values would come to be as far as those that shall stay far.
            std::fs::remove_dir_all(&path).unwrap();
            drop(far_ones(&path, &CollectionOptions::default()));
        }
        let mut child = super::child("merging::child", PATH, &path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (mut last, mut seen) = (0, 0);
        // After so many answers, and at any moment of a merge.
        let enough = 3 + rng.below(round, 40);
        for line in lines.by_ref() {
            merges += u64::from(line == "merged");
            if let Some(batch) = acked(&line) {
                (last, seen) = (batch, seen + 1);
                if seen >= enough {
                    break;
                }
            }
        }
        thread::sleep(std::time::Duration::from_micros(rng.below(1000 + round, 20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            merges += u64::from(line == "merged");
            last = acked(&line).unwrap_or(last);
        }
        let collection = reopen(&path, &FAST());
        let sequence = collection.stats().sequence;
        assert!(sequence == last || sequence == last + 1, "round {round}: {last} acknowledged, {sequence} there");
        let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
        for key in 0..3 * KEYS {
            // The batch itself, the one before it; the third group is deleted.
            let age = (sequence + 3 - key / KEYS) % 3;
            if age < 2 && sequence > age {
                expected.insert(key, sequence - age);
            }
            let got = collection.get(&PointKey::Number(key)).unwrap().map(|point| point.vector[0] as u64);
            assert_eq!(got, expected.get(&key).copied(), "round {round} key {key} after {sequence}");
        }
        let near = collection.search(&[0.0; DIM], &SearchParams { k: expected.len(), ..SearchParams::DEFAULT }).unwrap();
        assert_eq!(keys(&near), expected.keys().map(|&key| PointKey::Number(key)).collect::<Vec<_>>(), "round {round}");
        let all = collection.exact(&[0.0; DIM], 2000).unwrap();
        assert_eq!(all.hits.len(), expected.len() + 800, "round {round}");
    }
    assert!(merges > 0, "nothing was merged");
    merge_all(&reopen(&path, &FAST()), &MergeLimits::default());
}

#[test]
fn it_merges_beside_readers_and_not_without_a_base_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let collection = far_ones(&path, &FAST());
    collection.write(vec![upsert(1, &[1.0; DIM])]).unwrap();
    let reader = Collection::open(&path, &CollectionOptions { read_only: true, ..FAST() }).unwrap();
    assert!(matches!(reader.merge(&LIMITS), Err(CollectionError::ReadOnly { .. })));
    assert_eq!(reader.get(&PointKey::Number(1)).unwrap().unwrap().vector, [1.0; DIM]);
    assert_eq!(collection.merge(&LIMITS).unwrap().inserted, 1);
    assert_eq!(reader.get(&PointKey::Number(1)).unwrap().unwrap().vector, [1.0; DIM]);
    drop(reader);
    let reader = Collection::open(&path, &CollectionOptions { read_only: true, ..FAST() }).unwrap();
    assert_eq!(reader.search(&[1.0; DIM], &SearchParams::DEFAULT).unwrap().hits[0].key, PointKey::Number(1));
    drop(reader);
    // One that was built to stay as it is.
    KIND.rebase(&collection, &path, 0);
    collection.write(vec![upsert(2, &[2.0; DIM])]).unwrap();
    assert!(!collection.merges_in_place());
    assert_eq!(collection.merge(&LIMITS).unwrap(), Default::default());
    // One without room: what is there is replaced, and nothing more comes in.
    KIND.rebase(&collection, &path, 802);
    collection.write((3..6).chain(1100..1200).map(|key| upsert(key, &[key as f32; DIM])).collect()).unwrap();
    merge_all(&collection, &LIMITS);
    let stats = collection.stats();
    assert_eq!((stats.points, stats.base_points, stats.base_free), (805, 802, 0), "{stats:?}");
    // Those that came are in the slots of those that left, but for entries, which stay.
    assert!((3..50).contains(&(stats.delta_points - stats.delta_dead)), "{stats:?}");
}

#[test]
fn what_gathers_is_merged_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    drop(far_ones(&path, &FAST()));
    let collection = reopen(&path, &CollectionOptions { merges: true, delta_bytes: 200 << 10, ..FAST() });
    for first in (0..3000).step_by(100) {
        let some = |key: u64| upsert(key, &[key as f32, 1.0, 2.0, 3.0]);
        // More than memory may hold, were it not merged; a writer that is too fast waits.
        let mut attempts = 0;
        while let Err(error) = collection.write((first..first + 100).map(some).collect()) {
            attempts += 1;
            assert!(matches!(error, CollectionError::DeltaFull { .. }) && attempts < 10_000, "{error}");
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    let stats = collection.stats();
    assert!(stats.points == 3000 && stats.base_points > 800, "{stats:?}");
    assert_eq!(collection.exact(&[0.0; DIM], 5000).unwrap().hits.len() as u64, stats.points);
}

#[test]
fn a_capacity_that_nothing_has_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (path, out) = (directory.path().join("c"), directory.path().join("index"));
    let build = |capacity: u64| {
        let params = BuildParams { capacity, ..BuildParams::default() };
        let dataset = Dataset::open("synth:n=300,dim=8").unwrap();
        Builder::new(Metric::L2).device(Device::Cpu).params(params).dataset(dataset).build(&out)
    };
    for capacity in [1, 299, u64::from(u32::MAX), u64::MAX] {
        let error = build(capacity).unwrap_err();
        assert!(error.to_string().contains(&format!("room for {capacity} vectors")) && !out.exists(), "{error}");
    }
    // A base that says of itself what would make sizes wrap is damaged, and nothing is allocated for it.
    let collection = far_ones(&path, &FAST());
    drop(collection);
    let base = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.join("MANIFEST").exists()).unwrap();
    let mut manifest = Manifest::read(&base).unwrap();
    let capacity = manifest.params.iter_mut().find(|(name, _)| name == "capacity").unwrap();
    capacity.1 = (MAX_NODES - 1).to_string();
    manifest.write(&base).unwrap();
    let error = Collection::open(&path, &FAST()).err().unwrap();
    assert!(error.to_string().contains("the superblock says"), "{error}");
}
