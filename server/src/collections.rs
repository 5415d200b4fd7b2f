//! The collections of a data directory, by name. A name is a directory's and never a path.

use crate::{ServeError, aliases::Aliases, files, reply::Refusal};
use hyper::StatusCode;
use roxanne_engine::collection::{
    Collection, CollectionConfig, CollectionError, CollectionOptions, CollectionStats, Rebuild, is_collection,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

/// How long a removal waits for requests, and between two looks at whether they have ended.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);
/// What the directory of a collection is called behind its name while it is removed.
const DELETED: &str = ".deleted";
/// And what is to take its place.
const RECOVERED: &str = ".recovered";

/// One that is served.
pub(crate) struct Served {
    pub(crate) collection: Collection,
    /// Held for writing by what reads a point and writes it back changed, for reading by all other writes.
    pub(crate) changing: RwLock<()>,
    /// Builds a base, where there is a builder.
    pub(crate) rebuild: Option<Arc<Rebuild>>,
}

pub(crate) struct Collections {
    directory: PathBuf,
    options: CollectionOptions,
    pub(crate) aliases: Aliases,
    open: Mutex<BTreeMap<String, Arc<Served>>>,
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
        let mut open = BTreeMap::new();
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
                    Err(error) => eprintln!("error: {name} is not served: {error}"),
                }
            }
        }
        Ok(Collections { directory, options, aliases, open: Mutex::new(open), changing: Mutex::default() })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        locked(&self.open).keys().cloned().collect()
    }

    pub(crate) fn stats(&self) -> Vec<(String, CollectionStats)> {
        locked(&self.open).iter().map(|(name, served)| (name.clone(), served.collection.stats())).collect()
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
        self.find(name).ok_or_else(|| not_there(name))
    }

    pub(crate) fn create(&self, name: &str, config: &CollectionConfig) -> Result<(), Refusal> {
        if !files::is_name(name) {
            return Err(Refusal::bad(files::NAMES));
        }
        let exists = || Refusal::new(StatusCode::CONFLICT, format!("Wrong input: Collection `{name}` already exists!"));
        let _one_at_a_time = locked(&self.changing);
        // An alias too.
        if self.find(name).is_some() {
            return Err(exists());
        }
        let path = self.directory.join(name);
        let made = Collection::create(&path, config, &self.options).map_err(|error| match error {
            CollectionError::Exists { .. } => exists(),
            error => {
                // It may be there and not open.
                let _ = fs::remove_dir_all(&path);
                error.into()
            }
        })?;
        locked(&self.open).insert(name.to_string(), Arc::new(Served::new(made, &self.options)));
        Ok(())
    }

    /// Removes one, and its aliases; false when there was none.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, Refusal> {
        let _one_at_a_time = locked(&self.changing);
        let there = self.close(name)?;
        // What a recovery left that failed must not come back in its place.
        remove(&self.directory.join(format!(".{name}{RECOVERED}")))?;
        if there {
            self.put_away(name)?;
        }
        self.aliases.forget(name)?;
        Ok(there)
    }

    /// Makes a collection of a snapshot, in the place of the one that is there.
    pub(crate) fn recover(&self, name: &str, snapshot: &Path) -> Result<(), Refusal> {
        let _one_at_a_time = locked(&self.changing);
        if self.aliases.find(name).is_some() {
            return Err(Refusal::bad(format!("{name} is an alias")));
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
        let Some(served) = locked(&self.open).remove(name) else { return Ok(false) };
        let begin = Instant::now();
        while Arc::strong_count(&served) > 1 {
            if begin.elapsed() > PATIENCE {
                locked(&self.open).insert(name.to_string(), served);
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("Collection `{name}` is in use; try again")));
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
    fn new(collection: Collection, options: &CollectionOptions) -> Served {
        Served { collection, changing: RwLock::default(), rebuild: options.rebuild.clone() }
    }
}
