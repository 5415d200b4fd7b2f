//! Searches under filters by payload, beside brute force over a map: through merges, rewrites, deletes and openings.

use super::{merge::Kind, *};
use roxanne_core::distance::DistanceFn;
use roxanne_engine::{
    SearchParams, Way,
    collection::{Filter, MergeLimits},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Model = BTreeMap<PointKey, (Vec<f32>, String)>;

/// Of 4,096 numbers `rare` has each once, `half` and `tenth` what their names say.
fn payload(i: u64) -> String {
    if i.is_multiple_of(7) {
        return String::new();
    }
    json!({"rare": i, "half": i.is_multiple_of(2), "tenth": format!("t{}", i % 10), "deep": {"list": [i % 3, i % 5]}, "x": i as f64 / 8.0})
        .to_string()
}

fn filters(kind: KeyKind, key: &dyn Fn(u64) -> PointKey) -> Vec<Filter> {
    let name = |i: u64| match key(i) {
        PointKey::Number(number) => json!(number),
        PointKey::Text(text) => json!(text),
    };
    let all: Vec<Value> = vec![
        json!({}),
        json!({"must": [{"key": "half", "match": {"value": true}}]}),
        json!({"must": [{"key": "tenth", "match": {"value": "t3"}}, {"key": "half", "match": {"value": false}}]}),
        json!({"must": [{"key": "tenth", "match": {"value": "t3"}}, {"key": "half", "match": {"value": true}}]}),
        json!({"must": [{"key": "rare", "match": {"any": [5, 6, 8, 100_000]}}]}),
        json!({"must": [{"key": "x", "range": {"gte": 10.0, "lt": 12.5}}]}),
        json!({"should": [{"key": "rare", "match": {"value": 11}}, {"key": "tenth", "match": {"value": "t9"}}]}),
        json!({"must_not": [{"key": "deep.list", "match": {"value": 1}}]}),
        json!({"must_not": [{"key": "rare", "range": {"gte": 0}}]}),
        json!({"must": [{"is_empty": {"key": "rare"}}, {"has_id": [name(7), name(14), name(15), name(1 << 40)]}]}),
        json!({"must": [{"key": "tenth", "match": {"value": "nobody"}}]}),
        // Few pass, and no list leads to them.
        json!({"must_not": [{"key": "rare", "range": {"gte": 9}}, {"is_empty": {"key": "rare"}}]}),
        json!({"must": [{"key": "deep.list[]", "match": {"value": 4}}], "must_not": [{"key": "half", "match": {"value": true}}]}),
    ];
    all.iter().map(|json| Filter::from_json(json, kind).unwrap()).collect()
}

struct Checked {
    found: usize,
    wanted: usize,
    scans: usize,
    walks: usize,
}

fn check(kind: &Kind, collection: &Collection, model: &Model, told: &str) -> Checked {
    let distance = DistanceFn::new(kind.metric, kind.element, kind.dim).unwrap();
    let row = |vector: &[f32]| {
        let mut bytes = Vec::new();
        kind.element.encode(vector, &mut bytes).unwrap();
        bytes
    };
    let mut checked = Checked { found: 0, wanted: 0, scans: 0, walks: 0 };
    collection.verify(&mut |_, _| ()).unwrap();
    // In pages of every length, all points come once, in order.
    let all: Vec<(PointKey, String)> = model.iter().map(|(key, (_, payload))| (key.clone(), payload.clone())).collect();
    let scrolled = |page: usize, filter: Option<&Filter>| {
        let mut scrolled: Vec<(PointKey, String)> = Vec::new();
        loop {
            let after = scrolled.last().map(|(key, _)| key.clone());
            let more = collection.scroll(after.as_ref(), page, filter).unwrap();
            if more.is_empty() {
                return scrolled;
            }
            scrolled.extend(more);
        }
    };
    assert!(scrolled(700, None) == all && scrolled(1 << 20, None) == all, "{told}");
    for filter in filters(kind.keys, &|i| kind.key(i)) {
        let passing: Vec<_> = all.iter().filter(|(key, payload)| filter.passes(key, payload)).cloned().collect();
        assert!(scrolled(500, Some(&filter)) == passing, "{told}");
    }
    for (number, filter) in filters(kind.keys, &|i| kind.key(i)).iter().enumerate() {
        let told = format!("{told} filter {number}");
        let passing: BTreeMap<&PointKey, &Vec<f32>> =
            model.iter().filter(|(key, (_, payload))| filter.passes(key, payload)).map(|(key, (vector, _))| (key, vector)).collect();
        assert_eq!(collection.count_filtered(filter).unwrap(), passing.len() as u64, "{told}");
        for q in 0..3 {
            let query = vector(CounterRng::new(78), q * 17, kind.dim);
            let mut truth: Vec<(f32, &PointKey)> =
                passing.iter().map(|(key, vector)| (distance.distance(&row(&query), &row(vector)), *key)).collect();
            truth.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
            truth.truncate(10);
            let exact = collection.exact_filtered(&query, 10, filter).unwrap();
            let distances = |hits: &[roxanne_engine::collection::PointHit]| hits.iter().map(|hit| hit.distance).collect::<Vec<f32>>();
            assert_eq!(distances(&exact.hits), truth.iter().map(|(distance, _)| *distance).collect::<Vec<_>>(), "{told} query {q}");
            let params = SearchParams { k: 10, list_size: 40, ..SearchParams::DEFAULT };
            let found = collection.search_filtered(&query, &params, filter).unwrap();
            assert!(found.complete && found.hits.len() == truth.len(), "{told} query {q}: {} of {}", found.hits.len(), truth.len());
            assert!(found.hits.iter().all(|hit| passing.contains_key(&hit.key)), "{told} query {q}: one that does not pass");
            let within = truth.last().map_or(0.0, |last| last.0);
            checked.found += found.hits.iter().filter(|hit| hit.distance <= within).count();
            checked.wanted += truth.len();
            match found.stats.way {
                Way::Scan => checked.scans += 1,
                _ => checked.walks += 1,
            }
            // Time that has run out is said, and what is there is right.
            let late = SearchParams { deadline: Some(std::time::Duration::ZERO), ..params };
            let late = collection.search_filtered(&query, &late, filter).unwrap();
            assert!(late.hits.iter().all(|hit| passing.contains_key(&hit.key)), "{told}");
            assert!(!late.complete || late.hits.len() == truth.len(), "{told}");
        }
    }
    checked
}

fn history(kind: Kind, capacity: u64) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let n = 6000u64;
    let mut collection = Collection::create(&path, &config(kind.dim, kind.metric, kind.element, kind.keys), &FAST()).unwrap();
    let mut model = Model::new();
    let rng = CounterRng::new(3);
    let put = |collection: &Collection, model: &mut Model, keys: std::ops::Range<u64>, version: u64, told: &dyn Fn(u64) -> String| {
        let mut changes = Vec::new();
        for i in keys {
            let point = Point { key: kind.key(i), vector: vector(rng, i + version * n, kind.dim), payload: told(i) };
            model.insert(point.key.clone(), (point.vector.clone(), point.payload.clone()));
            changes.push(Change::Upsert(point));
        }
        collection.write(changes).unwrap();
    };
    put(&collection, &mut model, 0..n, 0, &payload);
    let checked = check(&kind, &collection, &model, "in memory");
    assert_eq!(checked.found, checked.wanted);
    kind.rebase(&collection, &path, capacity);
    // What looks at all ends when it is told to.
    let (past, query) = (Some(std::time::Instant::now()), vector(rng, 1, kind.dim));
    let many = Filter::from_json(&json!({"must_not": [{"key": "rare", "match": {"value": 1}}]}), kind.keys).unwrap();
    let is_late = |error: CollectionError| matches!(error, CollectionError::Search(roxanne_engine::SearchError::Late));
    assert!(collection.exact_until(&query, 5, past).is_err_and(is_late));
    assert!(collection.exact_filtered_until(&query, 5, &many, past).is_err_and(is_late));
    assert!(collection.count_filtered_until(&many, past).is_err_and(is_late));
    assert!(collection.scroll_until(None, 5, Some(&many), past).is_err_and(is_late));
    // Half as many as are judged one by one before a search, and more.
    let mut checked = check(&kind, &collection, &model, "in a base");
    assert!(checked.found * 100 >= checked.wanted * 97, "{} of {}", checked.found, checked.wanted);
    assert!(checked.scans > 10 && checked.walks > 4, "{} scans, {} walks", checked.scans, checked.walks);
    // Other vectors, other payloads, none; and points that are gone.
    put(&collection, &mut model, 0..600, 1, &payload);
    put(&collection, &mut model, 600..1000, 0, &|i| payload(i + 1));
    put(&collection, &mut model, 1000..1200, 2, &|_| String::new());
    put(&collection, &mut model, 7000..7300, 0, &payload);
    collection.write((1200..2000).map(|i| Change::Delete(kind.key(i))).collect()).unwrap();
    (1200..2000).for_each(|i| assert!(model.remove(&kind.key(i)).is_some()));
    for round in 0..3 {
        checked = check(&kind, &collection, &model, &format!("round {round}"));
        assert!(checked.found * 100 >= checked.wanted * 97, "round {round}: {} of {}", checked.found, checked.wanted);
        if capacity > 0 {
            collection.merge(&MergeLimits::default()).unwrap();
        }
        if round == 1 {
            drop(collection);
            collection = reopen(&path, &FAST());
        }
    }
}

