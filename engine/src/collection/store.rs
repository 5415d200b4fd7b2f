//! RocksDB: keys, payloads, and the vectors that are in no base yet. One synced batch is the only commit point of a collection.
//!
//! | family | key | value |
//! |---|---|---|
//! | `meta` | `config`, `sequence`, `base`, `replaced` | text; u64; `name sequence`; the name of the base before |
//! | `points` | key of every live point that was written here | sequence u64, payload |
//! | `vectors` | key of a point that is not in the base, or newer than there | node that it replaces u32, row |
//! | `deleted` | key of a point that was deleted and not put again, until a base is promoted that was begun later | sequence u64, its node in the base u32 |

use super::{CollectionConfig, CollectionError, CollectionOptions, Durability};
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, ErrorKind, IteratorMode, Options, WriteBatch, WriteOptions};
use std::path::{Path, PathBuf};

const META: &str = "meta";
const POINTS: &str = "points";
const VECTORS: &str = "vectors";
const DELETED: &str = "deleted";
const FAMILIES: [&str; 4] = [META, POINTS, VECTORS, DELETED];
/// The directory of the store in that of a collection.
const STORE: &str = "store";
/// No node.
pub(super) const NO_NODE: u32 = u32::MAX;
/// Files that the store keeps open.
const OPEN_FILES: i32 = 128;

pub(super) struct Store {
    path: PathBuf,
    db: DB,
    write: WriteOptions,
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
}

/// Changes that take effect together.
#[derive(Default)]
pub(super) struct Batch(WriteBatch);

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
        let replaced = store.meta("replaced")?.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok((store, config, State { sequence, base, replaced }))
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
        Ok(Store { path: directory.to_path_buf(), db, write })
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

    pub(super) fn put_base(&self, batch: &mut Batch, name: &str, sequence: u64, replaced: Option<&str>) {
        batch.0.put_cf(self.family(META), "base", format!("{name} {sequence}"));
        batch.0.put_cf(self.family(META), "replaced", replaced.unwrap_or_default());
    }

    /// A point, new or in the place of an older one; `node` is the one of the base that it replaces.
    pub(super) fn put_point(&self, batch: &mut Batch, key: &[u8], sequence: u64, payload: &str, node: u32, row: &[u8]) {
        batch.0.put_cf(self.family(POINTS), key, [&sequence.to_le_bytes(), payload.as_bytes()].concat());
        self.put_vector(batch, key, node, row);
    }

    /// A point is no more; `node` is the one of the base that held it, or was replaced by it.
    pub(super) fn delete_point(&self, batch: &mut Batch, key: &[u8], sequence: u64, node: u32) {
        batch.0.delete_cf(self.family(POINTS), key);
        batch.0.delete_cf(self.family(VECTORS), key);
        self.put_deleted(batch, key, sequence, node);
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
        Ok(View { base, payload, row, deleted: read(DELETED, key)?.is_some() })
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
