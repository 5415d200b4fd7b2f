//! Copies of collections in the data directory, under names: `snapshots/COLLECTION/SNAPSHOT`.

use crate::{
    body::{Ignored, Lacking},
    collections::{Collections, Served},
    files,
    reply::Refusal,
};
use roxanne_engine::collection::SnapshotInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A copy, as Qdrant shows it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Snapshot {
    pub(crate) name: String,
    creation_time: String,
    /// Bytes.
    size: u64,
    /// None: its checksum would be of one file; here every file has one of its own, within.
    checksum: Option<String>,
}

/// Which copy a collection becomes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recover {
    /// Ends with the name of one that lies here; nothing is fetched.
    location: String,
    #[serde(default)]
    #[allow(dead_code)]
    priority: Ignored,
    #[serde(default)]
    checksum: Lacking,
    #[serde(default)]
    #[allow(dead_code)]
    api_key: Ignored,
}

pub(crate) struct Snapshots {
    directory: PathBuf,
}

impl Snapshots {
    pub(crate) fn new(data: &Path) -> Snapshots {
        Snapshots { directory: data.join("snapshots") }
    }

    /// `POST snapshots`.
    pub(crate) fn create(&self, collection: &str, served: &Served) -> Result<Snapshot, Refusal> {
        let of = self.directory.join(collection);
        fs::create_dir_all(&of).map_err(|error| files::failed(&of, error))?;
        let now = files::now().replace(':', "-");
        let free = |number: u32| format!("{now}{}", if number == 0 { String::new() } else { format!("-{number}") });
        let name = (0..).map(free).find(|name| !of.join(name).exists()).unwrap_or_default();
        served.collection.snapshot(of.join(&name))?;
        shown(&of.join(&name), &name)
    }

    /// `GET snapshots`.
    pub(crate) fn list(&self, collection: &str) -> Result<Vec<Snapshot>, Refusal> {
        let of = self.directory.join(collection);
        let entries = match fs::read_dir(&of) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| files::failed(&of, error))?,
        };
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.retain(|name| files::is_name(name));
        names.sort_unstable();
        // One that is damaged hides no other.
        Ok(names.iter().filter_map(|name| shown(&of.join(name), name).ok()).collect())
    }

    /// `DELETE snapshots/NAME`.
    pub(crate) fn remove(&self, collection: &str, name: &str) -> Result<bool, Refusal> {
        let path = self.find(collection, name)?;
        // Whole or not at all under its name.
        let gone = path.with_file_name(format!(".{name}"));
        fs::rename(&path, &gone).and_then(|()| fs::remove_dir_all(&gone)).map_err(|error| files::failed(&path, error))?;
        Ok(true)
    }

    /// `PUT snapshots/recover`: the collection becomes what the snapshot holds.
    pub(crate) fn recover(&self, collections: &Collections, collection: &str, body: &Recover) -> Result<bool, Refusal> {
        Lacking::none_of(&[("checksum", &body.checksum)])?;
        let location = &body.location;
        if location.contains("://") && !location.starts_with("file://") {
            return Err(Refusal::not_there("a snapshot from another server (location)"));
        }
        let name = location.rsplit('/').next().unwrap_or_default();
        collections.recover(collection, &self.find(collection, name)?)?;
        Ok(true)
    }

    fn find(&self, collection: &str, name: &str) -> Result<PathBuf, Refusal> {
        let path = self.directory.join(collection).join(name);
        let is_there = files::is_name(collection) && files::is_name(name) && path.is_dir();
        if is_there { Ok(path) } else { Err(Refusal::not_found(format!("Snapshot `{name}` of `{collection}` doesn't exist!"))) }
    }
}

fn shown(path: &Path, name: &str) -> Result<Snapshot, Refusal> {
    let info = SnapshotInfo::read(path)?;
    let made = fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(|error| files::failed(path, error))?;
    Ok(Snapshot { name: name.to_string(), creation_time: files::utc(made), size: info.bytes, checksum: None })
}
