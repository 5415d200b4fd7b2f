//! A collection: vectors under keys that come, change and go while searches run.
//!
//! ```no_run
//! use roxanne_engine::{SearchParams, collection::{Change, Collection, CollectionConfig, CollectionOptions, KeyKind, Point, PointKey}};
//! use roxanne_core::{element::ElementType, metric::Metric};
//! let config = CollectionConfig { dim: 3, metric: Metric::Cosine, element: ElementType::F32, keys: KeyKind::Numbers };
//! let collection = Collection::create("docs", &config, &CollectionOptions::default())?;
//! let point = Point { key: PointKey::Number(7), vector: vec![1.0, 2.0, 3.0], payload: r#"{"title": "seven"}"#.into() };
//! collection.write(vec![Change::Upsert(point)])?;
//! let found = collection.search(&[1.0, 2.0, 2.5], &SearchParams::default())?;
//! println!("{} at {}", found.hits[0].key, found.hits[0].distance);
//! # Ok::<(), roxanne_engine::collection::CollectionError>(())
//! ```
//! Data flows one way. A batch is checked, written to the store in one synced batch of its own (`store`; the only commit point, shared by all
//! that wait: `commit`), appended to the delta in RAM (`delta`), and then published: from that moment searches see it. A search takes the
//! snapshot of its moment, which nothing changes afterwards: the base generation on flash less the nodes that are dead, and the slots of the delta
//! that were there, less the dead ones. So it never waits for a writer, and sees a batch wholly or not at all.

mod appear;
mod choose;
mod commit;
mod delta;
mod error;
mod filter;
mod filtered;
mod follow;
mod handover;
mod keeper;
mod keys;
mod merge;
mod pins;
mod point;
mod processes;
mod publish;
mod redo;
mod rollback;
mod salvage;
mod search;
mod snapshot;
mod store;
mod verify;

pub use commit::Written;
pub use error::CollectionError;
pub use filter::{Condition, Filter, Range, Values};
pub use handover::{Notice, PromoteMode};
pub use point::{CollectionConfig, KeyKind, MAX_PAYLOAD_BYTES, Point, PointKey, VectorError};
pub use publish::{Gate, Previous, Promotion};

use crate::{
    Index, OpenOptions, SearchStats,
    bits::{Bits, Hidden},
    disk::{Disk, FileDisk},
};
use arc_swap::ArcSwap;
use commit::{Group, Writer};
use delta::{Delta, MAX_SLOTS};
use keeper::Keeper;
use keys::node_of;
pub use merge::{MergeLimits, MergeReport};
use pins::Pins;
use processes::Follower;
use roxanne_core::{distance::DistanceFn, search::BeamSearch};
pub use salvage::{Salvage, SalvageReport};
pub use snapshot::SnapshotInfo;
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Acquire},
    },
};
use store::{NO_NODE, State, Store, View};
pub use verify::CollectionReport;

/// Times that a point is looked for which a merge moves meanwhile.
const MOST_LOOKS: u32 = 100;

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the device has it: it survives a loss of power.
    #[default]
    Disk,
    /// When the operating system has it: it survives the end of the process; a loss of power may take the last moments, as a whole.
    Os,
}

/// How to open a collection.
#[derive(Clone)]
pub struct CollectionOptions {
    /// How its base is opened, and within which memory.
    pub base: OpenOptions,
    /// Memory of vectors that are not in the base; writes beyond are refused.
    pub delta_bytes: u64,
    /// When a write counts as done.
    pub durability: Durability,
    /// Only look: any number of processes may, beside one that writes. They follow it, see [`Collection::catch_up`]; where nothing can be written to the
    /// directory, they see what was there when they opened it, and nothing is merged meanwhile.
    pub read_only: bool,
    /// Merge into the base, in the background, what gathers: where it is changed in place. Without it that happens when it is asked for.
    pub merges: bool,
    /// What writes the base's files, where they are changed in place.
    pub disk: Arc<dyn Disk>,
    /// What builds a base, where this merges by itself: the first, and others when there is no room left. Without it that happens when it is asked
    /// for, by a promotion.
    pub rebuild: Option<Arc<Rebuild>>,
    /// How bases take the place of others, unless a promotion says.
    pub mode: PromoteMode,
    /// Bytes of the disk that are left free: writes that put points are refused beyond, so that there is room to delete and to merge.
    pub disk_reserve: u64,
}

