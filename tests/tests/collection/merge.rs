//! Merging into a base where it lies: what was written is found before, while and after it comes into the base, and nothing else is.

use super::*;
use roxanne_builder::{BuildParams, Builder, Device};
use roxanne_core::{
    dataset::{Dataset, DatasetWriter},
    distance::DistanceFn,
    format::keys::KeyList,
};
use roxanne_engine::{
    SearchParams,
    collection::{MergeLimits, MergeReport, Previous},
};
use std::{collections::BTreeMap, path::PathBuf};

pub(super) type Model = BTreeMap<PointKey, Vec<f32>>;

/// What the histories here are of.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) metric: Metric,
    pub(super) element: ElementType,
    pub(super) keys: KeyKind,
    pub(super) dim: usize,
}

pub(super) const PLAIN: Kind = Kind { metric: Metric::L2, element: ElementType::F32, keys: KeyKind::Numbers, dim: 8 };

impl Kind {
    pub(super) fn key(&self, number: u64) -> PointKey {
        match self.keys {
            KeyKind::Numbers => PointKey::Number(number),
            KeyKind::Strings => self.keys.parse(&format!("key {number}")).unwrap(),
        }
    }

    pub(super) fn point(&self, number: u64, vector: &[f32]) -> Change {
        Change::Upsert(Point { key: self.key(number), vector: vector.to_vec(), payload: String::new() })
    }

    /// A collection of `n` points, all in a base with room for `capacity`.
    pub(super) fn based(&self, path: &Path, n: u64, capacity: u64, options: &CollectionOptions) -> (Collection, Model) {
        let collection = Collection::create(path, &config(self.dim, self.metric, self.element, self.keys), options).unwrap();
        let rng = CounterRng::new(3);
        let model: Model = (0..n).map(|number| (self.key(number), vector(rng, number, self.dim))).collect();
        let changes = (0..n).map(|number| self.point(number, &model[&self.key(number)])).collect();
        collection.write(changes).unwrap();
        self.rebase(&collection, path, capacity);
        (collection, model)
    }

    /// Builds a base with room for `capacity` of all there is, and promotes it.
    pub(super) fn rebase(&self, collection: &Collection, path: &Path, capacity: u64) {
        let (index, sequence) = self.rebuild(collection, path, capacity);
        collection.promote(&index, sequence, Previous::Remove).unwrap();
    }

    /// Builds a base with room for `capacity` of all there is after the batch that is given.
    pub(super) fn rebuild(&self, collection: &Collection, path: &Path, capacity: u64) -> (PathBuf, u64) {
        let (rows, index) = (path.with_extension("rows.fbin"), path.with_extension("rx"));
        let rows = if self.element == ElementType::U8 { rows.with_extension("u8bin") } else { rows };
        let _ = std::fs::remove_file(&rows);
        let mut writer = DatasetWriter::create(&rows, self.element, self.dim).unwrap();
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        let sequence = collection
            .export(|key, row| {
                match key {
                    PointKey::Number(number) => numbers.push(number),
                    PointKey::Text(text) => texts.push(text.into_string()),
                }
                writer.push_rows(row).unwrap();
                Ok(())
            })
            .unwrap();
        writer.finish().unwrap();
        let keys = if texts.is_empty() { KeyList::Numbers(numbers) } else { KeyList::Strings(texts) };
        let dataset = Dataset::open(&rows.to_string_lossy()).unwrap();
        let params = BuildParams { max_degree: 24, capacity, ..BuildParams::default() };
        Builder::new(self.metric).device(Device::Cpu).params(params).keys(keys).dataset(dataset).build(&index).unwrap();
        (index, sequence)
    }

