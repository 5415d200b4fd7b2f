//! Writing: batches that arrive together share one synced write of the store, each whole or not at all.

use super::{
    Change, CollectionError, Inner, MAX_PAYLOAD_BYTES, Point, PointKey, Snapshot, VectorError,
    delta::{Delta, MAX_SLOTS, Slot},
    io, locked,
    store::{Batch, NO_NODE},
};
use crate::{
    Index,
    bits::{Bits, Hidden},
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Changes that one write of the store carries at most, where more batches wait.
const GROUP_CHANGES: usize = 8192;

/// A batch of puts waits where memory is filled to this share, ...
const WAIT_FROM: f64 = 0.5;
/// ... and so long where it is full.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// What a batch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Its number; every batch has the next one.
    pub sequence: u64,
    /// Points put.
    pub put: u64,
    /// Points removed; keys that were not there do not count.
    pub deleted: u64,
}

/// A change that was checked as far as it can be without looking at the collection.
pub(super) enum Prepared {
    Put { key: PointKey, row: Box<[u8]>, payload: String, must_be_new: bool },
    Delete(PointKey),
}

impl Prepared {
    fn key(&self) -> &PointKey {
        match self {
            Prepared::Put { key, .. } | Prepared::Delete(key) => key,
        }
    }
}

/// Batches that wait for the next write of the store.
#[derive(Default)]
pub(super) struct Group {
    waiting: Mutex<Waiting>,
    ended: Condvar,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<(u64, Vec<Prepared>)>,
    next_ticket: u64,
    outcomes: HashMap<u64, Result<Written, CollectionError>>,
    /// One of those who wait is writing for all.
    writing: bool,
}

/// What only a writer sees. Ahead of the published snapshot while a batch is on its way to the disk.
pub(super) struct Writer {
    pub(super) sequence: u64,
    pub(super) base: Option<Index>,
    /// The last batch that the base holds.
    pub(super) base_sequence: u64,
    /// The last merge into the base.
    pub(super) merged: u64,
    /// Nodes of the base.
    pub(super) base_n: u64,
    pub(super) base_dead: Bits,
    /// The dead that are still linked and can be taken out.
    pub(super) gone: BTreeSet<u32>,
    /// Slots of the base without a node.
    pub(super) free: BTreeSet<u32>,
    /// Nodes that searches begin at, which stay in the graph when they die; in order.
    entries: Arc<[u32]>,
    pub(super) delta: Arc<Delta>,
    pub(super) len: u32,
    pub(super) delta_dead: Bits,
    pub(super) delta_bytes: u64,
    /// The live slot of each key that has one.
    pub(super) slots: HashMap<PointKey, u32>,
    /// The error after which nothing more is written.
    poisoned: Option<String>,
    /// Of one that follows: what it was to take was broken off, and this is neither what it was nor what it shall be.
    pub(super) is_torn: bool,
}

impl Writer {
    /// Nothing but a base, which holds all up to batch `base_sequence`.
    pub(super) fn new(sequence: u64, base: Option<Index>, base_sequence: u64, delta: Arc<Delta>) -> Writer {
        let (base_n, entries) = base.as_ref().map_or((0, Vec::new()), |base| (base.nodes(), base.entries()));
        Writer {
            sequence,
            base,
            base_sequence,
            merged: 0,
            base_n,
            base_dead: Bits::default(),
            gone: BTreeSet::new(),
            free: BTreeSet::new(),
            entries: entries.into(),
            delta,
            len: 0,
            delta_dead: Bits::default(),
            delta_bytes: 0,
            slots: HashMap::new(),
            poisoned: None,
            is_torn: false,
        }
    }

