//! The collections of a data directory, by name. A name is a directory's and never a path.

use crate::{
    ServeError,
    access::Caller,
    aliases::Aliases,
    body::{self, Ignored, Lacking},
    canary::Canary,
    files,
    reply::Refusal,
    route::Call,
};
use hyper::StatusCode;
use roxanne_core::{element::ElementType, metric::Metric};
use roxanne_engine::collection::{
    Collection, CollectionConfig, CollectionError, CollectionOptions, KeyKind, PromoteMode, Rebuild, is_collection,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a removal waits for requests, and between two looks at whether they have ended.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);
/// What the directory of a collection is called behind its name while it is removed.
const DELETED: &str = ".deleted";
/// Why a collection is not served.
const NOT_OPEN: &str = "could not be opened; the server's log says why";
const CLOSING: &str = "is on its way out; try again";
/// And what is to take its place.
const RECOVERED: &str = ".recovered";

/// One that is served.
pub(crate) struct Served {
    pub(crate) collection: Collection,
    /// Held for writing by what reads a point and writes it back changed, for reading by all other writes.
    pub(crate) changing: RwLock<()>,
    /// Builds a base, where there is a builder.
    pub(crate) rebuild: Option<Arc<Rebuild>>,
    /// Measures recall.
    pub(crate) canary: Canary,
    /// Others shall take over: its base is about to be drained, or is.
    pub(crate) leaving: AtomicBool,
}

