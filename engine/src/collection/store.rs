//! RocksDB: keys, payloads, and the vectors that are in no base yet. One synced batch is the only commit point of a collection.
//!
//! | family | key | value |
//! |---|---|---|
//! | `meta` | `config`, `sequence`, `base`, `replaced`, `merged`, `terms` | text; u64; `name sequence`; the name of the base before; u64, the last merge into it; there when `terms` is complete |
//! | `points` | key of every live point that was written here | sequence u64, payload |
//! | `vectors` | key of a point that is not in the base, or newer than there | node that it replaces u32, row |
//! | `deleted` | key of a point that was deleted and not put again, until a base is promoted that was begun later | sequence u64, its node in the base u32 |
//! | `nodes` | key whose node in the base is not what the base's own keys say | u32, `NO_NODE` for none |
//! | `names` | generation of a base, and the number that stands in a record of it for a text that was merged, both big-endian | text |
//! | `terms` | a scalar of a payload (`filter::Term`), then the key of the point | nothing |
//! | `slots` | number of a run of 4096 slots of the base, big-endian, where any is not as it was built | a byte a slot: `SLOT_*` |

use super::{
    CollectionConfig, CollectionError, CollectionOptions, Durability, PointKey,
    filter::{self, Place, Term},
    redo::{Freed, Merged, Plan},
};
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, ErrorKind, IteratorMode, Options, WriteBatch, WriteOptions,
    checkpoint::Checkpoint,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map::Entry},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use xxhash_rust::xxh3::xxh3_64;

const META: &str = "meta";
const POINTS: &str = "points";
const VECTORS: &str = "vectors";
const DELETED: &str = "deleted";
const NODES: &str = "nodes";
const NAMES: &str = "names";
const SLOTS: &str = "slots";
const TERMS: &str = "terms";
const FAMILIES: [&str; 8] = [META, POINTS, VECTORS, DELETED, NODES, NAMES, SLOTS, TERMS];
/// The directory of the store in that of a collection.
const STORE: &str = "store";
/// No node.
pub(super) const NO_NODE: u32 = u32::MAX;
/// The state of a slot: the number of its use, ...
pub(super) const SLOT_GENERATION: u8 = (1 << 6) - 1;
/// ... whether its node was replaced by another, ...
pub(super) const SLOT_DEAD: u8 = 1 << 6;
/// ... and whether it has none.
pub(super) const SLOT_FREE: u8 = 1 << 7;
/// The number of the use of a slot after this one. It never comes back to 0, which is a build's.
pub(super) fn next_use(generation: u8) -> u8 {
    // Tags are the low two bits, and 4 has those of 64.
    if generation == SLOT_GENERATION { 4 } else { generation + 1 }
}

/// Numbers of texts that were merged begin here; a build numbers its texts from 0.
pub(super) const MERGED_TEXT: u64 = 1 << 63;
/// Slots of one value of `slots`.
pub(super) const RUN: u64 = 4096;
/// How long, and of how many runs of terms, it is remembered that they are long.
const LONG_FOR: Duration = Duration::from_secs(10);
const LONG_ONES: usize = 4096;
/// Bytes of terms that are made between two commits.
const TERMS_AT_ONCE: usize = 16 << 20;
/// Files that the store keeps open.
const OPEN_FILES: i32 = 128;

pub(super) struct Store {
    path: PathBuf,
    db: DB,
    write: WriteOptions,
    /// Whether any payload has terms; until then nothing must be looked up to keep them right.
    has_terms: AtomicBool,
    /// Runs of terms that were longer than somebody would read, and how long at least: nobody begins with them again for a while.
    long: Mutex<HashMap<(Term, Term), (usize, Instant)>>,
}

/// Where a collection stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Of the last batch.
    pub(super) sequence: u64,
    /// The directory of the base, within that of the collection, and the last batch that is in it.
    pub(super) base: Option<(String, u64)>,
    /// The directory of the base that it has replaced.
    pub(super) replaced: Option<String>,
    /// The last merge into the base.
    pub(super) merged: u64,
}

