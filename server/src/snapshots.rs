//! Copies of collections in the data directory, under names: `snapshots/COLLECTION/SNAPSHOT`.

use crate::{
    collections::{Collections, Served},
    files,
    reply::Refusal,
};
use roxanne_engine::collection::SnapshotInfo;
use serde_json::{Value, json};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub(crate) struct Snapshots {
    directory: PathBuf,
}

impl Snapshots {
    pub(crate) fn new(data: &Path) -> Snapshots {
        Snapshots { directory: data.join("snapshots") }
    }

    /// `POST snapshots`.
    pub(crate) fn create(&self, collection: &str, served: &Served) -> Result<Value, Refusal> {
        let of = self.directory.join(collection);
        fs::create_dir_all(&of).map_err(|error| files::failed(&of, error))?;
        let now = files::now().replace(':', "-");
        let free = |number: u32| format!("{now}{}", if number == 0 { String::new() } else { format!("-{number}") });
        let name = (0..).map(free).find(|name| !of.join(name).exists()).unwrap_or_default();
        served.collection.snapshot(of.join(&name))?;
        shown(&of.join(&name), &name)
    }

    /// `GET snapshots`.
    pub(crate) fn list(&self, collection: &str) -> Result<Value, Refusal> {
        let of = self.directory.join(collection);
        let entries = match fs::read_dir(&of) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(json!([])),
            entries => entries.map_err(|error| files::failed(&of, error))?,
        };
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.retain(|name| files::is_name(name));
        names.sort_unstable();
        // One that is damaged hides no other.
        Ok(names.iter().filter_map(|name| shown(&of.join(name), name).ok()).collect())
    }

    /// `DELETE snapshots/NAME`.
    pub(crate) fn remove(&self, collection: &str, name: &str) -> Result<Value, Refusal> {
        let path = self.find(collection, name)?;
        // Whole or not at all under its name.
        let gone = path.with_file_name(format!(".{name}"));
        fs::rename(&path, &gone).and_then(|()| fs::remove_dir_all(&gone)).map_err(|error| files::failed(&path, error))?;
        Ok(json!(true))
    }

    /// `PUT snapshots/recover`: the collection becomes what the snapshot holds. `location` ends with the name of one that lies here; nothing is fetched.
    pub(crate) fn recover(&self, collections: &Collections, collection: &str, body: &Value) -> Result<Value, Refusal> {
        let location = body.get("location").and_then(Value::as_str).ok_or_else(|| Refusal::bad("location: a text is expected"))?;
        if location.contains("://") && !location.starts_with("file://") {
            return Err(Refusal::not_there("a snapshot from another server (location)"));
        }
        let name = location.rsplit('/').next().unwrap_or_default();
        collections.recover(collection, &self.find(collection, name)?)?;
        Ok(json!(true))
    }

    fn find(&self, collection: &str, name: &str) -> Result<PathBuf, Refusal> {
        let path = self.directory.join(collection).join(name);
        let is_there = files::is_name(collection) && files::is_name(name) && path.is_dir();
        if is_there { Ok(path) } else { Err(Refusal::not_found(format!("Snapshot `{name}` of `{collection}` doesn't exist!"))) }
    }
}

/// As Qdrant shows it. Its checksum is of one file; here every file has one of its own, within.
fn shown(path: &Path, name: &str) -> Result<Value, Refusal> {
    let info = SnapshotInfo::read(path)?;
    let made = fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(|error| files::failed(path, error))?;
    Ok(json!({"name": name, "creation_time": files::utc(made), "size": info.bytes, "checksum": null}))
}