pub(crate) struct Collections {
    directory: PathBuf,
    options: CollectionOptions,
    pub(crate) aliases: Aliases,
    open: Mutex<BTreeMap<String, Arc<Served>>>,
    /// Those that are not served, and why: damaged, or on their way out.
    shut: Mutex<BTreeMap<String, &'static str>>,
    /// One is made or removed at a time.
    changing: Mutex<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Collections {
    /// Opens all that lie in `data`.
    pub(crate) fn open(data: &Path, options: CollectionOptions) -> Result<Collections, ServeError> {
        let directory = data.join("collections");
        let failed = |error| ServeError::Data { path: directory.clone(), error };
        fs::create_dir_all(&directory).map_err(failed)?;
        let aliases = Aliases::open(data)?;
        finish_recoveries(&directory).map_err(failed)?;
        let (mut open, mut shut) = (BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // What a removal was cut off in.
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with('.') && name.ends_with(DELETED)) {
                fs::remove_dir_all(&path).map_err(failed)?;
                continue;
            }
            let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| files::is_name(name)) else { continue };
            if is_collection(&path) {
                // One that is damaged keeps no other from being served.
                match Collection::open(&path, &options) {
                    Ok(collection) => _ = open.insert(name.to_string(), Arc::new(Served::new(collection, &options))),
                    Err(error) => {
                        tracing::error!(collection = name, %error, "a collection is not served");
                        shut.insert(name.to_string(), NOT_OPEN);
                    }
                }
            }
        }
        Ok(Collections { directory, options, aliases, open: Mutex::new(open), shut: Mutex::new(shut), changing: Mutex::default() })
    }

    /// How bases take the place of others, unless somebody says.
    pub(crate) fn mode(&self) -> PromoteMode {
        self.options.mode
    }

    pub(crate) fn names(&self) -> Vec<String> {
        locked(&self.open).keys().cloned().collect()
    }

    pub(crate) fn all(&self) -> Vec<(String, Arc<Served>)> {
        locked(&self.open).iter().map(|(name, served)| (name.clone(), Arc::clone(served))).collect()
    }

    /// Whether there is a collection of this very name.
    pub(crate) fn is_there(&self, name: &str) -> bool {
        locked(&self.open).contains_key(name)
    }

    /// The collection of this name, or of which it is an alias.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Served>> {
        let found = locked(&self.open).get(name).cloned();
        found.or_else(|| {
            // One lock at a time: who changes aliases asks for collections meanwhile.
            let own = self.aliases.find(name)?;
            locked(&self.open).get(&own).cloned()
        })
    }

    /// The collection's own name, where `name` is one or an alias of it.
    pub(crate) fn own_name(&self, name: &str) -> Result<String, Refusal> {
        let own = if self.is_there(name) { Some(name.to_string()) } else { self.aliases.find(name) };
        own.ok_or_else(|| not_there(name))
    }

    pub(crate) fn get(&self, name: &str) -> Result<Arc<Served>, Refusal> {
        self.find(name).ok_or_else(|| match locked(&self.shut).get(name) {
            Some(why) => Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                if *why == NOT_OPEN { "corruption" } else { "busy" },
                format!("Collection `{name}` {why}"),
            ),
            None => not_there(name),
        })
    }

    /// Those that could not be opened.
    pub(crate) fn not_open(&self) -> Vec<String> {
        locked(&self.shut).iter().filter(|(_, why)| **why == NOT_OPEN).map(|(name, _)| name.clone()).collect()
    }

    /// Whether who asks may see a collection: by its own name, or by an alias of it.
    pub(crate) fn may_see(&self, caller: &Caller, own: &str) -> bool {
        caller.sees(own) || self.aliases.of(own).iter().any(|alias| caller.sees(alias))
    }

    pub(crate) fn create(&self, name: &str, config: &CollectionConfig) -> Result<(), Refusal> {
        if !files::is_name(name) {
            return Err(Refusal::bad("bad_name", files::NAMES).field("collection"));
        }
        let exists = || Refusal::conflict("exists", format!("Wrong input: Collection `{name}` already exists!"));
        let _one_at_a_time = locked(&self.changing);
        // An alias too.
        if self.find(name).is_some() {
            return Err(exists());
        }
        let path = self.directory.join(name);
        // One that is there and is not served is somebody's.
        if fs::symlink_metadata(&path).is_ok() {
            return Err(exists());
        }
        let made = Collection::create(&path, config, &self.options).map_err(|error| match error {
            CollectionError::Exists { .. } => exists(),
            error => error.into(),
        })?;
        tracing::info!(collection = name, dim = config.dim, metric = config.metric.name(), "a collection was made");
        locked(&self.open).insert(name.to_string(), Arc::new(Served::new(made, &self.options)));
        Ok(())
    }

    /// Removes one, and its aliases; false when there was none.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, Refusal> {
        if !files::is_name(name) {
            return Err(Refusal::bad("bad_name", files::NAMES).field("collection"));
        }
        let _one_at_a_time = locked(&self.changing);
        let there = self.close(name)?;
        // What a recovery left that failed must not come back in its place.
        remove(&self.directory.join(format!(".{name}{RECOVERED}")))?;
        if there {
            self.put_away(name)?;
        }
        self.aliases.forget(name)?;
        tracing::info!(collection = name, there, "a collection was removed");
        Ok(there)
    }

    /// Makes a collection of a snapshot, in the place of the one that is there.
    pub(crate) fn recover(&self, name: &str, snapshot: &Path) -> Result<(), Refusal> {
        if !files::is_name(name) {
            return Err(Refusal::bad("bad_name", files::NAMES).field("collection"));
        }
        let _one_at_a_time = locked(&self.changing);
        if self.aliases.find(name).is_some() {
            return Err(Refusal::bad("bad_name", format!("{name} is an alias")));
        }
        let (path, fresh) = (self.directory.join(name), self.directory.join(format!(".{name}{RECOVERED}")));
        remove(&fresh)?;
        // What is there serves until all of the other is on the disk and was seen to open.
        let prepare = || -> Result<bool, Refusal> {
            Collection::restore(snapshot, &fresh)?;
            drop(Collection::open(&fresh, &self.options)?);
            self.close(name)
        };
        let there = prepare().inspect_err(|_| _ = remove(&fresh))?;
        // A crash from here on leaves the other to the next start.
        if there {
            self.put_away(name)?;
        }
        fs::rename(&fresh, &path).and_then(|()| files::sync_directory(&self.directory)).map_err(|error| files::failed(&path, error))?;
        self.open_again(name)
    }

    /// Takes one out of service; false when there was none. Requests that use it come to their end first: its store must be closed before another may
    /// lie there.
    fn close(&self, name: &str) -> Result<bool, Refusal> {
        let Some(served) = locked(&self.open).get(name).cloned() else {
            // What could not be opened is closed.
            return Ok(locked(&self.shut).remove(name).is_some());
        };
        // Nobody else finds it from here on.
        locked(&self.shut).insert(name.to_string(), CLOSING);
        let _not_any_more = Shut { of: self, name };
        locked(&self.open).remove(name);
        let begin = Instant::now();
        while Arc::strong_count(&served) > 1 {
            if begin.elapsed() > PATIENCE {
                locked(&self.open).insert(name.to_string(), served);
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", format!("Collection `{name}` is in use; try again")));
            }
            thread::sleep(LOOK);
        }
        Ok(true)
    }

    /// Removes the directory of one that is closed: first by one rename, so that a crash leaves all of it or none under its name.
    fn put_away(&self, name: &str) -> Result<(), Refusal> {
        let (path, gone) = (self.directory.join(name), self.directory.join(format!(".{name}{DELETED}")));
        remove(&gone)?;
        if let Err(error) = fs::rename(&path, &gone) {
            // It serves on where it can.
            let _ = self.open_again(name);
            return Err(files::failed(&path, error));
        }
        files::sync_directory(&self.directory).map_err(|error| files::failed(&self.directory, error))?;
        // What stays of it goes at the next start.
        let _ = fs::remove_dir_all(&gone);
        Ok(())
    }

    fn open_again(&self, name: &str) -> Result<(), Refusal> {
        let collection = Collection::open(self.directory.join(name), &self.options)?;
        locked(&self.open).insert(name.to_string(), Arc::new(Served::new(collection, &self.options)));
        Ok(())
    }
}

