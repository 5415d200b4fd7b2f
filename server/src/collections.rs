//! The collections of a data directory, by name. A name is a directory's and never a path.

use crate::{ServeError, reply::Refusal};
use hyper::StatusCode;
use roxanne_engine::collection::{Collection, CollectionConfig, CollectionError, CollectionOptions, CollectionStats, is_collection};
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

/// One that is served.
pub(crate) struct Served {
    pub(crate) collection: Collection,
    /// Held for writing by what reads a point and writes it back changed, for reading by all other writes.
    pub(crate) changing: RwLock<()>,
}

pub(crate) struct Collections {
    directory: PathBuf,
    options: CollectionOptions,
    open: Mutex<BTreeMap<String, Arc<Served>>>,
    /// One is made or removed at a time.
    changing: Mutex<()>,
}

/// Whether a collection may be called so.
fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_allowed)
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
        let mut open = BTreeMap::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // What a removal was cut off in.
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with('.') && name.ends_with(DELETED)) {
                fs::remove_dir_all(&path).map_err(failed)?;
                continue;
            }
            let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name)) else { continue };
            if is_collection(&path) {
                // One that is damaged keeps no other from being served.
                match Collection::open(&path, &options) {
                    Ok(collection) => _ = open.insert(name.to_string(), Arc::new(Served::new(collection))),
                    Err(error) => eprintln!("error: {name} is not served: {error}"),
                }
            }
        }
        Ok(Collections { directory, options, open: Mutex::new(open), changing: Mutex::default() })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        locked(&self.open).keys().cloned().collect()
    }

    pub(crate) fn stats(&self) -> Vec<(String, CollectionStats)> {
        locked(&self.open).iter().map(|(name, served)| (name.clone(), served.collection.stats())).collect()
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Served>> {
        locked(&self.open).get(name).cloned()
    }

    pub(crate) fn get(&self, name: &str) -> Result<Arc<Served>, Refusal> {
        self.find(name).ok_or_else(|| Refusal::not_found(format!("Collection `{name}` doesn't exist!")))
    }

    pub(crate) fn create(&self, name: &str, config: &CollectionConfig) -> Result<(), Refusal> {
        if !is_name(name) {
            return Err(Refusal::bad("the name of a collection is 1 to 200 letters, digits, _, - and ., and does not begin with a dot"));
        }
        let exists = || Refusal::new(StatusCode::CONFLICT, format!("Wrong input: Collection `{name}` already exists!"));
        let _one_at_a_time = locked(&self.changing);
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
        locked(&self.open).insert(name.to_string(), Arc::new(Served::new(made)));
        Ok(())
    }

    /// Removes one; false when there was none. Requests that use it come to their end first: its store must be closed before another may lie there.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, Refusal> {
        let _one_at_a_time = locked(&self.changing);
        let Some(served) = locked(&self.open).remove(name) else { return Ok(false) };
        let begin = Instant::now();
        while Arc::strong_count(&served) > 1 {
            if begin.elapsed() > PATIENCE {
                locked(&self.open).insert(name.to_string(), served);
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("Collection `{name}` is in use; try again")));
            }
            thread::sleep(LOOK);
        }
        drop(served);
        let (path, gone) = (self.directory.join(name), self.directory.join(format!(".{name}{DELETED}")));
        // First by one rename, so that a crash leaves all of it or none under its name.
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error| Refusal::from(CollectionError::Io { path, error })
        };
        if let Err(error) = fs::rename(&path, &gone) {
            if let Ok(again) = Collection::open(&path, &self.options) {
                locked(&self.open).insert(name.to_string(), Arc::new(Served::new(again)));
            }
            return Err(failed(&path)(error));
        }
        fs::remove_dir_all(&gone).map_err(failed(&gone))?;
        Ok(true)
    }
}

impl Served {
    fn new(collection: Collection) -> Served {
        Served { collection, changing: RwLock::default() }
    }
}
