//! A collection under every way of writing to it: against a model, against bad input, from many threads, killed, and over a base.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod filters;
mod follow;
mod input;
mod killed;
mod merge;
mod merging;
mod model;
mod modes;
mod power;
mod publish;
mod rollback;
mod salvage;
mod snapshot;
mod threads;

use roxanne_core::{element::ElementType, metric::Metric, random::CounterRng};
use roxanne_engine::{
    Budget, OpenOptions,
    collection::{Change, Collection, CollectionConfig, CollectionError, CollectionOptions, Durability, KeyKind, Point, PointKey},
};
use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

/// What a machine that keeps its power has. Every other collection has memory for all pages of its base.
const FAST: fn() -> CollectionOptions = || {
    static OPENED: AtomicUsize = AtomicUsize::new(0);
    let budget = if OPENED.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { Budget::ram(1 << 30) } else { Budget::default() };
    let base = OpenOptions { budget, ..OpenOptions::default() };
    CollectionOptions { base, durability: Durability::Os, merges: false, ..CollectionOptions::default() }
};

fn config(dim: usize, metric: Metric, element: ElementType, keys: KeyKind) -> CollectionConfig {
    CollectionConfig { dim, metric, element, keys }
}

/// A collection of numbers, small and fast.
fn numbers(path: &Path, dim: usize) -> Collection {
    Collection::create(path, &config(dim, Metric::L2, ElementType::F32, KeyKind::Numbers), &FAST()).unwrap()
}

fn point(key: u64, vector: &[f32]) -> Point {
    Point { key: PointKey::Number(key), vector: vector.to_vec(), payload: String::new() }
}

fn upsert(key: u64, vector: &[f32]) -> Change {
    Change::Upsert(point(key, vector))
}

fn delete(key: u64) -> Change {
    Change::Delete(PointKey::Number(key))
}

/// Vector `i` of a set of small whole numbers, around a few centers.
fn vector(rng: CounterRng, i: u64, dim: usize) -> Vec<f32> {
    (0..dim as u64).map(|d| (rng.below(i % 53 * 131 + d, 120) + rng.below(1 << 40 | i << 10 | d, 40)) as f32).collect()
}

/// Opens again what was closed. A process that another test starts may hold the lock for the moment between its making and its program.
fn reopen(path: &Path, options: &CollectionOptions) -> Collection {
    for _ in 0..500 {
        match Collection::open(path, options) {
            Err(CollectionError::Locked { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            opened => return opened.unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        }
    }
    panic!("{}: locked for five seconds", path.display())
}

/// Runs the test `name` of this binary, which finds the collection at `path` in the variable `variable`, in a process of its own.
fn child(name: &str, variable: &str, path: &Path) -> std::process::Child {
    use std::process::{Command, Stdio};
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture", "--test-threads", "1"]).env(variable, path);
    child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The number of a batch that a child says was answered.
fn acked(line: &str) -> Option<u64> {
    line.strip_prefix("ack ").and_then(|number| number.parse().ok())
}

/// How often something is tried: a few times in every run, as often as the variable `name` says in long ones.
fn rounds(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The error of a write that must fail.
#[track_caller]
fn refused(collection: &Collection, changes: Vec<Change>) -> CollectionError {
    let before = (collection.stats().sequence, collection.count());
    let error = collection.write(changes).expect_err("it must be refused");
    assert_eq!((collection.stats().sequence, collection.count()), before, "{error}");
    error
}