/// Takes a name off the list of those that are on their way out.
struct Shut<'a> {
    of: &'a Collections,
    name: &'a str,
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        locked(&self.of.shut).remove(self.name);
    }
}

/// Removes a directory, if it is there.
fn remove(path: &Path) -> Result<(), Refusal> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(files::failed(path, error)),
        _ => Ok(()),
    }
}

fn not_there(name: &str) -> Refusal {
    Refusal::not_found(format!("Collection `{name}` doesn't exist!"))
}

/// What a crash left of recoveries: where the old collection had been put away the other takes its name, else it goes.
fn finish_recoveries(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix('.')?.strip_suffix(RECOVERED));
        let Some(target) = name.filter(|name| files::is_name(name)).map(|name| directory.join(name)) else { continue };
        if target.exists() { fs::remove_dir_all(&path)? } else { fs::rename(&path, &target)? }
    }
    Ok(())
}

impl Served {
    /// Whether its searches are refused, or will be soon.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed) || self.collection.is_drained()
    }

    fn new(collection: Collection, options: &CollectionOptions) -> Served {
        Served {
            collection,
            changing: RwLock::default(),
            rebuild: options.rebuild.clone(),
            canary: Canary::default(),
            leaving: AtomicBool::new(false),
        }
    }
}

/// What a new collection is made of.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    #[schemars(with = "Vectors")]
    vectors: Option<Value>,
    #[serde(default)]
    sparse_vectors: Lacking,
    #[serde(default)]
    init_from: Lacking,
    #[serde(default)]
    #[allow(dead_code)]
    shard_number: Ignored,
    #[serde(default)]
    sharding_method: Lacking,
    #[serde(default)]
    #[allow(dead_code)]
    replication_factor: Ignored,
    #[serde(default)]
    #[allow(dead_code)]
    write_consistency_factor: Ignored,
    #[serde(default)]
    #[allow(dead_code)]
    on_disk_payload: Ignored,
    #[serde(default)]
    #[allow(dead_code)]
    hnsw_config: Ignored,
    #[serde(default)]
    #[allow(dead_code)]
    wal_config: Ignored,
    #[serde(default)]
    #[allow(dead_code)]
    optimizers_config: Ignored,
    #[serde(default)]
    #[allow(dead_code)]
    quantization_config: Ignored,
    #[serde(default)]
    strict_mode_config: Lacking,
    #[serde(default)]
    #[allow(dead_code)]
    metadata: Ignored,
}

/// The vectors of its points: one a point, without a name.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Vectors {
    /// Coordinates of a vector.
    #[schemars(range(min = 1, max = 8192))]
    size: usize,
    distance: Distance,
    #[serde(default)]
    datatype: Datatype,
    #[serde(default)]
    #[allow(dead_code)]
    on_disk: Ignored,
    #[serde(default)]
    #[allow(dead_code)]
    hnsw_config: Ignored,
    #[serde(default)]
    #[allow(dead_code)]
    quantization_config: Ignored,
    #[serde(default)]
    multivector_config: Lacking,
}

/// What near means.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
enum Distance {
    Cosine,
    Dot,
    Euclid,
    Manhattan,
}

/// The type of a coordinate.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Datatype {
    #[default]
    Float32,
    Float16,
    Uint8,
}