/// What the store knows of a key at one moment.
pub(super) struct View {
    /// The directory of the base at that moment.
    pub(super) base: Option<String>,
    pub(super) payload: Option<String>,
    /// Of a point that is in no base, or newer than there.
    pub(super) row: Option<Vec<u8>>,
    /// Whether it was deleted, and not put since.
    pub(super) deleted: bool,
    /// Its node in the base, where that is not what the base's own keys say.
    pub(super) node: Option<u32>,
}

/// What became of a vector while it was merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing: the base has the point now.
    Merged,
    /// Another took its place, and its node is dead.
    Rewritten,
    /// It was deleted, and its node is dead.
    Deleted,
}

/// Changes that take effect together, and the payloads that they leave, where those count.
#[derive(Default)]
pub(super) struct Batch(WriteBatch, HashMap<Vec<u8>, String>);

/// The store as it was at one moment.
pub(super) struct Moment<'a> {
    store: &'a Store,
    of: rocksdb::Snapshot<'a>,
}

impl Moment<'_> {
    fn get(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>, CollectionError> {
        self.of.get_cf(self.store.family(family), key).map_err(|error| self.store.failed(&error))
    }

    /// The directory of the base, and the last merge into it.
    pub(super) fn base(&self) -> Result<(Option<String>, u64), CollectionError> {
        let name = self.get(META, b"base")?.and_then(parse_base).map(|(name, _)| name);
        let merged = self.get(META, b"merged")?.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        Ok((name, merged.unwrap_or_default()))
    }

    /// The payload of a key; empty where it has none, `None` where the point was deleted.
    pub(super) fn live_payload(&self, key: &[u8]) -> Result<Option<String>, CollectionError> {
        match self.get(POINTS, key)? {
            Some(value) => Ok(Some(self.store.parse_point(key, &value)?.1)),
            None => Ok(self.get(DELETED, key)?.is_none().then(String::new)),
        }
    }

    /// The node of a key in the base, where that is not what the base's own keys say; `NO_NODE` where there is none.
    pub(super) fn node_of(&self, key: &[u8]) -> Result<Option<u32>, CollectionError> {
        self.get(NODES, key)?.map(|value| self.store.parse_node(key, &value)).transpose()
    }

    /// Points that were written here, by key, from `first` on.
    pub(super) fn points_from(&self, first: &[u8]) -> impl Iterator<Item = Result<(Box<[u8]>, String), CollectionError>> + '_ {
        let entries = self.of.iterator_cf(self.store.family(POINTS), IteratorMode::From(first, rocksdb::Direction::Forward));
        entries.map(|entry| {
            let (key, value) = entry.map_err(|error| self.store.failed(&error))?;
            let payload = self.store.parse_point(&key, &value)?.1;
            Ok((key, payload))
        })
    }

    /// Whether a point was written here that is not deleted.
    pub(super) fn has_point(&self, key: &[u8]) -> Result<bool, CollectionError> {
        Ok(self.get(POINTS, key)?.is_some())
    }

    /// The keys at all of these places, each once; `None` where they are more than `most`, or not known.
    pub(super) fn keys_at(&self, places: &[Place], most: usize) -> Result<Option<Vec<Vec<u8>>>, CollectionError> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        if self.get(META, TERMS.as_bytes())?.is_none() {
            return Ok(None);
        }
        for place in places {
            match place {
                Place::Keys(named) => keys.extend(named.iter().map(PointKey::to_bytes)),
                Place::Terms(first, last) => {
                    if self.store.is_long(first, last, most) {
                        return Ok(None);
                    }
                    let before = keys.len();
                    let from = IteratorMode::From(first.bytes(), rocksdb::Direction::Forward);
                    for entry in self.of.iterator_cf(self.store.family(TERMS), from) {
                        let (at, _) = entry.map_err(|error| self.store.failed(&error))?;
                        let Some((term, key)) = at.split_at_checked(Term::BYTES) else {
                            return Err(self.store.damaged(format!("a term of {} bytes", at.len())));
                        };
                        if term > last.bytes() {
                            break;
                        }
                        keys.push(key.to_vec());
                        if keys.len() > most {
                            self.store.was_long(first, last, keys.len() - before);
                            return Ok(None);
                        }
                    }
                }
            }
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(Some(keys).filter(|keys| keys.len() <= most))
    }
}