/// Builds a base of all points of a collection and promotes it, unless it is told to stop.
pub type Rebuild = dyn Fn(&Collection, &Arc<AtomicBool>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + Sync;

impl Default for CollectionOptions {
    fn default() -> CollectionOptions {
        CollectionOptions {
            base: OpenOptions::default(),
            delta_bytes: 1 << 30,
            durability: Durability::Disk,
            read_only: false,
            merges: true,
            disk: Arc::<FileDisk>::default(),
            rebuild: None,
            mode: PromoteMode::default(),
            disk_reserve: 256 << 20,
        }
    }
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Puts a point, in the place of the one of its key if there is one.
    Upsert(Point),
    /// Puts a point whose key must not be there.
    Insert(Point),
    /// Removes the point of a key, if there is one.
    Delete(PointKey),
}

/// One point found.
#[derive(Clone, Debug, PartialEq)]
pub struct PointHit {
    /// Its key.
    pub key: PointKey,
    /// How far it is.
    pub distance: f32,
}

/// What a search of a collection found, and what it took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Nearest first, then by key (of equals of the base at the end of the list those that lie first on disk are here); fewer than `k` only when
    /// there are no more, or the deadline came first.
    pub hits: Vec<PointHit>,
    /// The last batch that it saw.
    pub sequence: u64,
    /// Whether the search came to its end.
    pub complete: bool,
    /// Its cost: of the base, and the distances to vectors in memory.
    pub stats: SearchStats,
}

/// Where a collection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionStats {
    /// Batches so far.
    pub sequence: u64,
    /// Live points.
    pub points: u64,
    /// Points of the base generation, dead ones among them.
    pub base_points: u64,
    /// Those that were replaced or deleted since.
    pub base_dead: u64,
    /// Slots that such have left, for others to come.
    pub base_free: u64,
    /// Slots of the delta, dead ones among them.
    pub delta_points: u64,
    /// Those that were replaced or deleted.
    pub delta_dead: u64,
    /// Slots that the delta's graph has taken; the others are scanned.
    pub delta_linked: u64,
    /// Memory of the delta.
    pub delta_bytes: u64,
    /// Its limit.
    pub delta_allowed: u64,
}

/// Memory of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionMemory {
    /// Codes, codebook and navigation graph of the base, and neighbors where they are kept.
    pub resident_bytes: u64,
    /// Pages of the base that are, or may come to be, kept.
    pub kept_bytes: u64,
    /// Bytes of the base that lie in a file while another takes its place (see [`PromoteMode::Half`]).
    pub handed_over_bytes: u64,
    /// Vectors that are in no base yet.
    pub delta_bytes: u64,
    /// What base and delta may take.
    pub allowed_bytes: u64,
}

/// What a search sees, from its beginning to its end.
pub(crate) struct Snapshot {
    sequence: u64,
    base: Option<Index>,
    /// The last merge into it.
    merged: u64,
    hidden: Hidden,
    /// Dead nodes that a merge can take out.
    gone: u64,
    delta: Arc<Delta>,
    len: u32,
    delta_dead: Arc<Bits>,
    delta_bytes: u64,
}

struct Inner {
    path: PathBuf,
    config: CollectionConfig,
    distance: DistanceFn,
    options: CollectionOptions,
    store: Store,
    snapshot: ArcSwap<Snapshot>,
    pins: Pins,
    merging: Mutex<()>,
    writer: Mutex<Writer>,
    group: Group,
    keeper: Keeper,
    /// What the threads behind it failed at last.
    trouble: Mutex<Option<String>>,
    searches: Mutex<Vec<BeamSearch>>,
    /// Where this follows a writer.
    follower: Option<Follower>,
    /// Held while this is open: for writing, or for reading without following.
    _lock: Option<File>,
}