impl Create {
    pub(crate) fn config(self) -> Result<CollectionConfig, Refusal> {
        let lacking =
            [("sparse_vectors", &self.sparse_vectors), ("init_from", &self.init_from), ("sharding_method", &self.sharding_method)];
        Lacking::none_of(&lacking)?;
        Lacking::none_of(&[("strict_mode_config", &self.strict_mode_config)])?;
        let mut vectors = self.vectors.ok_or_else(|| Refusal::bad("bad_input", "vectors is missing").field("vectors"))?;
        // The one without a name, which clients may name "".
        if let Some(one) = vectors.as_object_mut().filter(|names| names.len() == 1).and_then(|names| names.remove("")) {
            vectors = one;
        }
        let of_names = |names: &serde_json::Map<String, Value>| !names.is_empty() && names.values().all(Value::is_object);
        if vectors.as_object().is_some_and(of_names) {
            return Err(Refusal::not_there("several vectors with names under one point").field("vectors"));
        }
        let Vectors { size, distance, datatype, multivector_config, .. } = body::read_part(vectors, "vectors")?;
        Lacking::none_of(&[("multivector_config", &multivector_config)])?;
        let metric = match distance {
            Distance::Cosine => Metric::Cosine,
            Distance::Dot => Metric::InnerProduct,
            Distance::Euclid => Metric::L2,
            Distance::Manhattan => Metric::Manhattan,
        };
        let element = match datatype {
            Datatype::Float32 => ElementType::F32,
            Datatype::Float16 => ElementType::F16,
            Datatype::Uint8 => ElementType::U8,
        };
        // Ids are numbers or UUIDs, both as texts.
        Ok(CollectionConfig { dim: size, metric, element, keys: KeyKind::Strings })
    }
}

/// Of which field of payloads an index is wanted.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FieldIndex {
    #[allow(dead_code)]
    field_name: String,
    #[serde(default)]
    #[allow(dead_code)]
    field_schema: Ignored,
    #[serde(default)]
    #[allow(dead_code)]
    field_type: Ignored,
}

/// Whether it is there.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Exists {
    pub(crate) exists: bool,
}

/// Names of collections.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Names {
    collections: Vec<Name>,
}

#[derive(Serialize, JsonSchema)]
struct Name {
    name: String,
}

/// `GET collections`: those that the caller may see.
pub(crate) fn list(call: &Call) -> Names {
    let names = call.server.collections.names().into_iter().filter(|name| call.sees(name));
    Names { collections: names.map(|name| Name { name }).collect() }
}

/// What a collection is and where it stands, in the fields that clients of Qdrant look for.
pub(crate) fn info(served: &Served) -> Value {
    let (config, stats) = (served.collection.config(), served.collection.stats());
    let distance = match config.metric {
        Metric::Cosine => "Cosine",
        Metric::InnerProduct => "Dot",
        Metric::L2 => "Euclid",
        Metric::Manhattan => "Manhattan",
        Metric::Hamming => "Hamming",
    };
    let trouble = served.collection.trouble();
    json!({
        "status": if trouble.is_some() { "yellow" } else { "green" },
        "optimizer_status": trouble.map_or(json!("ok"), |error| json!({"error": error})),
        "points_count": stats.points,
        "indexed_vectors_count": stats.points.saturating_sub(stats.delta_points.saturating_sub(stats.delta_linked)),
        "segments_count": 1 + u64::from(stats.base_points > 0),
        "config": {
            "params": {"vectors": {"size": config.dim, "distance": distance}, "shard_number": 1, "replication_factor": 1, "on_disk_payload": true},
            "hnsw_config": {"m": 0, "ef_construct": 0, "full_scan_threshold": 0},
            "optimizer_config": {"deleted_threshold": 0.0, "vacuum_min_vector_number": 0, "default_segment_number": 0, "flush_interval_sec": 0},
        },
        "payload_schema": {},
        "roxanne": {
            "sequence": stats.sequence, "base_points": stats.base_points, "base_dead": stats.base_dead - stats.base_free,
            "base_free": stats.base_free, "delta_points": stats.delta_points - stats.delta_dead, "delta_bytes": stats.delta_bytes,
            "delta_allowed_bytes": stats.delta_allowed, "datatype": config.element.name(),
        },
    })
}

/// Where a collection stands, and the bases that a promotion and a rollback change.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Standing {
    points: u64,
    /// The last batch.
    sequence: u64,
    base_points: u64,
    /// Points that are in no base yet.
    in_memory: u64,
    /// The base, in hexadecimal digits.
    generation: Option<String>,
    /// The base before, where it is kept.
    previous: Option<Previous>,
    /// Recall@10 of queries that were asked, against all points.
    canary_recall: Option<f64>,
}

#[derive(Serialize, JsonSchema)]
struct Previous {
    /// The batch after which it stood.
    sequence: u64,
}

/// `GET /v1/collections/C`.
pub(crate) fn standing(served: &Served) -> Result<Standing, Refusal> {
    let (stats, previous) = (served.collection.stats(), served.collection.previous()?);
    Ok(Standing {
        points: stats.points,
        sequence: stats.sequence,
        base_points: stats.base_points,
        in_memory: stats.delta_points - stats.delta_dead,
        generation: served.collection.base_generation().map(|generation| format!("{generation:016x}")),
        previous: previous.map(|sequence| Previous { sequence }),
        canary_recall: served.canary.recall().map(|(recall, _)| recall),
    })
}