/// Whether there is a store in `directory`.
pub(super) fn is_there(directory: &Path) -> bool {
    directory.join(STORE).join("CURRENT").is_file()
}

/// Memory that the log is replayed from, and so the time that opening takes.
const LOG_BYTES: u64 = 128 << 20;

fn options(how: &CollectionOptions) -> Options {
    let mut options = Options::default();
    // Where every batch was synced a torn tail is what a loss of power leaves, and a hole is damage; else a hole is where the rest was not written.
    options.set_wal_recovery_mode(match how.durability {
        Durability::Disk => DBRecoveryMode::TolerateCorruptedTailRecords,
        Durability::Os => DBRecoveryMode::PointInTime,
    });
    options.set_max_total_wal_size(LOG_BYTES);
    options.create_missing_column_families(!how.read_only);
    // One that writes beside a reader removes files that the reader has not opened.
    options.set_max_open_files(if how.read_only { -1 } else { OPEN_FILES });
    options.set_keep_log_file_num(4);
    options
}

impl Store {
    pub(super) fn create(directory: &Path, config: &CollectionConfig) -> Result<(), CollectionError> {
        let how = CollectionOptions::default();
        let mut options = options(&how);
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        options.create_missing_column_families(true);
        let store = Store::open_with(directory, &options, &how)?;
        let mut batch = Batch::default();
        batch.0.put_cf(store.family(META), "config", config.to_text());
        batch.0.put_cf(store.family(META), "sequence", 0u64.to_le_bytes());
        batch.0.put_cf(store.family(META), TERMS, "");
        store.commit(batch).map_err(|error| store.failed(&error))
    }

