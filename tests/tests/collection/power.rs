//! Power is lost at every step of a merge, and the disk fails at every step: nothing that was acknowledged is lost, nothing comes back.
//!
//! A merge changes no point, so whatever it is cut off in, the collection must hold what it held. The disk of `Recorder` writes down everything that
//! the merge does to files; a state that a loss of power may leave is then made of the steps before it: what was synced is there, of what was not any
//! part may be, sectors torn. RocksDB's own files are as they were when its last batch was synced. `ROXANNE_STATES` sets how many states are tried.

use super::{
    merge::{Kind, Model, PLAIN, merge_all, step},
    *,
};
use roxanne_engine::{
    collection::MergeLimits,
    disk::{Disk, FileDisk},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Error},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// One step, as the disk saw it.
#[derive(Clone, Debug)]
enum Event {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Grow(PathBuf, u64),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDirectory,
    Committed,
}

/// A disk that does as it is told and writes everything down; and the store's files as of the last commit.
#[derive(Default)]
struct Recorder {
    disk: FileDisk,
    events: Mutex<Vec<Event>>,
    store: PathBuf,
    committed: PathBuf,
}

impl Recorder {
    fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

impl Disk for Recorder {
    fn create(&self, path: &Path) -> io::Result<()> {
        self.note(Event::Create(path.into()));
        self.disk.create(path)
    }
    fn write(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.note(Event::Write(path.into(), offset, bytes.to_vec()));
        self.disk.write(path, offset, bytes)
    }
    fn grow(&self, path: &Path, bytes: u64) -> io::Result<()> {
        self.note(Event::Grow(path.into(), bytes));
        self.disk.grow(path, bytes)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.note(Event::Sync(path.into()));
        self.disk.sync(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Event::Rename(from.into(), to.into()));
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        if path.exists() {
            self.note(Event::Remove(path.into()));
        }
        self.disk.remove(path)
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.note(Event::SyncDirectory);
        self.disk.sync_directory(path)
    }
    fn committed(&self) {
        self.note(Event::Committed);
        copy(&self.store, &self.committed);
    }
}

/// Copies a directory and all in it, in the place of what is there.
pub(super) fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A file as the device may have it: what is durable, and writes that are not yet.
#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    Grow(u64),
}

fn apply(bytes: &mut Vec<u8>, pending: &Pending) {
    match pending {
        Pending::Write(offset, new) => {
            let end = *offset as usize + new.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[*offset as usize..end].copy_from_slice(new);
        }
        Pending::Grow(length) => bytes.resize(bytes.len().max(*length as usize), 0),
    }
}

/// The files of a base while steps are taken: inodes, names that programs see, and names that are durable.
#[derive(Clone)]
struct Device {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    committed: bool,
}