#[test]
fn what_passes_is_found_and_nothing_else() {
    history(Kind { metric: Metric::L2, element: ElementType::F32, keys: KeyKind::Numbers, dim: 8 }, 10_000);
    history(Kind { metric: Metric::Cosine, element: ElementType::F32, keys: KeyKind::Strings, dim: 8 }, 10_000);
    history(Kind { metric: Metric::L2, element: ElementType::U8, keys: KeyKind::Numbers, dim: 8 }, 0);
}

#[test]
fn what_many_pass_but_few_of_the_base_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let kind = super::merge::PLAIN;
    let (collection, _) = kind.based(&path, 6000, 0, &FAST());
    // Of a kind that the base has two of.
    let point =
        |i: u64| Point { key: kind.key(i), vector: vector(CounterRng::new(3), i, kind.dim), payload: json!({"new": true}).to_string() };
    collection.write((5998..8000).map(|i| Change::Upsert(point(i))).collect()).unwrap();
    let new = Filter::from_json(&json!({"must": [{"key": "new", "match": {"value": true}}]}), kind.keys).unwrap();
    let query = vector(CounterRng::new(5), 1, kind.dim);
    let params = SearchParams { k: 10, list_size: 10, ..SearchParams::DEFAULT };
    let found = collection.search_filtered(&query, &params, &new).unwrap();
    assert_eq!(found.hits, collection.exact_filtered(&query, 10, &new).unwrap().hits);
    assert_eq!(collection.count_filtered(&new).unwrap(), 2002);
}

