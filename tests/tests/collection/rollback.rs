//! Back to the base before a promotion: what was written stays written, what was deleted stays away, what the promoted base brought goes.

use super::{
    merge::{Kind, Model, PLAIN, merge_all, step},
    *,
};
use roxanne_builder::{BuildParams, Builder, Device};
use roxanne_core::{
    dataset::{Dataset, DatasetWriter},
    format::keys::KeyList,
};
use roxanne_engine::collection::{MergeLimits, Previous};

const KEYS: u64 = 420;

/// An index of all there is, whose vectors are all wrong; what a build from the wrong data gives.
fn wrong_index(collection: &Collection, out: &Path) -> u64 {
    let rows = out.with_extension("fbin");
    let mut writer = DatasetWriter::create(&rows, ElementType::F32, PLAIN.dim).unwrap();
    let mut keys = Vec::new();
    let sequence = collection
        .export(|key, row| {
            let PointKey::Number(number) = key else { panic!("a number") };
            keys.push(number);
            let wrong: Vec<f32> = row.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes) + 1000.0).collect();
            let mut bytes = Vec::new();
            ElementType::F32.encode(&wrong, &mut bytes).unwrap();
            writer.push_rows(&bytes).unwrap();
            Ok(())
        })
        .unwrap();
    // And one that the collection never had.
    keys.push(1 << 40);
    writer.push_rows(&[0; 32]).unwrap();
    writer.finish().unwrap();
    let dataset = Dataset::open(&rows.to_string_lossy()).unwrap();
    let params = BuildParams { max_degree: 24, capacity: 900, ..BuildParams::default() };
    Builder::new(Metric::L2).device(Device::Cpu).params(params).keys(KeyList::Numbers(keys)).dataset(dataset).build(out).unwrap();
    sequence
}

fn bases(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("base-")).count()
}

/// One history: before, between and after a promotion and its end everything may happen that changes points or where they lie.
fn history(seed: u64, kind: Kind, opened_again: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let (mut collection, mut model) = kind.based(&path, 300, 900, &FAST());
    let reader = Collection::open(&path, &CollectionOptions { read_only: true, ..FAST() }).unwrap();
    let rng = CounterRng::new(seed);
    let mut drawn = 0;
    let mut draw = |below: u64| {
        drawn += 1;
        rng.below(drawn, below)
    };
    let limits = MergeLimits { inserts: 70, removals: 50, threads: 1 };
    let mut live = |collection: &mut Collection, model: &mut Model, told: &str| {
        for _ in 0..1 + draw(4) {
            match draw(5) {
                0 => drop(merge_all(collection, &limits)),
                1 => drop(collection.merge(&limits).unwrap()),
                _ => {
                    let (first, by) = (draw(20), 2 + draw(9) as usize);
                    collection.write(step(&kind, model, draw(1000), (first..KEYS).step_by(by))).unwrap();
                }
            }
        }
        if opened_again && draw(2) == 0 {
            // What it was opened with is closed first.
            *collection = {
                drop(std::mem::replace(collection, numbers(&path.with_extension(told.replace(' ', "-")), 2)));
                reopen(&path, &FAST())
            };
        }
        kind.holds(collection, model, told);
    };
    for turn in 0..3 {
        let told = |what: &str| format!("seed {seed} turn {turn} {what}");
        live(&mut collection, &mut model, &told("before"));
        let wrong = kind.keys == KeyKind::Numbers && turn == 1;
        let before = model.clone();
        let index = path.with_extension("rx");
        let sequence = if wrong { wrong_index(&collection, &index) } else { kind.rebuild(&collection, &path, 900).1 };
        // Written while it was built.
        collection.write(step(&kind, &mut model, seed + turn, (turn..KEYS).step_by(7))).unwrap();
        collection.promote(&index, sequence, Previous::Keep).unwrap();
        assert!(collection.previous().unwrap().is_some() && bases(&path) == 2);
        if wrong {
            let key = before.keys().find(|key| model.get(key) == before.get(key)).unwrap();
            assert_eq!(collection.get(key).unwrap().unwrap().vector[0], before[key][0] + 1000.0);
            collection.write(step(&kind, &mut model, 77, (0..KEYS).step_by(5))).unwrap();
            merge_all(&collection, &limits);
        } else {
            live(&mut collection, &mut model, &told("promoted"));
            if turn == 2 {
                // Another comes in between, as one that is built unasked, and does not take the way back.
                kind.rebase(&collection, &path, 900);
                assert!(collection.previous().unwrap().is_some() && bases(&path) == 2);
                live(&mut collection, &mut model, &told("promoted twice"));
            }
        }
        collection.rollback().unwrap();
        assert_eq!((collection.previous().unwrap(), bases(&path)), (None, 1));
        kind.holds(&collection, &model, &told("back"));
        reader.catch_up().unwrap();
        kind.holds(&reader, &model, &told("read"));
        live(&mut collection, &mut model, &told("after"));
    }
    assert_eq!(collection.verify(&mut |_, _| ()).unwrap().points, model.len() as u64);
}