/// An opened collection. Cheap to clone; every thread may search it and write to it.
#[derive(Clone)]
pub struct Collection {
    inner: Arc<Handle>,
}

/// The last clone ends the threads behind it; what those threads themselves hold does not.
struct Handle {
    inner: Arc<Inner>,
    owns: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.owns {
            self.inner.keeper.stop();
        }
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CollectionError + '_ {
    move |error| CollectionError::Io { path: path.to_path_buf(), error }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is whole between any two statements that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a collection lies in the directory `path`.
pub fn is_collection(path: impl AsRef<Path>) -> bool {
    store::is_there(path.as_ref())
}

impl Collection {
    /// Makes an empty collection in the new directory `path`, and opens it.
    ///
    /// # Errors
    /// A shape that no collection has; something that is there already; what the file system says.
    pub fn create(path: impl AsRef<Path>, config: &CollectionConfig, options: &CollectionOptions) -> Result<Collection, CollectionError> {
        let path = path.as_ref();
        config.check()?;
        appear::appear(path, |partial| {
            Store::create(partial, config)?;
            processes::prepare(partial)
        })?;
        Collection::open(path, options)
    }

    /// Opens the collection in the directory `path`.
    ///
    /// # Errors
    /// No collection; another process that writes to it; damage; a base that does not fit its memory.
    pub fn open(path: impl AsRef<Path>, options: &CollectionOptions) -> Result<Collection, CollectionError> {
        let path = path.as_ref();
        if !store::is_there(path) {
            let detail = if path.is_dir() { "it has no store" } else { "no such directory" };
            return Err(CollectionError::NotACollection { path: path.to_path_buf(), detail: detail.to_string() });
        }
        let lock = if options.read_only { processes::enter(path)? } else { Some(processes::lock(path)?) };
        let follower = if options.read_only { Follower::enter(path) } else { None };
        if !options.read_only {
            processes::prepare(path)?;
        }
        let (store, config) = Store::open(path, options, follower.as_ref().map(Follower::store).as_deref())?;
        let distance = DistanceFn::new(config.metric, config.element, config.dim)?;
        let nothing = Writer::new(0, None, 0, Arc::new(Delta::new(distance, config.metric)));
        let mut inner = Inner {
            path: path.to_path_buf(),
            config,
            distance,
            options: options.clone(),
            store,
            snapshot: ArcSwap::from_pointee(nothing.snapshot()),
            pins: Pins::default(),
            merging: Mutex::default(),
            writer: Mutex::new(nothing),
            group: Group::default(),
            keeper: Keeper::default(),
            trouble: Mutex::default(),
            searches: Mutex::default(),
            follower,
            _lock: None,
        };
        let writer = inner.load_latest()?;
        inner.publish(&writer);
        inner.writer = Mutex::new(writer);
        // Mergers wait for those that follow only for what they may look at.
        inner._lock = lock.filter(|_| inner.follower.is_none());
        inner.say_what_is_seen()?;
        let inner = Arc::new(inner);
        keeper::start(&inner).map_err(io(path))?;
        Ok(Collection { inner: Arc::new(Handle { inner, owns: true }) })
    }

    /// The same collection, as the threads behind it use it.
    fn behind(inner: &Arc<Inner>) -> Collection {
        Collection { inner: Arc::new(Handle { inner: Arc::clone(inner), owns: false }) }
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.inner.inner
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.inner().path
    }

    /// Bytes of the disk that are free, beyond those that are left free.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn disk_free(&self) -> Result<u64, CollectionError> {
        Ok(self.inner().disk_free()?.saturating_sub(self.inner().options.disk_reserve))
    }

    /// What the threads behind it failed at last, in words; they try again after a while.
    pub fn trouble(&self) -> Option<String> {
        locked(&self.inner().trouble).clone()
    }

    /// What it is of.
    pub fn config(&self) -> &CollectionConfig {
        &self.inner().config
    }