#[test]
fn who_judged_lets_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let kind = super::merge::PLAIN;
    let (collection, _) = kind.based(&path, 3000, 0, &FAST());
    let all = Filter::from_json(&json!({"must_not": [{"key": "a", "match": {"value": 1}}]}), kind.keys).unwrap();
    let found = collection.search_filtered(&vector(CounterRng::new(5), 1, kind.dim), &SearchParams::DEFAULT, &all).unwrap();
    assert!(found.hits.len() == 10 && found.stats.way != Way::Scan);
    drop(collection);
    // The lock is free as soon as nobody holds the collection.
    assert_eq!(reopen(&path, &FAST()).count(), 3000);
}

#[test]
fn one_key_twice_in_one_write_leaves_the_terms_of_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let collection = numbers(&directory.path().join("c"), 2);
    let told = |text: &str| Point { payload: json!({"t": text}).to_string(), ..point(1, &[1.0, 2.0]) };
    // Threads whose batches share writes of the store.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (collection, told) = (&collection, &told);
            scope.spawn(move || (0..50).for_each(|i| _ = collection.write(vec![Change::Upsert(told(&format!("{thread} {i}")))]).unwrap()));
        }
    });
    collection.write(vec![Change::Upsert(told("last"))]).unwrap();
    let filter = |value: &str| Filter::from_json(&json!({"must": [{"key": "t", "match": {"value": value}}]}), KeyKind::Numbers).unwrap();
    assert_eq!(collection.count_filtered(&filter("last")).unwrap(), 1);
    assert_eq!(collection.count_filtered(&filter("3 49")).unwrap(), 0);
    assert_eq!(collection.verify(&mut |_, _| ()).unwrap().terms, 1);
}

#[test]
fn filters_are_judged_while_merges_and_writes_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let kind = super::merge::PLAIN;
    let collection = Collection::create(&path, &config(kind.dim, kind.metric, kind.element, kind.keys), &FAST()).unwrap();
    let rng = CounterRng::new(3);
    let change = |i: u64, version: u64| {
        Change::Upsert(Point {
            key: kind.key(i),
            vector: vector(rng, i + version * 5000, kind.dim),
            payload: json!({"i": i, "odd": i % 2}).to_string(),
        })
    };
    collection.write((0..5000).map(|i| change(i, 0)).collect()).unwrap();
    kind.rebase(&collection, &path, 8000);
    let rare = Filter::from_json(&json!({"must": [{"key": "i", "range": {"gte": 100, "lt": 130}}]}), kind.keys).unwrap();
    let odd =
        Filter::from_json(&json!({"must": [{"key": "odd", "match": {"value": 1}}], "must_not": [{"is_null": {"key": "i"}}]}), kind.keys)
            .unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 1..6 {
                collection.write((50..250).map(|i| change(i, version)).collect()).unwrap();
                while collection.merge(&MergeLimits { inserts: 40, ..MergeLimits::default() }).unwrap().inserted > 0 {}
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut searches = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) || searches < 20 {
            let query = vector(CounterRng::new(5), searches, kind.dim);
            let found = collection.search_filtered(&query, &SearchParams { k: 50, list_size: 80, ..SearchParams::DEFAULT }, &rare).unwrap();
            let mut keys: Vec<PointKey> = found.hits.iter().map(|hit| hit.key.clone()).collect();
            keys.sort_unstable();
            // Every point that passes is there in every version, exactly once.
            assert_eq!(keys, (100..130).map(PointKey::Number).collect::<Vec<_>>());
            let found = collection.search_filtered(&query, &SearchParams { k: 10, ..SearchParams::DEFAULT }, &odd).unwrap();
            assert!(found.hits.len() == 10 && found.hits.iter().all(|hit| matches!(hit.key, PointKey::Number(i) if i % 2 == 1)));
            searches += 1;
        }
    });
}
