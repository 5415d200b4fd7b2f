//! Copies: made while the collection changes, restored whole or not at all.

use super::{
    merge::{Model, PLAIN, merge_all, step},
    *,
};
use roxanne_engine::collection::{MergeLimits, SnapshotInfo};
use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// Every file under `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A collection with a base that was merged into, and more in memory.
fn lived(path: &Path) -> (Collection, Model) {
    let (collection, mut model) = PLAIN.based(path, 400, 1000, &FAST());
    collection.write(step(&PLAIN, &mut model, 1, (0..500).step_by(3))).unwrap();
    merge_all(&collection, &MergeLimits::default());
    collection.write(step(&PLAIN, &mut model, 2, (0..600).step_by(7))).unwrap();
    (collection, model)
}

#[test]
fn a_copy_is_of_one_moment_of_a_collection_that_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy, again) = (directory.path().join("c"), directory.path().join("copy"), directory.path().join("again"));
    let (collection, model) = lived(&path);
    assert_eq!(collection.verify(&mut |_, _| ()).unwrap().points, model.len() as u64);
    // Two keys that are always written together.
    let stop = AtomicBool::new(false);
    let info = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut value = 0;
            while !stop.load(Ordering::Relaxed) {
                value += 1;
                collection.write(vec![upsert(9001, &[value as f32; 8]), upsert(9002, &[value as f32; 8])]).unwrap();
                thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        thread::sleep(std::time::Duration::from_millis(30));
        let info = collection.snapshot(&copy);
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        info.unwrap()
    });
    assert_eq!(SnapshotInfo::check(&copy).unwrap(), info);
    assert!(matches!(collection.snapshot(&copy), Err(CollectionError::Exists { .. })));
    assert_eq!(Collection::restore(&copy, &again).unwrap(), info);
    assert!(matches!(Collection::restore(&copy, &again), Err(CollectionError::Exists { .. })));
    let restored = reopen(&again, &FAST());
    assert_eq!(restored.stats().sequence, info.sequence);
    let [one, two] = [9001, 9002].map(|key| restored.get(&PointKey::Number(key)).unwrap().unwrap().vector);
    assert_eq!(one, two);
    restored.write(vec![delete(9001), delete(9002)]).unwrap();
    PLAIN.holds(&restored, &model, "restored");
    merge_all(&restored, &MergeLimits::default());
    PLAIN.holds(&restored, &model, "restored and merged");
    assert_eq!(restored.verify(&mut |_, _| ()).unwrap().points, model.len() as u64);
}

#[test]
fn a_copy_that_was_altered_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy, again) = (directory.path().join("c"), directory.path().join("copy"), directory.path().join("again"));
    lived(&path).0.snapshot(&copy).unwrap();
    let refused = |told: &str| {
        let error = Collection::restore(&copy, &again).expect_err(told);
        assert!(matches!(error, CollectionError::Snapshot { .. }), "{told}: {error}");
        assert!(SnapshotInfo::check(&copy).is_err(), "{told}");
        let left = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("again")), "{told}");
    };
    for file in files(&copy) {
        let bytes = fs::read(&file).unwrap();
        let told = file.display().to_string();
        for at in [0, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            if let Some(byte) = bytes.get(at) {
                let mut bad = bytes.clone();
                bad[at] = byte ^ 1;
                fs::write(&file, bad).unwrap();
                refused(&format!("{told}, byte {at}"));
            }
        }
        if !bytes.is_empty() {
            fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
            refused(&format!("{told}, cut"));
        }
        fs::remove_file(&file).unwrap();
        refused(&format!("{told}, missing"));
        fs::write(&file, bytes).unwrap();
    }
    fs::write(copy.join("more"), "more").unwrap();
    refused("one file more");
    fs::remove_file(copy.join("more")).unwrap();
    fs::write(copy.join("SNAPSHOT"), "roxanne-snapshot 2\n").unwrap();
    refused("a later version");
}
