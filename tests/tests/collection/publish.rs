//! A base under a collection: what is in both is found once, what was written since wins, and what was deleted stays away.

use super::*;
use roxanne_builder::{BuildParams, Builder, Device};
use roxanne_core::{
    dataset::{Dataset, DatasetWriter},
    format::keys::KeyList,
};
use roxanne_engine::{Budget, Index, SearchParams, collection::Previous};

const DIM: usize = 8;

/// Builds an index of what the collection exports, as of the batch that is returned.
fn rebuild(collection: &Collection, out: &Path) -> u64 {
    rebuild_with(collection, out, 0)
}

/// The same with room for `capacity` points; 0 for one that is never changed.
pub(super) fn rebuild_with(collection: &Collection, out: &Path, capacity: u64) -> u64 {
    let rows = out.with_extension("fbin");
    let mut writer = DatasetWriter::create(&rows, ElementType::F32, collection.config().dim).unwrap();
    let mut keys = Vec::new();
    let sequence = collection
        .export(|key, row| {
            let PointKey::Number(number) = key else { panic!("a number") };
            keys.push(number);
            writer.push_rows(row).unwrap();
            Ok(())
        })
        .unwrap();
    writer.finish().unwrap();
    let dataset = Dataset::open(&rows.to_string_lossy()).unwrap();
    let builder = Builder::new(Metric::L2).device(Device::Cpu).keys(KeyList::Numbers(keys)).dataset(dataset);
    let builder = if capacity > 0 { builder.params(BuildParams { capacity, ..BuildParams::default() }) } else { builder };
    builder.build(out).unwrap();
    sequence
}

/// The collection holds these keys with these vectors, by every way of looking.
fn holds(collection: &Collection, expected: &std::collections::BTreeMap<u64, Vec<f32>>, told: &str) {
    assert_eq!(collection.count(), expected.len() as u64, "{told}");
    for key in 0..2500 {
        let got = collection.get(&PointKey::Number(key)).unwrap().map(|point| point.vector);
        assert_eq!(got.as_ref(), expected.get(&key), "{told}: key {key}");
    }
    let all = collection.exact(&[0.0; DIM], expected.len() + 10).unwrap().hits;
    let mut keys: Vec<u64> = all.iter().map(|hit| if let PointKey::Number(key) = hit.key { key } else { panic!("a number") }).collect();
    keys.sort_unstable();
    assert!(keys.iter().eq(expected.keys()), "{told}: {} of {}", keys.len(), expected.len());
    let mut hits = 0;
    for (key, vector) in expected.iter().step_by(37) {
        let found = collection.search(vector, &SearchParams { k: 1, ..SearchParams::default() }).unwrap().hits;
        hits += usize::from(found[0].distance == 0.0 || found[0].key == PointKey::Number(*key));
    }
    assert!(hits * 100 >= expected.iter().step_by(37).count() * 98, "{told}: {hits}");
}

#[test]
fn a_base_is_replaced_again_and_again_while_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let mut collection = numbers(&path, DIM);
    let rng = CounterRng::new(21);
    let mut model = std::collections::BTreeMap::new();
    let write =
        |collection: &Collection, model: &mut std::collections::BTreeMap<u64, Vec<f32>>, salt: u64, keys: &mut dyn Iterator<Item = u64>| {
            let mut changes = Vec::new();
            for key in keys {
                if (key + salt).is_multiple_of(5) && model.contains_key(&key) {
                    model.remove(&key);
                    changes.push(delete(key));
                } else {
                    let values = vector(rng, salt * 10_000 + key, DIM);
                    changes.push(upsert(key, &values));
                    model.insert(key, values);
                }
            }
            collection.write(changes).unwrap();
        };
    write(&collection, &mut model, 0, &mut (0..2000));
    for round in 1..4 {
        let index = directory.path().join(format!("{round}.rx"));
        let sequence = rebuild(&collection, &index);
        // Written and deleted while it was built: old keys, new keys, keys that are deleted and put again.
        write(&collection, &mut model, round, &mut (0..2400).step_by(7));
        write(&collection, &mut model, round + 1, &mut (0..2400).step_by(14));
        holds(&collection, &model, &format!("round {round} before"));
        collection.promote(&index, sequence, Previous::Remove).unwrap();
        holds(&collection, &model, &format!("round {round} promoted"));
        assert!(!index.exists());
        drop(collection);
        collection = reopen(&path, &FAST());
        holds(&collection, &model, &format!("round {round} opened again"));
        let stats = collection.stats();
        assert!(stats.base_points > 1500 && stats.delta_points < 600, "{stats:?}");
        let bases =
            std::fs::read_dir(&path).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("base-"));
        assert_eq!(bases.count(), 1);
        write(&collection, &mut model, round + 2, &mut (3..2400).step_by(11));
        holds(&collection, &model, &format!("round {round} written to"));
    }
    // What is built again of the same rows is the same base, and the one that is there stays.
    let (index, again) = (directory.path().join("index"), directory.path().join("again"));
    let (of, sequence) = (collection.base_generation(), rebuild(&collection, &index));
    super::power::copy(&index, &again);
    collection.replace(&index, sequence, of).unwrap();
    let of = collection.base_generation();
    collection.replace(&again, sequence, of).unwrap();
    assert!(!again.exists() && collection.base_generation() == of);
    holds(&collection, &model, "built again");
    // Written once more, as it was, it waits to be merged: the same base does not hold that.
    super::power::copy(&collection.path().join(format!("base-{:016x}", of.unwrap())), &again);
    write(&collection, &mut model, 1, &mut (0..40));
    let sequence = collection.stats().sequence;
    for source in [&again, &collection.path().join(format!("base-{:016x}", of.unwrap()))] {
        let error = collection.replace(source, sequence, of).unwrap_err().to_string();
        assert!(error.contains("the base already") && source.exists(), "{error}");
    }
    holds(&collection, &model, "refused");
}