    pub(super) fn open(directory: &Path, how: &CollectionOptions) -> Result<(Store, CollectionConfig, State), CollectionError> {
        let store = Store::open_with(directory, &options(how), how)?;
        let text = store.meta("config")?.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let Some(config) = CollectionConfig::from_text(&text) else {
            let detail = format!("it begins \"{}\"; this version knows \"roxanne-collection 1\"", text.lines().next().unwrap_or_default());
            return Err(CollectionError::NotACollection { path: store.path, detail });
        };
        let sequence = store.meta("sequence")?.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        let sequence = sequence.ok_or_else(|| store.damaged("its sequence is missing".to_string()))?;
        let base = match store.meta("base")? {
            None => None,
            Some(bytes) => Some(parse_base(bytes).ok_or_else(|| store.damaged("the name of its base is none".to_string()))?),
        };
        if !how.read_only && store.meta(TERMS)?.is_none() {
            store.make_terms()?;
        }
        let replaced = store.meta("replaced")?.and_then(|bytes| String::from_utf8(bytes).ok());
        let merged = store.meta("merged")?.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?))).unwrap_or_default();
        Ok((store, config, State { sequence, base, replaced, merged }))
    }

    fn open_with(directory: &Path, options: &Options, how: &CollectionOptions) -> Result<Store, CollectionError> {
        let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
        let path = directory.join(STORE);
        let opened = if how.read_only {
            DB::open_cf_descriptors_read_only(options, path, families, false)
        } else {
            DB::open_cf_descriptors(options, path, families)
        };
        let db = opened.map_err(|error| failed(directory, &error))?;
        let mut write = WriteOptions::default();
        write.set_sync(how.durability == Durability::Disk);
        let store = Store { path: directory.to_path_buf(), db, write, has_terms: AtomicBool::new(false), long: Mutex::default() };
        let any = store.db.iterator_cf(store.family(TERMS), IteratorMode::Start).next().is_some();
        store.has_terms.store(any, Relaxed);
        Ok(store)
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        let Some(family) = self.db.cf_handle(name) else { unreachable!("all families were opened") };
        family
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, CollectionError> {
        self.db.get_cf(self.family(META), name).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &rocksdb::Error) -> CollectionError {
        failed(&self.path, error)
    }

    pub(super) fn damaged(&self, detail: String) -> CollectionError {
        CollectionError::Store { path: self.path.clone(), detail, corrupt: true }
    }

    /// Makes a batch durable.
    pub(super) fn commit(&self, batch: Batch) -> Result<(), rocksdb::Error> {
        self.db.write_opt(batch.0, &self.write)
    }

    pub(super) fn put_sequence(&self, batch: &mut Batch, sequence: u64) {
        batch.0.put_cf(self.family(META), "sequence", sequence.to_le_bytes());
    }

    /// Another base takes the place of the old one, and nothing was merged into it yet.
    pub(super) fn put_base(&self, batch: &mut Batch, name: &str, sequence: u64, replaced: Option<&str>) {
        batch.0.put_cf(self.family(META), "merged", 0u64.to_le_bytes());
        // Beyond every key: texts are UTF-8, numbers and runs eight bytes. Names go at the next opening: searches of the old base still read them.
        [NODES, SLOTS].into_iter().for_each(|family| batch.0.delete_range_cf(self.family(family), &b""[..], &[0xFF; 9][..]));
        batch.0.put_cf(self.family(META), "base", format!("{name} {sequence}"));
        batch.0.put_cf(self.family(META), "replaced", replaced.unwrap_or_default());
    }

    /// A point, new or in the place of an older one, whose payload was `old`; `node` is the one of the base that it replaces.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn put_point(&self, batch: &mut Batch, key: &[u8], sequence: u64, old: &str, payload: &str, node: u32, row: &[u8]) {
        self.change_terms(batch, key, old, payload);
        batch.0.put_cf(self.family(POINTS), key, [&sequence.to_le_bytes(), payload.as_bytes()].concat());
        self.put_vector(batch, key, node, row);
    }

    /// A point is no more, whose payload was `old`; `node` is the one of the base that held it, or was replaced by it.
    pub(super) fn delete_point(&self, batch: &mut Batch, key: &[u8], sequence: u64, old: &str, node: u32) {
        self.change_terms(batch, key, old, "");
        batch.0.delete_cf(self.family(POINTS), key);
        batch.0.delete_cf(self.family(VECTORS), key);
        self.put_deleted(batch, key, sequence, node);
    }

    /// The payload that a change of `key` in this batch replaces; empty where its terms do not count.
    pub(super) fn payload_before(&self, batch: &Batch, key: &[u8]) -> Result<String, CollectionError> {
        if !self.has_terms.load(Relaxed) {
            return Ok(String::new());
        }
        if let Some(payload) = batch.1.get(key) {
            return Ok(payload.clone());
        }
        self.payload(key)
    }

    fn change_terms(&self, batch: &mut Batch, key: &[u8], old: &str, new: &str) {
        if old != new {
            let (before, after) = (filter::terms_of(old), filter::terms_of(new));
            let place = |term: &Term| [term.bytes(), key].concat();
            let only_in = |a: &[Term], b: &[Term]| a.iter().filter(|term| b.binary_search(term).is_err()).map(place).collect::<Vec<_>>();
            only_in(&before, &after).into_iter().for_each(|term| batch.0.delete_cf(self.family(TERMS), term));
            only_in(&after, &before).into_iter().for_each(|term| batch.0.put_cf(self.family(TERMS), term, b""));
            self.has_terms.fetch_or(!after.is_empty(), Relaxed);
        }
        if self.has_terms.load(Relaxed) {
            batch.1.insert(key.to_vec(), new.to_string());
        }
    }

    /// Makes the terms of all payloads, for a store that was made before there were any.
    fn make_terms(&self) -> Result<(), CollectionError> {
        let mut batch = Batch::default();
        for entry in self.db.iterator_cf(self.family(POINTS), IteratorMode::Start) {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            self.change_terms(&mut batch, &key, "", &self.parse_point(&key, &value)?.1);
            batch.1.clear();
            if batch.0.size_in_bytes() > TERMS_AT_ONCE {
                self.commit(std::mem::take(&mut batch)).map_err(|error| self.failed(&error))?;
            }
        }
        batch.0.put_cf(self.family(META), TERMS, "");
        self.commit(batch).map_err(|error| self.failed(&error))
    }

    /// Proves that terms are those of the payloads, and no others; gives how many there are.
    pub(super) fn check_terms(&self) -> Result<u64, CollectionError> {
        let (mut said, mut kept) = (0, 0);
        for entry in self.db.iterator_cf(self.family(POINTS), IteratorMode::Start) {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            for term in filter::terms_of(&self.parse_point(&key, &value)?.1) {
                let there =
                    self.db.get_pinned_cf(self.family(TERMS), [term.bytes(), &key].concat()).map_err(|error| self.failed(&error))?;
                if there.is_none() {
                    return Err(self.damaged(format!("key {key:?} is not among those of a value in its payload")));
                }
                said += 1;
            }
        }
        for entry in self.db.iterator_cf(self.family(TERMS), IteratorMode::Start) {
            entry.map_err(|error| self.failed(&error))?;
            kept += 1;
        }
        if said == kept { Ok(kept) } else { Err(self.damaged(format!("{kept} values of payloads are listed, payloads have {said}"))) }
    }

    /// Whether a run of terms was found longer than `most` a short time ago.
    fn is_long(&self, first: &Term, last: &Term, most: usize) -> bool {
        let long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        long.get(&(*first, *last)).is_some_and(|(length, at)| *length > most && at.elapsed() < LONG_FOR)
    }

    fn was_long(&self, first: &Term, last: &Term, length: usize) {
        let mut long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        if long.len() >= LONG_ONES {
            long.clear();
        }
        let length = long.get(&(*first, *last)).map_or(length, |known| known.0.max(length));
        long.insert((*first, *last), (length, Instant::now()));
    }

    /// A moment of the store, for those who look at many keys.
    pub(super) fn moment(&self) -> Moment<'_> {
        Moment { store: self, of: self.db.snapshot() }
    }

    /// A base, this one or one that is being built, may hold a point that is no more.
    pub(super) fn put_deleted(&self, batch: &mut Batch, key: &[u8], sequence: u64, node: u32) {
        batch.0.put_cf(self.family(DELETED), key, [&sequence.to_le_bytes()[..], &node.to_le_bytes()].concat());
    }

    /// A deleted point is back, or no base holds it any more.
    pub(super) fn forget_deleted(&self, batch: &mut Batch, key: &[u8]) {
        batch.0.delete_cf(self.family(DELETED), key);
    }

    /// The vector of a point is in the base as it is.
    pub(super) fn forget_vector(&self, batch: &mut Batch, key: &[u8]) {
        batch.0.delete_cf(self.family(VECTORS), key);
    }

    /// The same vector, in the place of another node.
    pub(super) fn put_vector(&self, batch: &mut Batch, key: &[u8], node: u32, row: &[u8]) {
        batch.0.put_cf(self.family(VECTORS), key, [&node.to_le_bytes(), row].concat());
    }

    /// When a point was written.
    pub(super) fn written_at(&self, key: &[u8]) -> Result<Option<u64>, CollectionError> {
        let value = self.db.get_cf(self.family(POINTS), key).map_err(|error| self.failed(&error))?;
        value.map(|value| Ok(self.parse_point(key, &value)?.0)).transpose()
    }

    /// The payload of a key; empty where it has none.
    pub(super) fn payload(&self, key: &[u8]) -> Result<String, CollectionError> {
        let value = self.db.get_pinned_cf(self.family(POINTS), key).map_err(|error| self.failed(&error))?;
        Ok(value.map(|value| self.parse_point(key, &value)).transpose()?.unwrap_or_default().1)
    }

    /// The payload of a key; empty where it has none, `None` where the point was deleted.
    pub(super) fn live_payload(&self, key: &[u8]) -> Result<Option<String>, CollectionError> {
        let get = |family: &str| self.db.get_pinned_cf(self.family(family), key).map_err(|error| self.failed(&error));
        match get(POINTS)? {
            Some(value) => Ok(Some(self.parse_point(key, &value)?.1)),
            None => Ok(get(DELETED)?.is_none().then(String::new)),
        }
    }

    fn parse_point(&self, key: &[u8], value: &[u8]) -> Result<(u64, String), CollectionError> {
        let parsed = value
            .split_first_chunk::<8>()
            .and_then(|(sequence, payload)| Some((u64::from_le_bytes(*sequence), String::from_utf8(payload.to_vec()).ok()?)));
        parsed.ok_or_else(|| self.damaged(format!("the point of key {key:?} is {} bytes", value.len())))
    }

    /// All of a key, as of one moment.
    pub(super) fn view(&self, key: &[u8]) -> Result<View, CollectionError> {
        let snapshot = self.db.snapshot();
        let read = |family: &str, key: &[u8]| snapshot.get_cf(self.family(family), key).map_err(|error| self.failed(&error));
        let base = read(META, b"base")?.and_then(parse_base).map(|(name, _)| name);
        let payload = match read(POINTS, key)? {
            None => None,
            Some(value) => Some(self.parse_point(key, &value)?.1),
        };
        let row = read(VECTORS, key)?.map(|value| value.get(4..).unwrap_or_default().to_vec());
        let node = read(NODES, key)?.map(|value| self.parse_node(key, &value)).transpose()?;
        Ok(View { base, payload, row, deleted: read(DELETED, key)?.is_some(), node })
    }

    fn parse_node(&self, key: &[u8], value: &[u8]) -> Result<u32, CollectionError> {
        let node = value.try_into().map(u32::from_le_bytes);
        node.map_err(|_| self.damaged(format!("the node of key {key:?} is {} bytes", value.len())))
    }

    /// The node of a key in the base, where that is not what the base's own keys say; `NO_NODE` where there is none.
    pub(super) fn node_of(&self, key: &[u8]) -> Result<Option<u32>, CollectionError> {
        let value = self.db.get_pinned_cf(self.family(NODES), key).map_err(|error| self.failed(&error))?;
        value.map(|value| self.parse_node(key, &value)).transpose()
    }

    /// The text that a record's number stands for, where the text came by a merge.
    pub(super) fn name_of(&self, generation: u64, number: u64) -> Result<Option<String>, CollectionError> {
        let value = self.db.get_cf(self.family(NAMES), name_key(generation, number)).map_err(|error| self.failed(&error))?;
        let text = |value| String::from_utf8(value).map_err(|_| self.damaged(format!("the name of number {number} is no text")));
        value.map(text).transpose()
    }

    /// Forgets the names of texts in other bases than this one.
    pub(super) fn forget_other_names(&self, generation: u64) -> Result<(), CollectionError> {
        let mut batch = Batch::default();
        let family = self.family(NAMES);
        batch.0.delete_range_cf(family, name_key(0, 0), name_key(generation, 0));
        if let Some(next) = generation.checked_add(1) {
            batch.0.delete_range_cf(family, name_key(next, 0), vec![0xFF; 17]);
        }
        self.commit(batch).map_err(|error| self.failed(&error))
    }

    /// The runs of slots that are not as they were built, each with the first slot.
    pub(super) fn each_run(&self, mut each: impl FnMut(u64, &[u8]) -> Result<(), CollectionError>) -> Result<(), CollectionError> {
        for entry in self.db.iterator_cf(self.family(SLOTS), IteratorMode::Start) {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            let run = key.as_ref().try_into().ok().map(u64::from_be_bytes).filter(|&run| run < 1 << 32 && value.len() as u64 == RUN);
            let run = run.ok_or_else(|| self.damaged(format!("a run of {} slots under a key of {} bytes", value.len(), key.len())))?;
            each(run * RUN, &value)?;
        }
        Ok(())
    }

    /// The points that were written after batch `sequence` and whose vector is in the base, by key, each with when.
    pub(super) fn each_merged_after(
        &self,
        sequence: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), CollectionError>,
    ) -> Result<(), CollectionError> {
        for entry in self.db.iterator_cf(self.family(POINTS), IteratorMode::Start) {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            let in_delta = || self.db.get_pinned_cf(self.family(VECTORS), &key).map_err(|error| self.failed(&error));
            if self.parse_point(&key, &value)?.0 > sequence && in_delta()?.is_none() {
                each(&key)?;
            }
        }
        Ok(())
    }

    /// Says of a merge that it is done: its vectors are in the base, its victims in no slot; gives what became of each vector of the plan meanwhile.
    /// To be said once, before anything else of what it names is written.
    pub(super) fn merge(&self, plan: &Plan, generation: u64) -> Result<Vec<Fate>, CollectionError> {
        let mut batch = Batch::default();
        let read = |family: &str, key: &[u8]| self.db.get_cf(self.family(family), key).map_err(|error| self.failed(&error));
        let mut fates = Vec::with_capacity(plan.merged.len());
        for Merged { key, hash, node, record_key, .. } in &plan.merged {
            let fate = match read(VECTORS, key)? {
                Some(value) if xxh3_64(&value) == *hash => {
                    self.forget_vector(&mut batch, key);
                    Fate::Merged
                }
                Some(value) => {
                    self.put_vector(&mut batch, key, *node, value.get(4..).unwrap_or_default());
                    Fate::Rewritten
                }
                None => {
                    let at = read(DELETED, key)?.and_then(|value| Some(u64::from_le_bytes(*value.first_chunk::<8>()?)));
                    self.put_deleted(
                        &mut batch,
                        key,
                        at.ok_or_else(|| self.damaged(format!("key {key:?} is neither put nor deleted")))?,
                        *node,
                    );
                    Fate::Deleted
                }
            };
            batch.0.put_cf(self.family(NODES), key, node.to_le_bytes());
            if record_key.to_be_bytes()[..] != key[..] {
                batch.0.put_cf(self.family(NAMES), name_key(generation, *record_key), key);
            }
            fates.push(fate);
        }
        let merged: HashSet<&[u8]> = plan.merged.iter().map(|merged| merged.key.as_slice()).collect();
        for Freed { key, node, .. } in &plan.freed {
            // The key may have come back meanwhile, in another node or with none yet; what names this one names nothing any more.
            if merged.contains(key.as_slice()) {
                continue;
            }
            if self.node_of(key)?.is_none_or(|known| known == *node) {
                batch.0.put_cf(self.family(NODES), key, NO_NODE.to_le_bytes());
            }
            if let Some(value) = read(VECTORS, key)?.filter(|value| value.first_chunk::<4>() == Some(&node.to_le_bytes())) {
                self.put_vector(&mut batch, key, NO_NODE, &value[4..]);
            }
            if let Some(value) = read(DELETED, key)?.filter(|value| value.get(8..12) == Some(&node.to_le_bytes()))
                && let Some(at) = value.first_chunk::<8>()
            {
                self.put_deleted(&mut batch, key, u64::from_le_bytes(*at), NO_NODE);
            }
        }
        for (run, states) in &self.runs_after(plan)? {
            batch.0.put_cf(self.family(SLOTS), run.to_be_bytes(), states);
        }
        batch.0.put_cf(self.family(META), "merged", plan.epoch.to_le_bytes());
        let mut write = WriteOptions::default();
        write.set_sync(true);
        self.db.write_opt(batch.0, &write).map_err(|error| self.failed(&error))?;
        Ok(fates)
    }

    /// The runs of slots that a merge changes, as they are after it.
    fn runs_after(&self, plan: &Plan) -> Result<BTreeMap<u64, Vec<u8>>, CollectionError> {
        let mut runs: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut change = |node: u32, change: &dyn Fn(u8) -> u8| {
            let run = u64::from(node) / RUN;
            let states = match runs.entry(run) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(place) => {
                    let value = self.db.get_cf(self.family(SLOTS), run.to_be_bytes()).map_err(|error| self.failed(&error))?;
                    place.insert(value.filter(|value| value.len() as u64 == RUN).unwrap_or_else(|| vec![0; RUN as usize]))
                }
            };
            let state = &mut states[(u64::from(node) % RUN) as usize];
            *state = change(*state);
            Ok::<_, CollectionError>(())
        };
        for Merged { node, replaces, .. } in &plan.merged {
            change(*node, &|state| state & SLOT_GENERATION)?;
            if *replaces != NO_NODE {
                change(*replaces, &|state| state | SLOT_DEAD)?;
            }
        }
        for Freed { node, generation, .. } in &plan.freed {
            change(*node, &|_| SLOT_FREE | generation)?;
        }
        Ok(runs)
    }

    /// What the store must hold of a vector for it to be this one.
    pub(super) fn hash_of(node: u32, row: &[u8]) -> u64 {
        xxh3_64(&[&node.to_le_bytes(), row].concat())
    }

    /// Copies the store, as it is at this moment, into the directory of a collection that has none.
    pub(super) fn checkpoint(&self, directory: &Path) -> Result<(), CollectionError> {
        let made = Checkpoint::new(&self.db).and_then(|checkpoint| checkpoint.create_checkpoint(directory.join(STORE)));
        made.map_err(|error| self.failed(&error))
    }

    /// Brings all batches to the device, those too that were not synced.
    pub(super) fn sync(&self) -> Result<(), CollectionError> {
        self.db.flush_wal(true).map_err(|error| self.failed(&error))
    }

    /// The vectors that are in no base, by key, each with the node that it replaces.
    pub(super) fn each_vector(
        &self,
        mut each: impl FnMut(&[u8], u32, &[u8]) -> Result<(), CollectionError>,
    ) -> Result<(), CollectionError> {
        for entry in self.db.iterator_cf(self.family(VECTORS), IteratorMode::Start) {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            let Some((node, row)) = value.split_first_chunk::<4>() else {
                return Err(self.damaged(format!("the vector of key {key:?} is {} bytes", value.len())));
            };
            each(&key, u32::from_le_bytes(*node), row)?;
        }
        Ok(())
    }

    /// The points that were deleted, by key, each with the batch that did it and its node.
    pub(super) fn each_deleted(&self, mut each: impl FnMut(&[u8], u64, u32) -> Result<(), CollectionError>) -> Result<(), CollectionError> {
        for entry in self.db.iterator_cf(self.family(DELETED), IteratorMode::Start) {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            let parsed = value.split_first_chunk::<8>().and_then(|(sequence, node)| Some((*sequence, node.try_into().ok()?)));
            let Some((sequence, node)) = parsed else {
                return Err(self.damaged(format!("the deletion of key {key:?} is {} bytes", value.len())));
            };
            each(&key, u64::from_le_bytes(sequence), u32::from_le_bytes(node))?;
        }
        Ok(())
    }
}

/// Under which the text of a record's number stands.
fn name_key(generation: u64, number: u64) -> Vec<u8> {
    [generation.to_be_bytes(), number.to_be_bytes()].concat()
}

/// The name and the sequence of a base, as `put_base` writes them.
fn parse_base(bytes: Vec<u8>) -> Option<(String, u64)> {
    let text = String::from_utf8(bytes).ok()?;
    let (name, sequence) = text.split_once(' ')?;
    Some((name.to_string(), sequence.parse().ok()?))
}

fn failed(path: &Path, error: &rocksdb::Error) -> CollectionError {
    let corrupt = error.kind() == ErrorKind::Corruption;
    CollectionError::Store { path: path.to_path_buf(), detail: error.to_string(), corrupt }
}