    /// The collection holds these points and no others, by every way of looking; gives how many of all nearest neighbors were found.
    pub(super) fn holds(&self, collection: &Collection, model: &Model, told: &str) -> f64 {
        assert_eq!(collection.count(), model.len() as u64, "{told}");
        for (key, vector) in model {
            let got = collection.get(key).unwrap().map(|point| point.vector);
            assert_eq!(got.as_ref(), Some(vector), "{told}: key {key}");
        }
        let origin = vec![1.0; self.dim];
        let mut keys: Vec<PointKey> = collection.exact(&origin, model.len() + 10).unwrap().hits.into_iter().map(|hit| hit.key).collect();
        keys.sort_unstable();
        assert!(keys.iter().eq(model.keys()), "{told}: {} of {}", keys.len(), model.len());
        // As many as there are: every one is reached, and none that is dead.
        let params = SearchParams { k: model.len() + 10, list_size: 2 * model.len() + 100, ..SearchParams::DEFAULT };
        let mut reached: Vec<PointKey> = collection.search(&origin, &params).unwrap().hits.into_iter().map(|hit| hit.key).collect();
        reached.sort_unstable();
        assert!(reached.iter().eq(model.keys()), "{told}: {} reached of {}", reached.len(), model.len());
        let distance = DistanceFn::new(self.metric, self.element, self.dim).unwrap();
        let row = |vector: &[f32]| {
            let mut bytes = Vec::new();
            self.element.encode(vector, &mut bytes).unwrap();
            bytes
        };
        let (mut found, mut wanted) = (0, 0);
        for i in 0..40 {
            let query = vector(CounterRng::new(77), i * 13, self.dim);
            let bytes = row(&query);
            let mut truth: Vec<f32> = model.values().map(|vector| distance.distance(&bytes, &row(vector))).collect();
            truth.sort_by(f32::total_cmp);
            truth.truncate(10);
            let hits = collection.search(&query, &SearchParams { k: 10, list_size: 50, ..SearchParams::DEFAULT }).unwrap().hits;
            for hit in &hits {
                let vector = &model[&hit.key];
                assert_eq!(hit.distance, distance.distance(&bytes, &row(vector)), "{told}: key {}", hit.key);
            }
            found += hits.iter().filter(|hit| truth.last().is_some_and(|last| hit.distance <= *last)).count();
            wanted += truth.len();
        }
        found as f64 / wanted as f64
    }
}

/// Merges until nothing is left to merge.
pub(super) fn merge_all(collection: &Collection, limits: &MergeLimits) -> MergeReport {
    let mut sum = MergeReport::default();
    loop {
        let report = collection.merge(limits).unwrap();
        if report.inserted + report.removed == 0 {
            return sum;
        }
        sum.inserted += report.inserted;
        sum.removed += report.removed;
        sum.pages += report.pages;
    }
}

/// Changes of one step of a history: some keys deleted, some put again, some new.
pub(super) fn step(kind: &Kind, model: &mut Model, salt: u64, keys: impl Iterator<Item = u64>) -> Vec<Change> {
    let rng = CounterRng::new(salt);
    keys.map(|number| {
        let key = kind.key(number);
        if (number + salt).is_multiple_of(3) && model.remove(&key).is_some() {
            return Change::Delete(key);
        }
        let values = vector(rng, number, kind.dim);
        let change = kind.point(number, &values);
        model.insert(key, values);
        change
    })
    .collect()
}

#[test]
fn what_is_merged_is_what_was_written() {
    let kinds = [
        PLAIN,
        Kind { metric: Metric::L2, element: ElementType::U8, keys: KeyKind::Numbers, dim: 16 },
        Kind { metric: Metric::Cosine, element: ElementType::F32, keys: KeyKind::Strings, dim: 12 },
        Kind { metric: Metric::InnerProduct, element: ElementType::F32, keys: KeyKind::Numbers, dim: 8 },
        Kind { metric: Metric::Manhattan, element: ElementType::F32, keys: KeyKind::Strings, dim: 8 },
    ];
    for kind in kinds {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c");
        let (mut collection, mut model) = kind.based(&path, 1500, 4000, &FAST());
        let fresh = kind.holds(&collection, &model, "as built");
        for round in 0..4u64 {
            let told = format!("{} {} round {round}", kind.metric, kind.element);
            let changes = step(&kind, &mut model, round, (round % 7..1900).step_by(5));
            collection.write(changes).unwrap();
            let limits = MergeLimits { inserts: 150, removals: 90, ..MergeLimits::default() };
            let report = collection.merge(&limits).unwrap();
            assert_eq!((report.inserted, report.removed > 0), (150, true), "{told}");
            kind.holds(&collection, &model, &format!("{told}, some merged"));
            if round % 2 == 0 {
                drop(collection);
                collection = reopen(&path, &FAST());
                kind.holds(&collection, &model, &format!("{told}, opened again"));
            }
            merge_all(&collection, &limits);
            let stats = collection.stats();
            assert_eq!(stats.delta_points, stats.delta_dead, "{told}");
            let recall = kind.holds(&collection, &model, &format!("{told}, all merged"));
            let loss = if kind.metric == Metric::InnerProduct { 0.04 } else { 0.02 };
            assert!(recall >= fresh - loss, "{told}: {recall} of {fresh}");
            // Slots are used again: there are as many as there were points at most at one time, and those of entries that died.
            assert!(stats.base_points <= 2400, "{told}: {stats:?}");
        }
        drop(collection);
        kind.holds(&reopen(&path, &FAST()), &model, "at the end");
    }
}

