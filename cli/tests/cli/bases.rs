//! An open collection makes its bases by itself: the first when enough has gathered, and one with more room when that is filled.

use roxanne::{
    Budget, Change, Collection, CollectionConfig, CollectionError, CollectionOptions, Durability, ElementType, KeyKind, Metric, Point,
    PointKey, SearchParams, rebuild,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

const DIM: usize = 16;

fn config() -> CollectionConfig {
    CollectionConfig { dim: DIM, metric: Metric::L2, element: ElementType::F32, keys: KeyKind::Numbers }
}

/// Around a thousand places.
fn vector(i: u64) -> Vec<f32> {
    (0..DIM as u64).map(|d| ((i % 1009).wrapping_mul(d * d + 7) % 97) as f32 + ((i * 31 + d * 17) % 13) as f32 / 8.0).collect()
}

fn put(collection: &Collection, keys: std::ops::Range<u64>) -> Result<(), CollectionError> {
    let keys: Vec<u64> = keys.collect();
    for some in keys.chunks(500) {
        let change = |&i: &u64| Change::Upsert(Point { key: PointKey::Number(i), vector: vector(i), payload: String::new() });
        let batch: Vec<Change> = some.iter().map(change).collect();
        // Memory is full for as long as a base is being built.
        while let Err(error) = collection.write(batch.clone()) {
            if !matches!(error, CollectionError::DeltaFull { .. }) || collection.trouble().is_some() {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Waits, a minute at most, until the collection stands as it shall.
fn until(collection: &Collection, what: &str, stands: impl Fn(&Collection) -> bool) {
    let begin = Instant::now();
    while !stands(collection) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: {:?}, {:?}", collection.stats(), collection.trouble());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_base_comes_when_memory_fills_and_a_larger_one_when_it_is_full() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("c");
    let options = CollectionOptions { delta_bytes: 1 << 20, durability: Durability::Os, ..CollectionOptions::default() };
    let options = rebuild::by_itself(options, Budget::default());
    let collection = Collection::create(&path, &config(), &options).unwrap();
    // More than memory may hold: writers wait while it empties.
    put(&collection, 0..12_000).unwrap();
    until(&collection, "a base", |collection| collection.stats().base_points > 0 && collection.merges_in_place());
    put(&collection, 12_000..15_000).unwrap();
    until(&collection, "all merged", |collection| {
        let stats = collection.stats();
        stats.delta_bytes <= stats.delta_allowed / 2
    });
    assert_eq!((collection.count(), collection.trouble()), (15_000, None));
    let params = SearchParams { k: 1, list_size: 100, ..SearchParams::default() };
    let found = (0..15_000).step_by(97).filter(|&i| collection.search(&vector(i), &params).unwrap().hits[0].distance == 0.0).count();
    assert!(found >= 150, "{found} of 155");
    drop(collection);
    // What is merged meanwhile would be taken for damage.
    let collection = Collection::open(&path, &CollectionOptions { merges: false, ..options }).unwrap();
    assert_eq!(collection.verify(&mut |_, _| ()).unwrap().points, 15_000);
}

#[test]
fn a_base_that_cannot_be_built_is_told_and_one_that_is_being_built_ends_with_the_collection() {
    let place = tempfile::tempdir().unwrap();
    let options = CollectionOptions { delta_bytes: 1 << 20, durability: Durability::Os, ..CollectionOptions::default() };
    let failing = CollectionOptions { rebuild: Some(Arc::new(|_, _| Err("no builder today".into()))), ..options.clone() };
    let collection = Collection::create(place.path().join("failing"), &config(), &failing).unwrap();
    let error = put(&collection, 0..12_000).unwrap_err();
    assert!(matches!(error, CollectionError::DeltaFull { .. }), "{error}");
    until(&collection, "trouble", |collection| collection.trouble().is_some_and(|trouble| trouble.contains("no builder today")));
    drop(collection);

    let waits = CollectionOptions {
        rebuild: Some(Arc::new(|_, stop| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err("told to stop".into())
        })),
        ..options
    };
    let path = place.path().join("waits");
    let collection = Collection::create(&path, &config(), &waits).unwrap();
    let mut next = 0;
    while collection.stats().delta_bytes <= 1 << 19 {
        put(&collection, next..next + 500).unwrap();
        next += 500;
    }
    drop(collection);
    assert!(Collection::open(&path, &CollectionOptions::default()).unwrap().count() > 0);
}
