//! Bad input: a clear error, and nothing is changed.

use super::*;
use roxanne_engine::SearchParams;

#[test]
fn what_cannot_be_taken_is_named_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let collection = numbers(&directory.path().join("c"), 3);
    collection.write(vec![upsert(1, &[1.0, 2.0, 3.0])]).unwrap();
    let good = || upsert(2, &[1.0, 2.0, 3.0]);
    let with_payload = |payload: String| Change::Upsert(Point { payload, ..point(3, &[0.0; 3]) });
    let text = Change::Delete(KeyKind::Strings.parse("seven").unwrap());
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(65_536));
    for (bad, said) in [
        (upsert(3, &[1.0, 2.0]), "point 1: 2 coordinates where the collection has 3"),
        (upsert(3, &[1.0, f32::NAN, 3.0]), "point 1: coordinate 1 is not finite"),
        (upsert(3, &[1.0, 2.0, f32::INFINITY]), "point 1: coordinate 2 is not finite"),
        (upsert(3, &[1e30, 2.0, 3.0]), "point 1: the vector is too long"),
        (upsert(2, &[0.0; 3]), "points 0 and 1 have one key, 2; a batch names a key once"),
        (delete(2), "points 0 and 1 have one key, 2"),
        (Change::Insert(point(1, &[0.0; 3])), "point 1: key 1 is there already"),
        (text, "point 1: key seven: the collection's keys are numbers"),
        (with_payload("[1]".into()), "point 1: payload: no JSON object"),
        (with_payload("{\"a\": ".into()), "point 1: payload: no JSON object"),
        (with_payload(long), "point 1: payload: 65545 bytes, at most 65536 are kept"),
    ] {
        let error = refused(&collection, vec![good(), bad]).to_string();
        assert!(error.starts_with(said), "{error:?} instead of {said:?}");
    }
    assert!(collection.get(&PointKey::Number(2)).unwrap().is_none());
    // Nothing to do is nothing wrong.
    assert_eq!(collection.write(vec![]).unwrap().sequence, 1);
    assert_eq!(collection.write(vec![delete(77)]).unwrap().deleted, 0);
}

#[test]
fn queries_that_make_no_sense_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let collection = numbers(&directory.path().join("c"), 2);
    let params = SearchParams::default();
    for query in [&[1.0][..], &[1.0, f32::NAN], &[1e30, 0.0]] {
        assert!(matches!(collection.search(query, &params), Err(CollectionError::Query(_))));
    }
    for (k, list_size) in [(0, 64), (10, 0), (1 << 30, 64)] {
        assert!(collection.search(&[1.0, 2.0], &SearchParams { k, list_size, ..params }).is_err());
    }
    // Empty, and emptied.
    assert!(collection.search(&[1.0, 2.0], &params).unwrap().hits.is_empty());
    collection.write(vec![upsert(1, &[1.0, 2.0])]).unwrap();
    assert_eq!(collection.search(&[1.0, 2.0], &params).unwrap().hits.len(), 1);
    collection.write(vec![delete(1)]).unwrap();
    assert!(collection.search(&[1.0, 2.0], &params).unwrap().hits.is_empty());
}

#[test]
fn keys_are_what_they_are_said_to_be() {
    for (kind, text) in [
        (KeyKind::Numbers, ""),
        (KeyKind::Numbers, "-1"),
        (KeyKind::Numbers, "+7"),
        (KeyKind::Numbers, "007"),
        (KeyKind::Numbers, "18446744073709551616"),
        (KeyKind::Strings, ""),
        (KeyKind::Strings, "a\0b"),
        (KeyKind::Strings, &"x".repeat(513)),
    ] {
        assert!(matches!(kind.parse(text), Err(CollectionError::BadKey { .. })), "{text:?}");
    }
    // A text key that came in another way is looked at too.
    let directory = tempfile::tempdir().unwrap();
    let config = config(1, Metric::L2, ElementType::F32, KeyKind::Strings);
    let collection = Collection::create(directory.path().join("c"), &config, &FAST()).unwrap();
    let error = refused(&collection, vec![Change::Delete(PointKey::Text("".into()))]);
    assert!(matches!(error, CollectionError::BadKey { .. }), "{error}");
}

#[test]
fn directories_that_are_none_or_somebodys_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shape = config(2, Metric::L2, ElementType::F32, KeyKind::Numbers);
    // The checkpoint of a build of the same name is none of its business.
    std::fs::create_dir(at(".c.partial")).unwrap();
    let collection = Collection::create(at("c"), &shape, &FAST()).unwrap();
    assert!(matches!(Collection::create(at("c"), &shape, &FAST()), Err(CollectionError::Exists { .. })));
    let Err(CollectionError::Locked { pid, .. }) = Collection::open(at("c"), &FAST()) else { panic!("it is open") };
    assert_eq!(pid, std::process::id().to_string());
    // Any number may look.
    collection.write(vec![upsert(1, &[1.0, 2.0])]).unwrap();
    let look = CollectionOptions { read_only: true, ..FAST() };
    let (one, other) = (reopen(&at("c"), &look), reopen(&at("c"), &look));
    assert_eq!((one.count(), other.count()), (1, 1));
    assert!(matches!(one.write(vec![delete(1)]), Err(CollectionError::ReadOnly { .. })));
    drop((collection, one, other));
    reopen(&at("c"), &FAST());
    for name in ["none", "file"] {
        std::fs::write(at("file"), "x").unwrap();
        assert!(matches!(Collection::open(at(name), &FAST()), Err(CollectionError::NotACollection { .. })));
    }
    for bad in [config(0, Metric::L2, ElementType::F32, KeyKind::Numbers), config(8193, Metric::L2, ElementType::F32, KeyKind::Numbers)] {
        assert!(matches!(Collection::create(at("d"), &bad, &FAST()), Err(CollectionError::Dimension { .. })));
    }
    let bad = config(8, Metric::Hamming, ElementType::F32, KeyKind::Numbers);
    assert!(matches!(Collection::create(at("d"), &bad, &FAST()), Err(CollectionError::Metric(_))));
    assert!(!at("d").exists() && at(".c.partial").exists());
}

#[test]
fn what_does_not_fit_memory_is_refused_and_deletes_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    drop(numbers(&path, 64));
    let small = CollectionOptions { delta_bytes: 100_000, ..FAST() };
    let collection = reopen(&path, &small);
    let mut taken = 0;
    let error = loop {
        match collection.write(vec![upsert(taken, &[1.0; 64])]) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CollectionError::DeltaFull { allowed: 100_000, .. }) && taken > 100, "{taken}: {error}");
    assert_eq!(collection.count(), taken);
    assert_eq!(collection.write(vec![delete(0)]).unwrap().deleted, 1);
}

#[test]
fn a_disk_that_is_nearly_full_takes_deletions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let collection = numbers(&path, 2);
    collection.write(vec![upsert(1, &[1.0, 2.0]), upsert(2, &[1.0, 2.0])]).unwrap();
    drop(collection);
    let collection = reopen(&path, &CollectionOptions { disk_reserve: u64::MAX, ..FAST() });
    let error = refused(&collection, vec![upsert(3, &[1.0, 2.0]), delete(1)]);
    assert!(matches!(error, CollectionError::DiskFull { .. }) && error.to_string().contains("stay so"), "{error}");
    assert_eq!(collection.write(vec![delete(1)]).unwrap().deleted, 1);
    assert_eq!(collection.count(), 1);
}