#[test]
fn a_base_that_was_begun_before_a_merge_loses_none_of_it() {
    for keys in [KeyKind::Numbers, KeyKind::Strings] {
        let kind = Kind { keys, ..PLAIN };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c");
        let (mut collection, mut model) = kind.based(&path, 600, 2000, &FAST());
        let (index, sequence) = kind.rebuild(&collection, &path, 3000);
        // New keys, other vectors of old ones, deletions: merged into the base that is about to go.
        collection.write(step(&kind, &mut model, 4, (0..900).step_by(2))).unwrap();
        merge_all(&collection, &MergeLimits::default());
        collection.write(step(&kind, &mut model, 5, (0..900).step_by(5))).unwrap();
        collection.promote(&index, sequence, Previous::Remove).unwrap();
        kind.holds(&collection, &model, "promoted");
        drop(collection);
        collection = reopen(&path, &FAST());
        kind.holds(&collection, &model, "opened again");
        merge_all(&collection, &MergeLimits::default());
        kind.holds(&collection, &model, "merged");
        // What was changed in place is known to its collection alone.
        let base =
            std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.join("MANIFEST").exists()).unwrap();
        let (other, _) = kind.based(&directory.path().join("other"), 10, 100, &FAST());
        let error = other.promote(&base, 0, Previous::Remove).unwrap_err();
        assert!(matches!(error, CollectionError::Rejected { .. }), "{error}");
        kind.holds(&collection, &model, "refused elsewhere");
    }
}

/// Four thousand points in a hundred groups, each larger than what a newcomer is told of its round, and more than a list has places.
fn crowds(from: f32, apart: f32) -> (tempfile::TempDir, Collection, Model) {
    let directory = tempfile::tempdir().unwrap();
    let (collection, mut model) = PLAIN.based(&directory.path().join("c"), 300, 8000, &FAST());
    let rng = CounterRng::new(8);
    let mut changes = Vec::new();
    for number in 1000..5000u64 {
        let center = |d: u64| from + apart * rng.below(number % 100 * 8 + d, 40) as f32;
        let values: Vec<f32> = (0..8).map(|d| center(d) + rng.below((1 << 30) + number * 8 + d, 4) as f32).collect();
        changes.push(PLAIN.point(number, &values));
        model.insert(PLAIN.key(number), values);
    }
    collection.write(changes).unwrap();
    merge_all(&collection, &MergeLimits::default());
    PLAIN.holds(&collection, &model, "merged");
    (directory, collection, model)
}

#[test]
fn crowds_are_reached_and_what_is_left_of_them() {
    let (_directory, collection, mut model) = crowds(1.0, 4.0);
    // Whole regions leave together.
    let gone: Vec<PointKey> = model.keys().enumerate().filter(|(at, _)| at % 10 != 3).map(|(_, key)| key.clone()).collect();
    gone.iter().for_each(|key| drop(model.remove(key)));
    collection.write(gone.into_iter().map(Change::Delete).collect()).unwrap();
    merge_all(&collection, &MergeLimits { removals: 500, ..MergeLimits::default() });
    PLAIN.holds(&collection, &model, "nine of ten are gone");
}

#[test]
fn crowds_beyond_all_that_codes_tell_apart_are_reached() {
    crowds(10_000.0, 300.0);
}