    /// Where it stands.
    pub fn stats(&self) -> CollectionStats {
        let inner = self.inner();
        let snapshot = inner.snapshot.load();
        CollectionStats {
            sequence: snapshot.sequence,
            points: snapshot.live(),
            base_points: snapshot.hidden.from,
            base_dead: snapshot.hidden.dead.len(),
            base_free: snapshot.hidden.dead.len() - snapshot.hidden.linked,
            delta_points: u64::from(snapshot.len),
            delta_dead: snapshot.delta_dead.len(),
            delta_linked: u64::from(snapshot.delta.linked()),
            delta_bytes: snapshot.delta_bytes,
            delta_allowed: inner.options.delta_bytes,
        }
    }

    /// Memory by what it is for.
    pub fn memory(&self) -> CollectionMemory {
        let inner = self.inner();
        let snapshot = inner.snapshot.load();
        let info = snapshot.base.as_ref().map(Index::info);
        CollectionMemory {
            resident_bytes: info.map_or(0, |info| info.resident_bytes),
            kept_bytes: info.map_or(0, |info| info.kept_bytes),
            handed_over_bytes: snapshot.base.as_ref().map_or(0, |base| base.base.given.load(Acquire)),
            delta_bytes: snapshot.delta_bytes,
            allowed_bytes: inner.options.base.budget.ram.saturating_add(inner.options.delta_bytes),
        }
    }

    /// Makes all changes of a batch, or none. When it returns they are durable, and every later search sees them.
    ///
    /// # Errors
    /// The first bad change, by its place; too much in memory, or on the disk; a failing disk. Nothing is changed then, but for `WriteOutcomeUnknown`.
    pub fn write(&self, changes: Vec<Change>) -> Result<Written, CollectionError> {
        let inner = self.inner();
        if inner.options.read_only {
            return Err(CollectionError::ReadOnly { path: inner.path.clone() });
        }
        let puts = changes.iter().any(|change| !matches!(change, Change::Delete(_)));
        let prepared = inner.prepare(changes)?;
        if puts {
            inner.make_way()?;
        }
        inner.commit(prepared)
    }

    /// The point of a key.
    ///
    /// # Errors
    /// A failing disk; corruption.
    pub fn get(&self, key: &PointKey) -> Result<Option<Point>, CollectionError> {
        let inner = self.inner();
        if key.kind() != inner.config.keys {
            return Ok(None);
        }
        let (bytes, mut attempts) = (key.to_bytes(), 0);
        loop {
            let snapshot = inner.snapshot.load_full();
            let View { base, payload, row, deleted, node, .. } = inner.store.view(&bytes)?;
            // The store may be a moment ahead, with another base; then the snapshot is about to follow.
            if base != snapshot.base.as_ref().map(publish::name_of) {
                drop(locked(&inner.writer));
                attempts += 1;
                if attempts > MOST_LOOKS || (inner.options.read_only && inner.follower.is_none()) {
                    return Err(inner.is_behind());
                }
                continue;
            }
            let vector = match row {
                Some(row) if row.len() != inner.config.element.row_bytes(inner.config.dim) => {
                    return Err(inner.store.damaged(format!("the vector of key {key} is {} bytes", row.len())));
                }
                Some(row) => {
                    let mut vector = vec![0.0; inner.config.dim];
                    inner.config.element.decode(&row, &mut vector);
                    Some(vector)
                }
                None if deleted => None,
                None => {
                    let node = match node {
                        Some(node) => Some(node).filter(|&node| node != NO_NODE),
                        None => node_of(snapshot.base.as_ref(), key)?,
                    };
                    match node.zip(snapshot.base.as_ref()) {
                        // A reader that had fallen far behind has opened the base anew.
                        Some((_, base)) if attempts < MOST_LOOKS && !inner.snapshot.load().is_of(base) => {
                            attempts += 1;
                            continue;
                        }
                        Some((node, base)) => match base.key_and_vector_of(node)? {
                            Some((found, vector)) if inner.store.key_in(base, found)? == *key => Some(vector),
                            // It has left its slot since the store was looked at.
                            _ if attempts < MOST_LOOKS => {
                                attempts += 1;
                                continue;
                            }
                            _ => return Err(inner.store.damaged(format!("key {key} is not in node {node}, which the store says"))),
                        },
                        None => None,
                    }
                }
            };
            return Ok(vector.map(|vector| Point { key: key.clone(), vector, payload: payload.unwrap_or_default() }));
        }
    }

