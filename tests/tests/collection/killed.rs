//! kill -9 at any moment: what was acknowledged is there, and of what was not, whole batches or nothing. `ROXANNE_KILLS` sets how often, here and
//! beside merges (`merging`).

use super::*;
use std::io::{BufRead, BufReader};

/// Where the child finds its collection.
const PATH: &str = "ROXANNE_KILLED_COLLECTION";
/// Keys of one batch: each holds the number of the batch that wrote it last.
const KEYS: u64 = 5;

/// Not a test of its own: the process that is killed. Batch i writes i to all keys of its group, and deletes those of the group after it, which is the oldest.
#[test]
fn child() {
    let Ok(path) = std::env::var(PATH) else { return };
    let collection = reopen(Path::new(&path), &CollectionOptions::default());
    let first = collection.stats().sequence + 1;
    for batch in first.. {
        let group = |batch: u64| (0..KEYS).map(move |key| batch % 3 * KEYS + key);
        let mut changes: Vec<Change> = group(batch).map(|key| upsert(key, &[batch as f32])).collect();
        changes.extend(group(batch + 1).map(delete));
        let written = collection.write(changes).unwrap();
        assert_eq!(written.sequence, batch);
        println!("ack {batch}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_no_batch_is_half() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    drop(Collection::create(&path, &config(1, Metric::L2, ElementType::F32, KeyKind::Numbers), &CollectionOptions::default()).unwrap());
    let rng = CounterRng::new(1);
    for round in 0..rounds("ROXANNE_KILLS", 12) {
        let mut child = super::child("killed::child", PATH, &path);
        let acks = rng.below(round, 60);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut acked = lines.filter_map(|line| super::acked(&line));
        let mut last = acked.by_ref().nth(acks as usize).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        last = acked.last().unwrap_or(last);
        let collection = reopen(&path, &FAST());
        let sequence = collection.stats().sequence;
        assert!(sequence == last || sequence == last + 1, "round {round}: {last} acknowledged, {sequence} there");
        // What the last batch that is there left: its own group and the one before it; the third is deleted.
        for key in 0..3 * KEYS {
            let expected = match (sequence + 3 - key / KEYS) % 3 {
                2 => None,
                age => Some(sequence - age),
            };
            let got = collection.get(&PointKey::Number(key)).unwrap().map(|point| point.vector[0] as u64);
            assert_eq!(got, expected.filter(|&batch| batch > 0), "round {round} key {key} after {sequence}");
        }
    }
}
