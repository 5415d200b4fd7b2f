//! Random histories beside a map and brute force.

use super::*;
use roxanne_core::distance::DistanceFn;
use roxanne_engine::SearchParams;
use std::collections::BTreeMap;

/// A history of `steps`, from `seed`; says what it met when it fails.
fn history(seed: u64, steps: u64, metric: Metric, element: ElementType, kind: KeyKind) {
    let dim = 8;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let config = config(dim, metric, element, kind);
    let mut collection = Collection::create(&path, &config, &FAST()).unwrap();
    let mut model: BTreeMap<PointKey, (Vec<f32>, String)> = BTreeMap::new();
    let distance = DistanceFn::new(metric, element, dim).unwrap();
    let row = |vector: &[f32]| {
        let mut bytes = Vec::new();
        element.encode(vector, &mut bytes).unwrap();
        bytes
    };
    let rng = CounterRng::new(seed);
    let mut drawn = 0;
    let mut draw = |below: u64| {
        drawn += 1;
        rng.below(drawn, below)
    };
    let key_of = |number: u64| match kind {
        KeyKind::Numbers => PointKey::Number(number),
        KeyKind::Strings => kind.parse(&format!("key {number}")).unwrap(),
    };
    for step in 0..steps {
        let told = format!("seed {seed} step {step} {metric} {element}");
        match draw(20) {
            // One batch of several changes under different keys.
            0..12 => {
                let mut batch: BTreeMap<PointKey, Change> = BTreeMap::new();
                for _ in 0..1 + draw(6) {
                    let key = key_of(draw(100));
                    let values: Vec<f32> = (0..dim).map(|_| (1 + draw(90)) as f32).collect();
                    let payload = if draw(2) == 0 { String::new() } else { format!("{{\"step\": {step}}}") };
                    let made = Point { key: key.clone(), vector: values, payload };
                    let change = match draw(4) {
                        0 => Change::Delete(key.clone()),
                        1 => Change::Insert(made),
                        _ => Change::Upsert(made),
                    };
                    batch.insert(key, change);
                }
                let clash = batch.values().any(|change| matches!(change, Change::Insert(point) if model.contains_key(&point.key)));
                let outcome = collection.write(batch.values().cloned().collect());
                if clash {
                    assert!(matches!(outcome, Err(CollectionError::KeyExists { .. })), "{told}");
                    continue;
                }
                let (mut put, mut deleted) = (0, 0);
                for change in batch.into_values() {
                    match change {
                        Change::Delete(key) => deleted += u64::from(model.remove(&key).is_some()),
                        Change::Insert(point) | Change::Upsert(point) => {
                            put += 1;
                            model.insert(point.key, (point.vector, point.payload));
                        }
                    }
                }
                let written = outcome.unwrap();
                assert_eq!((written.put, written.deleted), (put, deleted), "{told}");
            }
            12..15 => {
                let key = key_of(draw(110));
                let got = collection.get(&key).unwrap().map(|point| (point.vector, point.payload));
                assert_eq!(got.as_ref(), model.get(&key), "{told}: {key}");
            }
            15..18 => {
                let query: Vec<f32> = (0..dim).map(|_| (1 + draw(90)) as f32).collect();
                let k = 1 + draw(20) as usize;
                let found = collection.search(&query, &SearchParams { k, ..SearchParams::default() }).unwrap();
                let query = row(&query);
                let mut truth: Vec<(f32, &PointKey)> =
                    model.iter().map(|(key, (vector, _))| (distance.distance(&query, &row(vector)), key)).collect();
                truth.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
                truth.truncate(k);
                let hits: Vec<(f32, &PointKey)> = found.hits.iter().map(|hit| (hit.distance, &hit.key)).collect();
                assert_eq!(hits, truth, "{told}");
                assert_eq!(found.sequence, collection.stats().sequence, "{told}");
            }
            18 => {
                let before = collection.stats();
                drop(collection);
                collection = reopen(&path, &FAST());
                assert_eq!((collection.stats().sequence, collection.stats().points), (before.sequence, before.points), "{told}");
            }
            _ => assert_eq!(collection.count(), model.len() as u64, "{told}"),
        }
    }
}

#[test]
fn histories_are_those_of_a_map() {
    let kinds = [
        (Metric::L2, ElementType::U8, KeyKind::Numbers),
        (Metric::Cosine, ElementType::F32, KeyKind::Strings),
        (Metric::InnerProduct, ElementType::F16, KeyKind::Numbers),
        (Metric::Manhattan, ElementType::F32, KeyKind::Numbers),
    ];
    for seed in 0..24 {
        let (metric, element, kind) = kinds[seed as usize % kinds.len()];
        history(seed, 120, metric, element, kind);
    }
}