#[test]
fn a_promotion_that_was_cut_off_loses_no_index() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let collection = numbers(&path, DIM);
    let rng = CounterRng::new(4);
    let fill = |collection: &Collection, keys: std::ops::Range<u64>| {
        collection.write(keys.map(|key| upsert(key, &vector(rng, key, DIM))).collect()).unwrap();
    };
    let index = directory.path().join("index.rx");
    fill(&collection, 0..400);
    let sequence = rebuild(&collection, &index);
    // Moved and never counted; the next opening leaves it, and what is somebody else's.
    let generation = Index::open(&index, Budget::default()).unwrap().info().generation;
    let there = path.join(format!("base-{generation:016x}"));
    std::fs::rename(&index, &there).unwrap();
    std::fs::create_dir(path.join("base-of-mine")).unwrap();
    drop(collection);
    let collection = reopen(&path, &FAST());
    assert_eq!((collection.stats().base_points, there.exists()), (0, true));
    collection.promote(&there, sequence, Previous::Remove).unwrap();
    assert_eq!((collection.stats().base_points, collection.stats().delta_points), (400, 0));
    assert!(collection.promote(&there, sequence, Previous::Remove).unwrap_err().to_string().contains("the base already") && there.exists());
    // Replaced and not removed any more: the next opening does it.
    fill(&collection, 400..500);
    let next = directory.path().join("next.rx");
    let sequence = rebuild(&collection, &next);
    collection.promote(&next, sequence, Previous::Remove).unwrap();
    assert!(!there.exists());
    std::fs::create_dir(&there).unwrap();
    drop(collection);
    let collection = reopen(&path, &FAST());
    assert!(!there.exists() && path.join("base-of-mine").exists());
    assert_eq!((collection.count(), collection.stats().base_points), (500, 500));
}

#[test]
fn an_index_that_does_not_fit_is_refused_and_stays_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let collection = numbers(&directory.path().join("c"), DIM);
    let rng = CounterRng::new(2);
    collection.write((0..600).map(|key| upsert(key, &vector(rng, key, DIM))).collect()).unwrap();
    let good = directory.path().join("good.rx");
    let sequence = rebuild(&collection, &good);
    let other = directory.path().join("other.rx");
    Builder::new(Metric::L2).device(Device::Cpu).input("synth:n=300,dim=9").unwrap().build(&other).unwrap();
    let damaged = directory.path().join("damaged.rx");
    rebuild(&collection, &damaged);
    let graph = damaged.join("graph.rx");
    let mut bytes = std::fs::read(&graph).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&graph, bytes).unwrap();
    for (index, sequence, said) in [
        (&other, 0, "9 f32 coordinates"),
        (&damaged, sequence, "corrupt"),
        (&good, sequence + 1, "the collection's last is 1"),
        (&directory.path().join("none.rx"), 0, "no such directory"),
    ] {
        let error = collection.promote(index, sequence, Previous::Remove).unwrap_err().to_string();
        assert!(error.contains(said), "{error:?} instead of {said:?}");
        assert_eq!((collection.stats().base_points, collection.count()), (0, 600));
    }
    assert!(other.exists() && good.exists());
    collection.promote(&good, sequence, Previous::Remove).unwrap();
    // What was deleted and put again while one was built that does not hold it is not lost.
    let less = directory.path().join("less.rx");
    collection.write((0..300).map(delete).collect()).unwrap();
    let sequence = rebuild(&collection, &less);
    collection.write((0..300).map(|key| upsert(key, &vector(rng, key, DIM))).collect()).unwrap();
    // One of another collection lacks what this base has; one of before the base does not know what came between.
    let strange = numbers(&directory.path().join("d"), DIM);
    strange.write((1000..1100).map(|key| upsert(key, &vector(rng, key, DIM))).collect()).unwrap();
    let foreign = directory.path().join("foreign.rx");
    rebuild(&strange, &foreign);
    for (index, sequence, said) in [(&foreign, sequence, "lacks key"), (&less, 0, "the base holds batch 1")] {
        let error = collection.promote(index, sequence, Previous::Remove).unwrap_err().to_string();
        assert!(error.contains(said) && index.exists(), "{error:?} instead of {said:?}");
    }
    collection.promote(&less, sequence, Previous::Remove).unwrap();
    assert_eq!(collection.count(), 600);
    // A key that was not there when it was deleted stays away although a base that was begun before brings it.
    let late = directory.path().join("late.rx");
    let sequence = collection.stats().sequence;
    let mirror = numbers(&directory.path().join("e"), DIM);
    mirror.write((0..=600).map(|key| upsert(key, &vector(rng, key, DIM))).collect()).unwrap();
    rebuild(&mirror, &late);
    collection.write(vec![delete(600)]).unwrap();
    collection.promote(&late, sequence, Previous::Remove).unwrap();
    assert!(!collection.contains(&PointKey::Number(600)).unwrap() && collection.count() == 600);
}