    /// Refuses to write after a write that failed.
    pub(super) fn check(&self, path: &Path) -> Result<(), CollectionError> {
        match &self.poisoned {
            Some(cause) => Err(CollectionError::Poisoned { path: path.to_path_buf(), cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// A write failed: what the disk has is not known.
    pub(super) fn poison(&mut self, cause: String) {
        self.poisoned = Some(cause);
    }

    /// The same, of a write of which nobody knows whether it is there.
    pub(super) fn outcome_unknown(&mut self, path: &Path, error: &rocksdb::Error) -> CollectionError {
        self.poison(error.to_string());
        CollectionError::WriteOutcomeUnknown { path: path.to_path_buf(), detail: error.to_string() }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            sequence: self.sequence,
            base: self.base.clone(),
            merged: self.merged,
            hidden: Hidden {
                dead: Arc::new(self.base_dead.clone()),
                linked: self.base_dead.len() - self.free.len() as u64,
                from: self.base_n,
            },
            gone: self.gone.len() as u64,
            delta: Arc::clone(&self.delta),
            len: self.len,
            delta_dead: Arc::new(self.delta_dead.clone()),
            delta_bytes: self.delta_bytes,
        }
    }

    /// A node of the base, if it is one, is found no more.
    pub(super) fn stay_away(&mut self, node: u32) {
        if node != NO_NODE {
            self.kill(node);
        }
    }

    /// The same; false where it was dead.
    fn kill(&mut self, node: u32) -> bool {
        let lived = self.base_dead.insert(node);
        if lived && self.entries.binary_search(&node).is_err() {
            self.gone.insert(node);
        }
        lived
    }

    /// A slot of the base has no node.
    pub(super) fn vacate(&mut self, node: u32) {
        self.base_dead.insert(node);
        self.gone.remove(&node);
        self.free.insert(node);
    }

    /// A node came into a slot of the base.
    pub(super) fn occupy(&mut self, node: u32) {
        self.free.remove(&node);
        self.base_dead.remove(node);
    }

    /// A node of the base that was dead is the point of its key after all.
    pub(super) fn come_back(&mut self, node: u32) {
        if !self.free.contains(&node) {
            self.base_dead.remove(node);
            self.gone.remove(&node);
        }
    }

    /// Puts a point into the next slot; the one that held its key, and the node of the base, are dead.
    pub(super) fn append(&mut self, key: PointKey, row: Box<[u8]>, node: u32) {
        self.append_slot(Arc::new(Slot { key, row, node }));
    }

    pub(super) fn append_slot(&mut self, slot: Arc<Slot>) {
        self.stay_away(slot.node);
        if let Some(old) = self.slots.insert(slot.key.clone(), self.len) {
            self.delta_dead.insert(old);
        }
        self.delta_bytes += slot.bytes();
        self.delta.set(self.len, slot);
        self.len += 1;
    }

    /// Goes on in `fresh`, which holds in its first `len` slots what lived of the delta at some time: `places[old slot]` is where.
    pub(super) fn move_to(&mut self, fresh: Arc<Delta>, len: u32, places: &[u32]) {
        let old = std::mem::replace(&mut self.delta, fresh);
        let (old_len, old_dead) = (std::mem::replace(&mut self.len, len), std::mem::take(&mut self.delta_dead));
        self.delta_bytes = (0..len).map(|slot| self.delta.slot(slot).bytes()).sum();
        for (slot, &place) in (0..).zip(places).filter(|(_, place)| **place != u32::MAX) {
            if old_dead.contains(slot) {
                self.delta_dead.insert(place);
            } else if let Some(known) = self.slots.get_mut(&old.slot(slot).key) {
                *known = place;
            }
        }
        for slot in (places.len() as u32..old_len).filter(|&slot| !old_dead.contains(slot)) {
            // Its key's place is its own, so no other slot dies of it.
            self.slots.remove(&old.slot(slot).key);
            self.append_slot(Arc::clone(old.slot(slot)));
        }
    }

    /// Removes a point, and the node of the base that holds it or was replaced by it; whether there was a point.
    fn remove(&mut self, key: &PointKey, node: u32) -> bool {
        let was_in_base = node != NO_NODE && self.kill(node);
        match self.slots.remove(key) {
            Some(slot) => self.delta_dead.insert(slot),
            None => was_in_base,
        }
    }
}

impl Inner {
    /// Proves all that can be proven of a batch before anybody waits for it.
    pub(super) fn prepare(&self, changes: Vec<Change>) -> Result<Vec<Prepared>, CollectionError> {
        let kind = self.config.keys;
        let mut places = HashMap::with_capacity(changes.len());
        let mut prepared = Vec::with_capacity(changes.len());
        for (at, change) in changes.into_iter().enumerate() {
            let change = match change {
                Change::Delete(key) => Prepared::Delete(key),
                Change::Upsert(point) => self.prepare_put(at, point, false)?,
                Change::Insert(point) => self.prepare_put(at, point, true)?,
            };
            let key = change.key();
            if key.kind() != kind {
                return Err(CollectionError::KeyKind { at, key: key.clone(), kind });
            }
            if let PointKey::Text(text) = key {
                kind.parse(text)?;
            }
            if let Some(first) = places.insert(key.clone(), at) {
                return Err(CollectionError::DuplicateKey { first, second: at, key: key.clone() });
            }
            prepared.push(change);
        }
        Ok(prepared)
    }

    fn prepare_put(&self, at: usize, point: Point, must_be_new: bool) -> Result<Prepared, CollectionError> {
        let row = self.config.row(&point.vector).map_err(|error: VectorError| CollectionError::Vector { at, error })?;
        if point.payload.len() > MAX_PAYLOAD_BYTES {
            let detail = format!("{} bytes, at most {MAX_PAYLOAD_BYTES} are kept", point.payload.len());
            return Err(CollectionError::Payload { at, detail });
        }
        if !point.payload.is_empty() {
            let object: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(&point.payload);
            object.map_err(|error| CollectionError::Payload { at, detail: format!("no JSON object: {error}") })?;
        }
        Ok(Prepared::Put { key: point.key, row, payload: point.payload, must_be_new })
    }

    /// Proves that the disk has room for points; and who puts them waits a little when much waits already in memory to be merged.
    pub(super) fn make_way(&self) -> Result<(), CollectionError> {
        let reserve = self.options.disk_reserve;
        if reserve > 0 {
            let free = self.disk_free()?;
            if free < reserve {
                return Err(CollectionError::DiskFull { path: self.path.clone(), free, reserve });
            }
        }
        if self.options.merges {
            let full = self.snapshot.load().delta_bytes as f64 / self.options.delta_bytes.max(1) as f64;
            if full > WAIT_FROM {
                thread::sleep(LONGEST_WAIT.mul_f64(((full - WAIT_FROM) / (1.0 - WAIT_FROM)).min(1.0)));
            }
        }
        Ok(())
    }

    /// Bytes of the disk that are free.
    pub(super) fn disk_free(&self) -> Result<u64, CollectionError> {
        let disk = rustix::fs::statvfs(&self.path).map_err(|error| io(&self.path)(error.into()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Queues a batch and waits for its outcome, writing for all that wait when nobody does.
    pub(super) fn commit(&self, batch: Vec<Prepared>) -> Result<Written, CollectionError> {
        let mut waiting = locked(&self.group.waiting);
        let ticket = waiting.next_ticket;
        waiting.next_ticket += 1;
        waiting.batches.push_back((ticket, batch));
        loop {
            if let Some(outcome) = waiting.outcomes.remove(&ticket) {
                return outcome;
            }
            if waiting.writing {
                waiting = self.group.ended.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            waiting.writing = true;
            let (mut tickets, mut batches, mut changes) = (Vec::new(), Vec::new(), 0);
            while let Some((ticket, batch)) = waiting.batches.pop_front() {
                changes += batch.len();
                tickets.push(ticket);
                batches.push(batch);
                if changes >= GROUP_CHANGES {
                    break;
                }
            }
            drop(waiting);
            let outcomes = self.write_group(batches);
            waiting = locked(&self.group.waiting);
            waiting.writing = false;
            waiting.outcomes.extend(tickets.into_iter().zip(outcomes));
            self.group.ended.notify_all();
        }
    }

    /// One write of the store for all `batches`; then all are published.
    fn write_group(&self, batches: Vec<Vec<Prepared>>) -> Vec<Result<Written, CollectionError>> {
        let mut writer = locked(&self.writer);
        let mut batch = Batch::default();
        let before = writer.sequence;
        let mut outcomes: Vec<_> = batches.into_iter().map(|changes| self.apply(&mut writer, &mut batch, changes)).collect();
        if writer.sequence == before {
            return outcomes;
        }
        self.store.put_sequence(&mut batch, writer.sequence);
        if let Err(error) = self.store.commit(batch) {
            let detail = error.to_string();
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                *outcome = Err(CollectionError::WriteOutcomeUnknown { path: self.path.clone(), detail: detail.clone() });
            }
            writer.poison(detail);
            return outcomes;
        }
        self.publish(&writer);
        drop(writer);
        self.keeper.wake();
        outcomes
    }

    /// Brings one batch into the writer's own state and the store's batch, wholly or not at all.
    fn apply(&self, writer: &mut Writer, batch: &mut Batch, changes: Vec<Prepared>) -> Result<Written, CollectionError> {
        writer.check(&self.path)?;
        if changes.is_empty() {
            return Ok(Written { sequence: writer.sequence, ..Written::default() });
        }
        let mut before = Vec::with_capacity(changes.len());
        let mut bytes = writer.delta_bytes;
        for (at, change) in changes.iter().enumerate() {
            let slot = writer.slots.get(change.key()).copied();
            let node = match slot {
                Some(slot) => writer.delta.slot(slot).node,
                None => self.store.node_in(writer.base.as_ref(), change.key())?.unwrap_or(NO_NODE),
            };
            if let Prepared::Put { key, row, must_be_new, .. } = change {
                let is_there = slot.is_some() || (node != NO_NODE && !writer.base_dead.contains(node));
                if *must_be_new && is_there {
                    return Err(CollectionError::KeyExists { at, key: key.clone() });
                }
                // The same vector again needs no other slot.
                if slot.is_none_or(|slot| writer.delta.slot(slot).row != *row) {
                    bytes += Slot { key: key.clone(), row: row.clone(), node }.bytes();
                }
            }
            before.push((node, self.store.payload_before(batch, &change.key().to_bytes())?));
        }
        let puts = changes.iter().filter(|change| matches!(change, Prepared::Put { .. })).count() as u64;
        if puts > 0 && (bytes > self.options.delta_bytes || u64::from(writer.len) + puts > MAX_SLOTS) {
            return Err(CollectionError::DeltaFull { bytes, allowed: self.options.delta_bytes });
        }
        let mut written = Written { sequence: writer.sequence + 1, ..Written::default() };
        let keys: Vec<Vec<u8>> = changes.iter().map(|change| change.key().to_bytes()).collect();
        self.store.put_changes(batch, written.sequence, keys.iter().map(Vec::as_slice));
        for (change, (node, old)) in changes.into_iter().zip(before) {
            let key_bytes = change.key().to_bytes();
            match change {
                Prepared::Put { key, row, payload, .. } => {
                    self.store.put_point(batch, &key_bytes, written.sequence, &old, &payload, node, &row);
                    self.store.forget_deleted(batch, &key_bytes);
                    // The same vector again, with another payload, needs no other slot.
                    let same = writer.slots.get(&key).is_some_and(|&slot| writer.delta.slot(slot).row == row);
                    if !same {
                        writer.append(key, row, node);
                    }
                    written.put += 1;
                }
                Prepared::Delete(key) => {
                    // Where there was none too: a base that is being built may hold it.
                    self.store.delete_point(batch, &key_bytes, written.sequence, &old, node);
                    written.deleted += u64::from(writer.remove(&key, node));
                }
            }
        }
        writer.sequence = written.sequence;
        Ok(written)
    }
}
