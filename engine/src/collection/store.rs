//! RocksDB: keys, payloads, and the vectors that are in no base yet. One synced batch is the only commit point of a collection.
//!
//! | family | key | value |
//! |---|---|---|
//! | `meta` | `config`, `sequence`, `base`, `replaced`, `merged`, `terms`, `before` | text; u64; `name sequence`; the name of a base that is to be removed; u64, the last merge into it; there when `terms` is complete; the base before, where it is kept |
//! | `points` | key of every live point that was written here | sequence u64, payload |
//! | `vectors` | key of a point that is not in the base, or newer than there | node that it replaces u32, row |
//! | `deleted` | key of a point that was deleted and not put again, until a base is promoted that was begun later | sequence u64, its node in the base u32 |
//! | `nodes` | key whose node in the base is not what the base's own keys say | u32, `NO_NODE` for none |
//! | `names` | generation of a base, and the number that stands in a record of it for a text that was merged, both big-endian | text |
//! | `terms` | a scalar of a payload (`filter::Term`), then the key of the point | nothing |
//! | `slots` | number of a run of 4096 slots of the base, big-endian, where any is not as it was built | a byte a slot: `SLOT_*` |
//! | `changes` | number of a batch, big-endian, of the last ones | the keys that it changed |
//! | `before` | `n`, `s`, `v` or `d`, and a key of `nodes`, `slots`, `vectors` or `deleted` | what stood there, or would, of the base before the last promotion, where that is kept |
//! | `merges` | number of a merge into the base, big-endian, of the last ones | what it did, and the pages it wrote |

mod before;
mod changes;
mod merges;
mod terms;

pub(super) use before::Before;
pub(super) use changes::{MergeDone, pages_of};
pub(super) use merges::{Fate, MERGED_TEXT, SLOT_DEAD, SLOT_FREE, SLOT_GENERATION, next_use};

use super::{CollectionConfig, CollectionError, CollectionOptions, Durability, PointKey, filter::Term, processes};
use changes::Parts;
use merges::RUN;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBIteratorWithThreadMode, DBRecoveryMode, ErrorKind, IteratorMode, Options, WriteBatch,
    WriteOptions, checkpoint::Checkpoint,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const META: &str = "meta";
const POINTS: &str = "points";
const VECTORS: &str = "vectors";
const DELETED: &str = "deleted";
const NODES: &str = "nodes";
const NAMES: &str = "names";
const SLOTS: &str = "slots";
const TERMS: &str = "terms";
const CHANGES: &str = "changes";
const MERGES: &str = "merges";
const BEFORE: &str = "before";
const FAMILIES: [&str; 11] = [META, POINTS, VECTORS, DELETED, NODES, NAMES, SLOTS, TERMS, CHANGES, MERGES, BEFORE];
/// The directory of the store in that of a collection.
const STORE: &str = "store";
/// No node.
pub(super) const NO_NODE: u32 = u32::MAX;
/// How long a writer waits for readers that are opening the store's files; then it opens beside them.
const LONGEST_LOOK: Duration = Duration::from_secs(10);
/// Files that the store keeps open.
const OPEN_FILES: i32 = 128;

pub(super) struct Store {
    path: PathBuf,
    db: DB,
    write: WriteOptions,
    /// Where it follows one that another process writes: held by those who must see one state of it, which is what RocksDB has no snapshots for there.
    still: Option<RwLock<()>>,
    /// Of `changes`.
    parts: Mutex<Parts>,
    /// Whether any payload has terms; until then nothing must be looked up to keep them right.
    has_terms: AtomicBool,
    /// Runs of terms that were longer than somebody would read, and how long at least: nobody begins with them again for a while.
    long: Mutex<HashMap<(Term, Term), (usize, Instant)>>,
}

/// Takes a run of slots: the first of them, and their states.
pub(super) type EachRun<'a> = dyn FnMut(u64, &[u8]) -> Result<(), CollectionError> + 'a;

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
    /// The node that it replaces.
    pub(super) replaces: u32,
    /// Whether it was deleted, and not put since.
    pub(super) deleted: bool,
    /// Its node in the base, where that is not what the base's own keys say.
    pub(super) node: Option<u32>,
}

