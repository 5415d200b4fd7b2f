//! A base takes the place of another in the memory that is there for one: searches go on, or are refused, and are never wrong.

use super::{publish::rebuild_with, *};
use roxanne_engine::{
    Index, SearchError, SearchParams,
    collection::{MergeLimits, Previous, PromoteMode, Promotion},
};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};

const DIM: usize = 16;
const POINTS: u64 = 3000;

/// The vector of a key, which is far from that of any other.
fn of(key: u64) -> Vec<f32> {
    vector(CounterRng::new(77), key, DIM)
}

/// Its own vector finds every key that is looked for.
fn finds(collection: &Collection, told: &str) {
    let keys: Vec<u64> = (0..POINTS).step_by(61).collect();
    let found = keys.iter().filter(|&&key| {
        let hits = collection.search(&of(key), &SearchParams { k: 1, list_size: 60, ..SearchParams::default() }).unwrap().hits;
        hits[0].key == PointKey::Number(key)
    });
    let found = found.count();
    assert!(found * 100 >= keys.len() * 98, "{told}: {found} of {}", keys.len());
}

#[test]
fn a_base_comes_in_every_mode_while_searches_go_on() {
    for (resident, mode) in [false, true]
        .into_iter()
        .flat_map(|resident| [PromoteMode::Overlap, PromoteMode::Half, PromoteMode::Drain].map(|mode| (resident, mode)))
    {
        let told = format!("{mode:?}, resident {resident}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c");
        let mut options = FAST();
        // All pages in memory, or a cache of some.
        (options.base.budget, options.base.resident) = (Budget::ram(1 << 30), resident);
        let collection = Collection::create(&path, &config(DIM, Metric::L2, ElementType::F32, KeyKind::Numbers), &options).unwrap();
        collection.write((0..POINTS).map(|key| upsert(key, &of(key))).collect()).unwrap();
        let first = directory.path().join("1.rx");
        let sequence = rebuild_with(&collection, &first, 2 * POINTS);
        collection.promote(&first, sequence, Previous::Remove).unwrap();
        finds(&collection, &told);
        // Pages that were written lie beside those that were loaded.
        collection.write((0..POINTS).step_by(3).map(|key| upsert(key, &of(key))).collect()).unwrap();
        collection.merge(&MergeLimits::default()).unwrap();
        finds(&collection, &told);

        let (stop, searches, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let (collection, stop, searches, refused, told) = (&collection, &stop, &searches, &refused, &told);
            for seed in 0..2 {
                scope.spawn(move || {
                    let mut wrong = 0;
                    for key in (0..).map(|round: u64| (round * 997 + seed) % POINTS).take_while(|_| !stop.load(Relaxed)) {
                        // What needs no codes goes on in every mode.
                        assert_eq!(collection.get(&PointKey::Number(key)).unwrap().unwrap().vector, of(key));
                        match collection.search(&of(key), &SearchParams { k: 1, list_size: 60, ..SearchParams::default() }) {
                            Ok(found) => {
                                wrong += u64::from(found.hits[0].key != PointKey::Number(key));
                                searches.fetch_add(1, Relaxed);
                            }
                            Err(CollectionError::Search(SearchError::Drained { .. })) if mode == PromoteMode::Drain => {
                                refused.fetch_add(1, Relaxed);
                            }
                            Err(error) => panic!("{told}: {error}"),
                        }
                    }
                    assert!(wrong * 50 <= searches.load(Relaxed), "{told}: {wrong}");
                });
            }
            // One that does not pass changes nothing.
            let next = directory.path().join("2.rx");
            let sequence = rebuild_with(collection, &next, 2 * POINTS);
            let generation = collection.base_generation();
            let waits = |index: &Index| {
                // Searches of the old base meanwhile.
                let before = (searches.load(Relaxed), refused.load(Relaxed));
                while if mode == PromoteMode::Drain {
                    refused.load(Relaxed) < before.1 + 50
                } else {
                    searches.load(Relaxed) < before.0 + 50
                } {
                    thread::yield_now();
                }
                assert_eq!(collection.is_drained(), mode == PromoteMode::Drain);
                // Codes, pages, both or none.
                let given = collection.memory().handed_over_bytes;
                let expected = (mode == PromoteMode::Half && given > POINTS) || (mode == PromoteMode::Drain && resident && given > 0);
                assert!(
                    expected || given == 0 && (mode == PromoteMode::Overlap || (mode == PromoteMode::Drain && !resident)),
                    "{told}: {given}"
                );
                assert!(index.own_recall(20, 60, &mut |_| true).unwrap().unwrap() > 0.95);
            };
            let no = |index: &Index| {
                waits(index);
                Err("it is not liked".to_string())
            };
            let hears = || Err("not now".to_string());
            let promotion = Promotion { previous: Previous::Keep, mode, notice: None, gate: Some(&no) };
            if mode == PromoteMode::Drain {
                let error =
                    collection.promote_with(&next, sequence, &Promotion { notice: Some(&hears), ..promotion }).unwrap_err().to_string();
                assert!(error.contains("not now") && !collection.is_drained(), "{error}");
            }
            let error = collection.promote_with(&next, sequence, &promotion).unwrap_err().to_string();
            assert!(error.contains("it is not liked") && next.exists(), "{told}: {error}");
            assert_eq!((collection.base_generation(), collection.is_drained()), (generation, false), "{told}");
            finds(collection, told);

            let yes = |index: &Index| {
                waits(index);
                // Writes go on: a point that the new base has not, and one less.
                collection.write(vec![upsert(POINTS, &of(POINTS)), delete(1)]).unwrap();
                Ok(())
            };
            collection.promote_with(&next, sequence, &Promotion { gate: Some(&yes), ..promotion }).unwrap();
            assert!(collection.base_generation() != generation && !collection.is_drained(), "{told}");
            // Put back, as the others look for it.
            collection.write(vec![upsert(1, &of(1))]).unwrap();
            finds(collection, told);
            collection.rollback_with(mode, Some(&|| Ok(()))).unwrap();
            assert_eq!(collection.memory().handed_over_bytes, 0);
            assert_eq!((collection.base_generation(), collection.is_drained()), (generation, false), "{told}");
            finds(collection, told);
            stop.store(true, Relaxed);
        });
        assert_eq!((refused.load(Relaxed) > 0, collection.count()), (mode == PromoteMode::Drain, POINTS + 1), "{told}");
        assert_eq!(collection.get(&PointKey::Number(POINTS)).unwrap().unwrap().vector, of(POINTS));
        // Nothing is left in the way of merges, or of opening again.
        collection.merge(&MergeLimits::default()).unwrap();
        finds(&collection, &told);
        drop(collection);
        finds(&reopen(&path, &options), &told);
    }
}