    /// The payload of a key's point; empty where it has none, or there is no point.
    ///
    /// # Errors
    /// A failing disk; corruption.
    pub fn payload(&self, key: &PointKey) -> Result<String, CollectionError> {
        self.inner().store.payload(&key.to_bytes())
    }

    /// Whether there is a point of this key.
    ///
    /// # Errors
    /// As [`Collection::get`].
    pub fn contains(&self, key: &PointKey) -> Result<bool, CollectionError> {
        Ok(self.get(key)?.is_some())
    }

    /// Live points.
    pub fn count(&self) -> u64 {
        self.inner().snapshot.load().live()
    }

    /// Waits until the graph in memory has taken every vector that was written before; searches are right without it, and faster after it.
    pub fn settle(&self) {
        self.inner().keeper.settle();
    }
}

impl Inner {
    /// What stands in the store, as a writer has it in memory.
    fn load(&self, state: State) -> Result<Writer, CollectionError> {
        let (path, store, config, options) = (&self.path, &self.store, &self.config, &self.options);
        let State { sequence, base, replaced, merged } = state;
        let (base, base_sequence, merged) = match base {
            None => (None, 0, 0),
            Some((name, sequence)) => {
                let merged = merge::recover(path, &name, store, merged, &*options.disk, options.read_only)?;
                // Who follows would read every page that a merge writes, one by one, where few are wanted.
                let of_base = OpenOptions { resident: options.base.resident && !options.read_only, ..options.base };
                let base = Index::open_with(path.join(&name), &of_base)?;
                publish::check_base(&base, config, &name).map_err(|detail| store.damaged(detail))?;
                if !options.read_only {
                    // Of a copy the base before may be no part.
                    if store.before()?.is_some_and(|before| !path.join(before.name).is_dir()) {
                        store.lose_before()?;
                    }
                    // Names in the base before are not told from others.
                    if store.before()?.is_none() {
                        store.forget_other_names(base.info().generation)?;
                    }
                    publish::remove_replaced(path, &name, replaced.as_deref());
                }
                (Some(base), sequence, merged)
            }
        };
        let nodes = base.as_ref().map_or(0, Index::nodes);
        let is_node = |node: u32| node == NO_NODE || u64::from(node) < nodes;
        let delta = Arc::new(Delta::new(self.distance, config.metric));
        let mut writer = Writer::new(sequence, base, base_sequence, delta);
        writer.merged = merged;
        writer.take_slots(store, |each| store.each_run(each))?;
        store.each_deleted(|_, _, node| {
            if !is_node(node) {
                return Err(store.damaged(format!("a deletion of node {node} of {nodes}")));
            }
            writer.stay_away(node);
            Ok(())
        })?;
        store.each_vector(|key, node, row| {
            let key = PointKey::from_bytes(config.keys, key).filter(|_| row.len() == config.element.row_bytes(config.dim) && is_node(node));
            let Some(key) = key else { return Err(store.damaged(format!("a vector of {} bytes in the place of node {node}", row.len()))) };
            if u64::from(writer.len) >= MAX_SLOTS {
                return Err(CollectionError::DeltaFull { bytes: writer.delta_bytes, allowed: writer.delta_bytes });
            }
            writer.append(key, row.into(), node);
            Ok(())
        })?;
        Ok(writer)
    }
}

impl Snapshot {
    /// Whether its base is this very one.
    fn is_of(&self, base: &Index) -> bool {
        self.base.as_ref().is_some_and(|ours| Arc::ptr_eq(&ours.base, &base.base))
    }

    /// Live points.
    fn live(&self) -> u64 {
        self.hidden.from - self.hidden.dead.len() + u64::from(self.len) - self.delta_dead.len()
    }
}