impl Device {
    fn of(directory: &Path) -> Device {
        let (mut inodes, mut names) = (Vec::new(), BTreeMap::new());
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            names.insert(path.clone(), inodes.len());
            inodes.push(Inode { durable: fs::read(path).unwrap(), pending: Vec::new() });
        }
        Device { inodes, durable_names: names.clone(), names, committed: false }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Create(path) => {
                self.names.insert(path.clone(), self.inodes.len());
                self.inodes.push(Inode::default());
            }
            Event::Write(path, offset, bytes) => self.inodes[self.names[path]].pending.push(Pending::Write(*offset, bytes.clone())),
            Event::Grow(path, length) => self.inodes[self.names[path]].pending.push(Pending::Grow(*length)),
            Event::Sync(path) => {
                let inode = &mut self.inodes[self.names[path]];
                let Inode { durable, pending } = inode;
                pending.drain(..).for_each(|one| apply(durable, &one));
            }
            Event::Rename(from, to) => {
                let inode = self.names.remove(from).unwrap();
                self.names.insert(to.clone(), inode);
            }
            Event::Remove(path) => drop(self.names.remove(path)),
            Event::SyncDirectory => self.durable_names = self.names.clone(),
            Event::Committed => self.committed = true,
        }
    }

    /// Writes a state that a loss of power now may leave: `draw(n)` is a number below n.
    fn materialize(&self, directory: &Path, draw: &mut dyn FnMut(u64) -> u64) {
        fs::create_dir_all(directory).unwrap();
        let names = if draw(2) == 0 { &self.names } else { &self.durable_names };
        // All that is pending is lost, or all is there, or each is there or not, or torn within a sector of 512 bytes.
        let mood = draw(4);
        for (path, &inode) in names {
            let Inode { durable, pending } = &self.inodes[inode];
            let mut bytes = durable.clone();
            let prefix = draw(pending.len() as u64 + 1) as usize;
            for (at, one) in pending.iter().enumerate() {
                match (mood, one) {
                    (0, _) => {}
                    (1, _) => apply(&mut bytes, one),
                    (2, _) if at < prefix => apply(&mut bytes, one),
                    (3, Pending::Write(offset, new)) => {
                        let torn = draw(new.len() as u64 / 512 + 1) as usize * 512;
                        let tail = draw(2) == 0;
                        let part = if tail { &new[torn.min(new.len())..] } else { &new[..torn.min(new.len())] };
                        let offset = offset + if tail { torn.min(new.len()) as u64 } else { 0 };
                        apply(&mut bytes, &Pending::Write(offset, part.to_vec()));
                    }
                    (3, Pending::Grow(_)) if draw(2) == 0 => apply(&mut bytes, one),
                    _ => {}
                }
            }
            fs::write(directory.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }
}

/// A merge that was written down: where everything stood before it, and its steps.
struct Recorded {
    directory: tempfile::TempDir,
    kind: Kind,
    model: Model,
    device: Device,
    events: Vec<Event>,
    base: String,
}

impl Recorded {
    /// A collection, changed, partly merged, changed again; then one merge, recorded.
    fn new(seed: u64) -> Recorded {
        // Few nodes a page, so that there are many pages.
        let kind = Kind { dim: 64, ..PLAIN };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c");
        let (collection, mut model) = kind.based(&path, 300, 600, &FAST());
        collection.write(step(&kind, &mut model, seed, (0..360).step_by(4))).unwrap();
        merge_all(&collection, &MergeLimits::default());
        collection.write(step(&kind, &mut model, seed + 1, (0..420).step_by(2))).unwrap();
        drop(collection);
        let recorder = Arc::new(Recorder { store: path.join("store"), committed: directory.path().join("after"), ..Recorder::default() });
        let disk: Arc<dyn Disk> = recorder.clone();
        let collection = reopen(&path, &CollectionOptions { disk, merges: false, ..CollectionOptions::default() });
        let base = base_of(&path);
        copy(&path.join("store"), &directory.path().join("before"));
        let device = Device::of(&path.join(&base));
        let report = collection.merge(&MergeLimits { inserts: 80, removals: 40, threads: 2 }).unwrap();
        assert!(report.inserted == 80 && report.removed == 40, "{report:?}");
        drop(collection);
        let events = std::mem::take(&mut *recorder.events.lock().unwrap());
        Recorded { directory, kind, model, device, events, base }
    }

    /// Where power may be lost: after every step, with fewer of the many writes.
    fn moments(&self) -> Vec<usize> {
        let plain = |event: &Event| matches!(event, Event::Write(..));
        (0..=self.events.len()).filter(|&at| at % 5 == 0 || at == self.events.len() || !plain(&self.events[at])).collect()
    }

    /// The collection as a loss of power after `at` of `events` may leave it, in the directory `place`.
    fn lose_power(&self, events: &[Event], at: usize, place: &Path, draw: &mut dyn FnMut(u64) -> u64) {
        let mut device = self.device.clone();
        events[..at].iter().for_each(|event| device.take(event));
        let _ = fs::remove_dir_all(place);
        let store = if device.committed { "after" } else { "before" };
        copy(&self.directory.path().join(store), &place.join("store"));
        device.materialize(&place.join(&self.base), draw);
    }

    /// Opens what was left; in words what is wrong with it.
    fn check(&self, place: &Path, deeply: bool) -> Result<(), String> {
        let told = |error: CollectionError| error.to_string();
        let collection = Collection::open(place, &FAST()).map_err(told)?;
        let wrong = |collection: &Collection| -> Result<(), String> {
            for (key, vector) in &self.model {
                let got = collection.get(key).map_err(told)?.map(|point| point.vector);
                if got.as_ref() != Some(vector) {
                    return Err(format!("key {key} is {got:?}"));
                }
            }
            let (origin, n) = (vec![1.0; self.kind.dim], self.model.len());
            let params = roxanne_engine::SearchParams { k: n + 10, list_size: 2 * n, ..roxanne_engine::SearchParams::DEFAULT };
            for hits in [collection.exact(&origin, n + 10).map_err(told)?.hits, collection.search(&origin, &params).map_err(told)?.hits] {
                let keys: BTreeSet<&PointKey> = hits.iter().map(|hit| &hit.key).collect();
                if hits.len() != n || !keys.into_iter().eq(self.model.keys()) {
                    return Err(format!("{} hits of {n}", hits.len()));
                }
            }
            Ok(())
        };
        wrong(&collection)?;
        collection.verify(&mut |_, _| ()).map_err(told)?;
        if deeply {
            while {
                let report = collection.merge(&MergeLimits::default()).map_err(told)?;
                report.inserted + report.removed > 0
            } {}
            wrong(&collection)?;
        }
        Ok(())
    }
}

fn base_of(path: &Path) -> String {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.into_iter().find(|name| name.starts_with("base-")).unwrap()
}

#[test]
fn whatever_a_loss_of_power_leaves_of_a_merge_holds_what_was_there() {
    let recorded = Recorded::new(11);
    let moments = recorded.moments();
    let place = recorded.directory.path().join("state");
    for state in 0..rounds("ROXANNE_STATES", 240) {
        let rng = CounterRng::new(state);
        let mut drawn = 0;
        let mut draw = |below: u64| {
            drawn += 1;
            rng.below(drawn, below)
        };
        let at = moments[state as usize % moments.len()];
        recorded.lose_power(&recorded.events, at, &place, &mut draw);
        if let Err(wrong) = recorded.check(&place, state % 8 == 0) {
            panic!("state {state}, after {at} of {} steps: {wrong}", recorded.events.len());
        }
    }
}

#[test]
fn power_may_be_lost_again_while_a_merge_is_finished() {
    let recorded = Recorded::new(5);
    let redo_is_there = recorded.events.iter().position(|event| matches!(event, Event::SyncDirectory)).unwrap() + 1;
    let (place, again) = (recorded.directory.path().join("state"), recorded.directory.path().join("again"));
    let mut all_there = |_: u64| 1;
    for at in (redo_is_there..recorded.events.len()).step_by(3) {
        recorded.lose_power(&recorded.events, at, &place, &mut all_there);
        let recorder =
            Arc::new(Recorder { store: place.join("store"), committed: recorded.directory.path().join("after2"), ..Recorder::default() });
        copy(&place.join("store"), &recorded.directory.path().join("before2"));
        let device = Device::of(&place.join(&recorded.base));
        let disk: Arc<dyn Disk> = recorder.clone();
        drop(Collection::open(&place, &CollectionOptions { disk, ..FAST() }).unwrap());
        let events = std::mem::take(&mut *recorder.events.lock().unwrap());
        for cut in 0..=events.len() {
            let rng = CounterRng::new((at * 1000 + cut) as u64);
            let mut drawn = 0;
            let mut device = device.clone();
            events[..cut].iter().for_each(|event| device.take(event));
            let _ = fs::remove_dir_all(&again);
            let store = if device.committed { "after2" } else { "before2" };
            copy(&recorded.directory.path().join(store), &again.join("store"));
            device.materialize(&again.join(&recorded.base), &mut |below| {
                drawn += 1;
                rng.below(drawn, below)
            });
            if let Err(wrong) = recorded.check(&again, false) {
                panic!("after {at} steps and {cut} of {} of the recovery: {wrong}", events.len());
            }
        }
    }
}

/// A bug in the order of steps, as the steps would then be; `None` where there is no such step.
type Bug = (&'static str, fn(&[Event]) -> Vec<Event>);

const BUGS: [Bug; 12] = [
    ("the redo file is not synced", |events| without(events, |event| matches!(event, Event::Sync(path) if path.ends_with("redo.tmp")))),
    ("the redo file's name is not synced", |events| without(events, |event| matches!(event, Event::SyncDirectory))),
    ("the pages are not synced", |events| {
        without_after_redo(events, |event| matches!(event, Event::Sync(path) if path.ends_with("graph.rx")))
    }),
    ("the codes are not synced", |events| {
        without_after_redo(events, |event| matches!(event, Event::Sync(path) if path.ends_with("codes.rx")))
    }),
    ("the redo file goes before the store knows", |events| {
        let mut events = without(events, |event| matches!(event, Event::Remove(_)));
        let at = events.iter().position(|event| matches!(event, Event::Committed)).unwrap();
        let redo = events.iter().find_map(|event| if let Event::Rename(_, to) = event { Some(to.clone()) } else { None }).unwrap();
        events.insert(at, Event::Remove(redo));
        events.insert(at + 1, Event::SyncDirectory);
        events
    }),
    ("pages are written before the redo file", |events| {
        let is_page = |event: &Event| matches!(event, Event::Write(path, ..) if path.ends_with("graph.rx"));
        let pages: Vec<Event> = events.iter().filter(|event| is_page(event)).cloned().collect();
        pages.into_iter().chain(without(events, is_page)).collect()
    }),
    ("the store knows before the pages are there", |events| {
        let mut events = without(events, |event| matches!(event, Event::Committed));
        let redo = events.iter().position(|event| matches!(event, Event::Rename(..))).unwrap();
        events.insert(redo + 2, Event::Committed);
        events
    }),
    ("the redo file gets its name before it is whole", |events| {
        let is_name = |event: &Event| matches!(event, Event::Rename(..));
        let (name, first) = (events.iter().find(|event| is_name(event)).unwrap().clone(), redo_begins(events));
        let mut events = without(events, is_name);
        let Event::Rename(partial, whole) = &name else { unreachable!("it is one") };
        let to_whole = |path: &PathBuf| if path == partial { whole.clone() } else { path.clone() };
        for event in &mut events[first + 1..] {
            *event = match &*event {
                Event::Write(path, at, bytes) => Event::Write(to_whole(path), *at, bytes.clone()),
                Event::Sync(path) => Event::Sync(to_whole(path)),
                other => other.clone(),
            };
        }
        events.insert(first + 1, name);
        events.insert(first + 2, Event::SyncDirectory);
        events
    }),
    ("the superblock is not written", |events| {
        without_after_redo(events, |event| matches!(event, Event::Write(path, at, _) if path.ends_with("graph.rx") && *at < 8192))
    }),
    ("the codes are not written", |events| {
        without_after_redo(events, |event| matches!(event, Event::Write(path, ..) if path.ends_with("codes.rx")))
    }),
    ("one run of pages is forgotten", |events| {
        let is_page = |event: &Event| matches!(event, Event::Write(path, at, _) if path.ends_with("graph.rx") && *at >= 8192);
        let pages = events.iter().filter(|event| is_page(event)).count();
        let mut page = 0;
        without(events, |event| {
            page += usize::from(is_page(event));
            is_page(event) && page == pages / 2
        })
    }),
    ("pages land beside their places", |events| {
        let moved = |event: &Event| match event {
            Event::Write(path, at, bytes) if path.ends_with("graph.rx") && *at >= 8192 => {
                Event::Write(path.clone(), at + 4096, bytes.clone())
            }
            other => other.clone(),
        };
        events.iter().map(moved).collect()
    }),
];

/// Where the redo file is begun.
fn redo_begins(events: &[Event]) -> usize {
    events.iter().position(|event| matches!(event, Event::Create(path) if path.ends_with("redo.tmp"))).unwrap()
}

fn without(events: &[Event], mut which: impl FnMut(&Event) -> bool) -> Vec<Event> {
    events.iter().filter(|event| !which(event)).cloned().collect()
}

fn without_after_redo(events: &[Event], which: impl Fn(&Event) -> bool) -> Vec<Event> {
    let redo = events.iter().position(|event| matches!(event, Event::Rename(..))).unwrap();
    events.iter().enumerate().filter(|(at, event)| *at < redo || !which(event)).map(|(_, event)| event.clone()).collect()
}

/// The harness would find these.
#[test]
fn steps_in_a_wrong_order_are_found() {
    let recorded = Recorded::new(11);
    let place = recorded.directory.path().join("state");
    for (name, plant) in BUGS {
        let events = plant(&recorded.events);
        assert_ne!(events.len(), 0);
        let found = (0..400u64).any(|state| {
            let rng = CounterRng::new(state ^ 77);
            let mut drawn = 0;
            let at = rng.below(0, events.len() as u64 + 1) as usize;
            recorded.lose_power(&events, at, &place, &mut |below| {
                drawn += 1;
                rng.below(drawn, below)
            });
            recorded.check(&place, false).is_err()
        });
        assert!(found, "{name}: no state showed it");
    }
}

/// A disk whose step number `fails` does not succeed, nor, if it is for ever, any after it.
struct Failing {
    disk: FileDisk,
    steps: AtomicU64,
    fails: u64,
    for_ever: bool,
    errno: i32,
}

impl Failing {
    fn step(&self) -> io::Result<()> {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        let fails = step == self.fails || (self.for_ever && step > self.fails);
        if fails { Err(Error::from_raw_os_error(self.errno)) } else { Ok(()) }
    }
}

impl Disk for Failing {
    fn create(&self, path: &Path) -> io::Result<()> {
        self.step().and_then(|()| self.disk.create(path))
    }
    fn write(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.step().inspect_err(|_| drop(self.disk.write(path, offset, &bytes[..bytes.len() / 2])))?;
        self.disk.write(path, offset, bytes)
    }
    fn grow(&self, path: &Path, bytes: u64) -> io::Result<()> {
        self.step().and_then(|()| self.disk.grow(path, bytes))
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.step().and_then(|()| self.disk.sync(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step().and_then(|()| self.disk.rename(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step().and_then(|()| self.disk.remove(path))
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.step().and_then(|()| self.disk.sync_directory(path))
    }
}

#[test]
fn a_disk_that_fails_at_any_step_loses_nothing() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    let kind = PLAIN;
    let directory = tempfile::tempdir().unwrap();
    let (origin, path) = (directory.path().join("origin"), directory.path().join("c"));
    let (collection, mut model) = kind.based(&origin, 300, 600, &FAST());
    collection.write(step(&kind, &mut model, 9, (0..400).step_by(4))).unwrap();
    drop(collection);
    for (for_ever, errno) in [(false, EIO), (true, EIO), (true, ENOSPC)] {
        for fails in 0.. {
            copy(&origin, &path);
            let told = format!("step {fails}, for ever {for_ever}, error {errno}");
            let disk = Arc::new(Failing { disk: FileDisk::default(), steps: AtomicU64::new(0), fails: fails + 1, for_ever, errno });
            let options = CollectionOptions { disk: disk.clone(), ..FAST() };
            let collection = reopen(&path, &options);
            let outcome = collection.merge(&MergeLimits::default());
            // What is in memory is right whatever the disk did; a page that was half written may not be read.
            match collection.exact(&[1.0; 8], model.len() + 10) {
                Ok(found) => assert_eq!(found.hits.len(), model.len(), "{told}"),
                Err(error) => assert!(error.to_string().contains("graph.rx"), "{told}: {error}"),
            }
            let failed = outcome.is_err();
            drop(collection);
            let collection = reopen(&path, &FAST());
            kind.holds(&collection, &model, &told);
            merge_all(&collection, &MergeLimits::default());
            kind.holds(&collection, &model, &format!("{told}, merged"));
            drop(collection);
            if !failed {
                assert!(fails > 10, "{told}: no step failed");
                break;
            }
        }
    }
}