#[test]
fn what_was_written_survives_the_way_back() {
    for seed in 0..6 {
        history(seed, PLAIN, seed % 2 == 0);
    }
    history(9, Kind { metric: Metric::Cosine, element: ElementType::U8, keys: KeyKind::Strings, ..PLAIN }, true);
}

#[test]
fn what_is_not_kept_cannot_come_back_and_takes_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let (collection, mut model) = PLAIN.based(&path, 300, 700, &FAST());
    let nothing = |collection: &Collection| {
        let error = collection.rollback().unwrap_err();
        assert!(matches!(error, CollectionError::NoPrevious { .. }), "{error}");
        assert_eq!(bases(&path), 1);
    };
    nothing(&collection);
    let (index, sequence) = PLAIN.rebuild(&collection, &path, 700);
    collection.promote(&index, sequence, Previous::Keep).unwrap();
    collection.forget_previous().unwrap();
    nothing(&collection);
    // Kept, and damaged: the one that is there serves on.
    let (index, sequence) = PLAIN.rebuild(&collection, &path, 700);
    collection.promote(&index, sequence, Previous::Keep).unwrap();
    collection.write(step(&PLAIN, &mut model, 3, (0..300).step_by(2))).unwrap();
    let of = |collection: &Collection| {
        let now = collection.stats();
        let names = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.join("MANIFEST").exists());
        (now, names.collect::<Vec<_>>())
    };
    let (_, all) = of(&collection);
    let snapshot = directory.path().join("snapshot");
    collection.snapshot(&snapshot).unwrap();
    let kept = all.iter().find(|base| !snapshot.join(base.file_name().unwrap()).exists()).unwrap();
    std::fs::rename(kept.join("codes.rx"), kept.join("away")).unwrap();
    let error = collection.rollback().unwrap_err();
    assert!(error.to_string().contains("codes.rx"), "{error}");
    PLAIN.holds(&collection, &model, "as it was");
    std::fs::rename(kept.join("away"), kept.join("codes.rx")).unwrap();
    collection.rollback().unwrap();
    PLAIN.holds(&collection, &model, "back");
    // A copy holds the base alone, and so no way back.
    let copy = directory.path().join("copy");
    Collection::restore(&snapshot, &copy).unwrap();
    let copy = reopen(&copy, &FAST());
    assert_eq!(copy.previous().unwrap(), None);
    PLAIN.holds(&copy, &model, "the copy");
    assert!(matches!(copy.rollback(), Err(CollectionError::NoPrevious { .. })));
}

/// What the promoted index lacked is merged into it, or built into another, and must outlive both.
#[test]
fn what_a_bad_index_lacked_comes_back_with_the_base_before() {
    for rebuilt in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c");
        let (collection, mut model) = PLAIN.based(&path, 300, 900, &FAST());
        let (index, _) = PLAIN.rebuild(&collection, &path, 900);
        collection.write(step(&PLAIN, &mut model, 2, (0..420).step_by(3))).unwrap();
        // Said to hold what was written after it was built.
        collection.promote(&index, collection.stats().sequence, Previous::Keep).unwrap();
        if rebuilt {
            PLAIN.rebase(&collection, &path, 900);
        } else {
            merge_all(&collection, &MergeLimits::default());
        }
        assert_eq!(collection.stats().delta_points - collection.stats().delta_dead, 0);
        collection.rollback().unwrap();
        PLAIN.holds(&collection, &model, "back");
    }
}

#[test]
fn the_kept_base_is_not_promoted_again_and_old_exports_do_not_undo_the_way_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let (collection, model) = PLAIN.based(&path, 300, 700, &FAST());
    let (index, sequence) = PLAIN.rebuild(&collection, &path, 700);
    let (copy, other) = (directory.path().join("copy"), directory.path().join("other"));
    let status = std::process::Command::new("cp").arg("-r").args([&index, &copy]).status().unwrap();
    assert!(status.success());
    collection.promote(&index, sequence, Previous::Keep).unwrap();
    let (index, sequence) = PLAIN.rebuild(&collection, &path, 701);
    collection.promote(&index, sequence, Previous::Keep).unwrap();
    for previous in [Previous::Keep, Previous::Remove] {
        let error = collection.promote(&copy, sequence, previous).unwrap_err();
        assert!(error.to_string().contains("which is kept") && copy.exists() && bases(&path) == 2, "{error}");
    }
    // Exported from the base that goes.
    let of = collection.base_generation();
    let (index, exported) = PLAIN.rebuild(&collection, &path, 702);
    std::fs::rename(index, &other).unwrap();
    collection.rollback().unwrap();
    let error = collection.replace(&other, exported, of).unwrap_err();
    assert!(matches!(error, CollectionError::Rejected { .. }) && other.exists(), "{error}");
    let error = collection.promote(&other, exported, Previous::Keep).unwrap_err();
    assert!(error.to_string().contains("the base holds batch"), "{error}");
    let now = collection.stats().sequence;
    let error = collection.replace(&other, now, of).unwrap_err();
    assert!(error.to_string().contains("another has replaced"), "{error}");
    PLAIN.holds(&collection, &model, "as it was");
}
