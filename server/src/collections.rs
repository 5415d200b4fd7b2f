//! The collections of a data directory, by name. A name is a directory's and never a path.

use crate::{ServeError, reply::Refusal};
use hyper::StatusCode;
use roxanne_engine::collection::{Collection, CollectionConfig, CollectionError, CollectionOptions, CollectionStats, is_collection};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

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
            let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name)) else { continue };
            if is_collection(&path) {
                open.insert(name.to_string(), Arc::new(Served::new(Collection::open(&path, &options)?)));
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
        let made = Collection::create(self.directory.join(name), config, &self.options);
        let made = made.map_err(|error| if matches!(error, CollectionError::Exists { .. }) { exists() } else { error.into() })?;
        locked(&self.open).insert(name.to_string(), Arc::new(Served::new(made)));
        Ok(())
    }

    /// Removes one; false when there was none. Requests that still use it come to their end.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, Refusal> {
        let _one_at_a_time = locked(&self.changing);
        let Some(served) = locked(&self.open).remove(name) else { return Ok(false) };
        let path = self.directory.join(name);
        // First by one rename, so that a crash leaves all of it or none under its name.
        let gone = self.directory.join(format!(".{name}.deleted"));
        let removed =
            fs::remove_dir_all(&gone).or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) });
        let outcome = removed.and_then(|()| fs::rename(&path, &gone));
        drop(served);
        outcome.and_then(|()| fs::remove_dir_all(&gone)).map_err(|error| CollectionError::Io { path, error })?;
        Ok(true)
    }
}

impl Served {
    fn new(collection: Collection) -> Served {
        Served { collection, changing: RwLock::default() }
    }
}