/// Changes that take effect together, and the payloads that they leave, where those count.
#[derive(Default)]
pub(super) struct Batch(WriteBatch, HashMap<Vec<u8>, String>);

/// The store as it was at one moment.
pub(super) struct Moment<'a> {
    store: &'a Store,
    of: Of<'a>,
}

enum Of<'a> {
    Snapshot(rocksdb::Snapshot<'a>),
    /// Nothing changes while this is held.
    Still {
        _guard: RwLockReadGuard<'a, ()>,
    },
}

impl Moment<'_> {
    fn get(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>, CollectionError> {
        let family = self.store.family(family);
        let value = match &self.of {
            Of::Snapshot(snapshot) => snapshot.get_cf(family, key),
            Of::Still { .. } => self.store.db.get_cf(family, key),
        };
        value.map_err(|error| self.store.failed(&error))
    }

    fn iterator(&self, family: &str, mode: IteratorMode<'_>) -> DBIteratorWithThreadMode<'_, DB> {
        let family = self.store.family(family);
        match &self.of {
            Of::Snapshot(snapshot) => snapshot.iterator_cf(family, mode),
            Of::Still { .. } => self.store.db.iterator_cf(family, mode),
        }
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
        let entries = self.iterator(POINTS, IteratorMode::From(first, rocksdb::Direction::Forward));
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
        let store = Store::open_with(directory, &options, &how, None)?;
        let mut batch = Batch::default();
        batch.0.put_cf(store.family(META), "config", config.to_text());
        batch.0.put_cf(store.family(META), "sequence", 0u64.to_le_bytes());
        batch.0.put_cf(store.family(META), TERMS, "");
        store.commit(batch).map_err(|error| store.failed(&error))
    }

    /// Opens it; to follow one that another process writes where `log` names a directory for RocksDB's own log.
    pub(super) fn open(
        directory: &Path,
        how: &CollectionOptions,
        log: Option<&Path>,
    ) -> Result<(Store, CollectionConfig), CollectionError> {
        let store = Store::open_with(directory, &options(how), how, log)?;
        let text = store.meta("config")?.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let Some(config) = CollectionConfig::from_text(&text) else {
            let detail = format!("it begins \"{}\"; this version knows \"roxanne-collection 1\"", text.lines().next().unwrap_or_default());
            return Err(CollectionError::NotACollection { path: store.path, detail });
        };
        if !how.read_only {
            if store.meta(TERMS)?.is_none() {
                store.make_terms()?;
            }
            store.forget_old_changes()?;
        }
        Ok((store, config))
    }

    /// Where it stands.
    pub(super) fn state(&self) -> Result<State, CollectionError> {
        let number =
            |name: &str| Ok::<_, CollectionError>(self.meta(name)?.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?))));
        let base = match self.meta("base")? {
            None => None,
            Some(bytes) => Some(parse_base(bytes).ok_or_else(|| self.damaged("the name of its base is none".to_string()))?),
        };
        Ok(State {
            sequence: number("sequence")?.ok_or_else(|| self.damaged("its sequence is missing".to_string()))?,
            base,
            replaced: self.meta("replaced")?.and_then(|bytes| String::from_utf8(bytes).ok()),
            merged: number("merged")?.unwrap_or_default(),
        })
    }

    fn open_with(directory: &Path, options: &Options, how: &CollectionOptions, log: Option<&Path>) -> Result<Store, CollectionError> {
        let path = directory.join(STORE);
        let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
        // Who writes removes files while it opens, and those that read must not look at them meanwhile.
        let _files = if how.read_only { processes::look_at_files(directory)? } else { processes::change_files(directory, LONGEST_LOOK)? };
        let opened = match log {
            Some(log) => DB::open_cf_descriptors_as_secondary(options, path.as_path(), log, families),
            None if how.read_only => DB::open_cf_descriptors_read_only(options, path, families, false),
            None => DB::open_cf_descriptors(options, path, families),
        };
        let db = opened.map_err(|error| failed(directory, &error))?;
        if !how.read_only {
            db.disable_file_deletions().map_err(|error| failed(directory, &error))?;
        }
        let mut write = WriteOptions::default();
        write.set_sync(how.durability == Durability::Disk);
        let store = Store {
            path: directory.to_path_buf(),
            db,
            write,
            still: log.is_some().then(RwLock::default),
            parts: Mutex::default(),
            has_terms: AtomicBool::new(false),
            long: Mutex::default(),
        };
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

    /// The same whatever the durability: files are removed after it.
    pub(super) fn commit_synced(&self, batch: Batch) -> Result<(), rocksdb::Error> {
        let mut write = WriteOptions::default();
        write.set_sync(true);
        self.db.write_opt(batch.0, &write)
    }

    pub(super) fn put_sequence(&self, batch: &mut Batch, sequence: u64) {
        batch.0.put_cf(self.family(META), "sequence", sequence.to_le_bytes());
    }

    /// Another base takes the place of the old one, and nothing was merged into it yet.
    pub(super) fn put_base(&self, batch: &mut Batch, name: &str, sequence: u64, replaced: Option<&str>) {
        batch.0.put_cf(self.family(META), "merged", 0u64.to_le_bytes());
        // Beyond every key: texts are UTF-8, numbers and runs eight bytes. Names go at the next opening: searches of the old base still read them.
        [NODES, SLOTS, MERGES].into_iter().for_each(|family| batch.0.delete_range_cf(self.family(family), &b""[..], &[0xFF; 9][..]));
        batch.0.put_cf(self.family(META), "base", format!("{name} {sequence}"));
        self.put_replaced(batch, replaced.unwrap_or_default());
    }

    /// A base is to be removed: at the next opening, if not before.
    pub(super) fn put_replaced(&self, batch: &mut Batch, name: &str) {
        batch.0.put_cf(self.family(META), "replaced", name);
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

    /// A moment of the store, for those who look at many keys.
    pub(super) fn moment(&self) -> Moment<'_> {
        let of = match &self.still {
            Some(still) => Of::Still { _guard: still.read().unwrap_or_else(PoisonError::into_inner) },
            None => Of::Snapshot(self.db.snapshot()),
        };
        Moment { store: self, of }
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
        let moment = self.moment();
        self.view_by(key, |family, key| moment.get(family, key))
    }

    /// The same, for who holds the guard of [`Store::catch_up`].
    pub(super) fn view_now(&self, key: &[u8]) -> Result<View, CollectionError> {
        self.view_by(key, |family, key| self.db.get_cf(self.family(family), key).map_err(|error| self.failed(&error)))
    }

    fn view_by(&self, key: &[u8], read: impl Fn(&str, &[u8]) -> Result<Option<Vec<u8>>, CollectionError>) -> Result<View, CollectionError> {
        let base = read(META, b"base")?.and_then(parse_base).map(|(name, _)| name);
        let payload = match read(POINTS, key)? {
            None => None,
            Some(value) => Some(self.parse_point(key, &value)?.1),
        };
        let (row, replaces) = match read(VECTORS, key)? {
            None => (None, NO_NODE),
            Some(value) => {
                let Some((node, row)) = value.split_first_chunk::<4>() else {
                    return Err(self.damaged(format!("the vector of key {key:?} is {} bytes", value.len())));
                };
                (Some(row.to_vec()), u32::from_le_bytes(*node))
            }
        };
        let node = read(NODES, key)?.map(|value| self.parse_node(key, &value)).transpose()?;
        Ok(View { base, payload, row, replaces, deleted: read(DELETED, key)?.is_some(), node })
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
            self.parse_run(&key, &value, &mut each)?;
        }
        Ok(())
    }

    fn parse_run(&self, key: &[u8], value: &[u8], each: &mut EachRun<'_>) -> Result<(), CollectionError> {
        let run = key.try_into().ok().map(u64::from_be_bytes).filter(|&run| run < 1 << 32 && value.len() as u64 == RUN);
        let run = run.ok_or_else(|| self.damaged(format!("a run of {} slots under a key of {} bytes", value.len(), key.len())))?;
        each(run * RUN, value)
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

    /// The keys whose node in the base is not what the base's own keys say, each with its node.
    pub(super) fn each_node(&self, mut each: impl FnMut(&[u8], u32) -> Result<(), CollectionError>) -> Result<(), CollectionError> {
        for entry in self.db.iterator_cf(self.family(NODES), IteratorMode::Start) {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            each(&key, self.parse_node(&key, &value)?)?;
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
