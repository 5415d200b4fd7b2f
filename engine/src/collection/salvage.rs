//! What can still be read of a collection whose base is damaged.
//!
//! The records of the base hold keys and vectors; its codes, its navigation graph and its keys' own file are made of those, so damage there loses
//! nothing but, of texts, the names. A page that fails its checksum loses its points, and no others; which those were is told, as far as the keys' file or
//! the store can say. Nothing is changed: what is read goes into another collection.

use super::{
    CollectionConfig, CollectionError, CollectionOptions, KeyKind, Point, PointKey, processes, redo,
    store::{MERGED_TEXT, NO_NODE, Store},
};
use crate::{
    OpenError,
    base::{open_blob, shape},
    io::{AlignedBuf, PageFile},
};
use roxanne_core::{
    format::{
        self, FormatError,
        keys::{KeyName, Keys},
        manifest::Manifest,
        page,
        superblock::FIRST_PAGE_OFFSET,
    },
    id::Key,
};
use std::{
    collections::HashSet,
    fs::File,
    path::{Path, PathBuf},
};

/// What was read of a damaged collection, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SalvageReport {
    /// Points that were shown.
    pub points: u64,
    /// What is damaged, in words, each with its file and offset.
    pub damage: Vec<String>,
    /// Keys of points that are lost.
    pub lost: Vec<PointKey>,
    /// Points that are lost and whose keys are not known, at most: slots without a point that cannot be read are counted too.
    pub lost_unnamed: u64,
}

/// Takes a point: its key, and its vector as it is stored.
type Show<'a> = dyn FnMut(PointKey, &[u8]) -> Result<(), CollectionError> + 'a;

/// A collection that is read past its damage.
pub struct Salvage {
    config: CollectionConfig,
    store: Store,
    path: PathBuf,
    _lock: File,
}

impl Salvage {
    /// Opens the collection in `path`, whose store must be whole. No other process may write to it.
    ///
    /// # Errors
    /// No collection; a damaged store; a merge that was cut off, which opening the collection finishes; another process.
    pub fn open(path: impl AsRef<Path>) -> Result<Salvage, CollectionError> {
        let path = path.as_ref();
        if !super::is_collection(path) {
            return Err(CollectionError::NotACollection { path: path.to_path_buf(), detail: "it has no store".to_string() });
        }
        let lock = processes::lock(path)?;
        let (store, config) = Store::open(path, &CollectionOptions { read_only: true, ..CollectionOptions::default() }, None)?;
        Ok(Salvage { config, store, path: path.to_path_buf(), _lock: lock })
    }

    /// What the collection is of.
    pub fn config(&self) -> &CollectionConfig {
        &self.config
    }

    /// Shows every live point that can be read.
    ///
    /// # Errors
    /// A base of which not even the manifest or the superblock can be read; a damaged store; what `each` says.
    pub fn each(&self, mut each: impl FnMut(Point) -> Result<(), CollectionError>) -> Result<SalvageReport, CollectionError> {
        let mut report = SalvageReport::default();
        let mut show = |key: PointKey, row: &[u8]| {
            let mut vector = vec![0.0; self.config.dim];
            self.config.element.decode(row, &mut vector);
            let payload = self.store.payload(&key.to_bytes())?;
            each(Point { key, vector, payload })
        };
        let row_bytes = self.config.element.row_bytes(self.config.dim);
        if let Some((name, _)) = self.store.state()?.base {
            self.each_of_base(&self.path.join(name), &mut report, &mut show)?;
        }
        self.store.each_vector(|key, _, row| match PointKey::from_bytes(self.config.keys, key).filter(|_| row.len() == row_bytes) {
            Some(key) => {
                report.points += 1;
                show(key, row)
            }
            None => Err(self.store.damaged(format!("the vector of key {key:?} is {} bytes", row.len()))),
        })?;
        Ok(report)
    }

    fn each_of_base(&self, directory: &Path, report: &mut SalvageReport, show: &mut Show<'_>) -> Result<(), CollectionError> {
        if redo::path_in(directory).exists() {
            return Err(self.store.damaged("a merge was cut off in it; open it for writing once, which finishes it".to_string()));
        }
        let manifest = Manifest::read(directory).map_err(OpenError::from)?;
        let (superblock, layout) = shape(directory, &manifest)?;
        let mut said = |error: FormatError| report.damage.push(error.to_string());
        // What can be read of it names points all the same.
        let keys = open_blob(directory, &manifest, format::KEYS_FILE).and_then(|blob| {
            blob.verify().unwrap_or_else(&mut said);
            Keys::open(blob, manifest.n)
        });
        let keys = keys.map_err(said).ok();
        report.damage.dedup();
        let names_damaged = !report.damage.is_empty();
        for name in [format::CODES_FILE, format::NAV_FILE, format::CODEBOOK_FILE] {
            let blob = if name == format::CODES_FILE {
                crate::base::open_codes(directory, &manifest, superblock.n)
            } else {
                open_blob(directory, &manifest, name)
            };
            if let Err(error) = blob.and_then(|blob| blob.verify()) {
                report.damage.push(error.to_string());
            }
        }
        let pages = PageFile::open(&directory.join(format::GRAPH_FILE), layout.page_bytes, FIRST_PAGE_OFFSET, superblock.page_count)
            .map_err(OpenError::from)?;
        let no_memory = super::io(pages.path());
        let mut buffer = AlignedBuf::new(layout.page_bytes).map_err(no_memory)?;
        let mut lost: HashSet<u32> = HashSet::new();
        for number in 0..superblock.page_count {
            let first = layout.first_node(number);
            let live = (superblock.n - first).min(layout.per_page as u64) as usize;
            let read = pages.read_page_blocking(number, &mut buffer).map_err(|error| error.to_string());
            let checked = read.and_then(|()| match page::check(&buffer, superblock.file_id, number) {
                Ok(header) if usize::from(header.live) == live => Ok(()),
                Ok(header) => Err(format!("{} records, {live} belong here", header.live)),
                Err(error) => Err(error.to_string()),
            });
            if let Err(detail) = checked {
                let offset = FIRST_PAGE_OFFSET + number * layout.page_bytes as u64;
                report.damage.push(format!("{}: offset {offset}: page {number}: {detail}", pages.path().display()));
                lost.extend((0..live as u64).map(|slot| (first + slot) as u32));
                continue;
            }
            for slot in 0..live {
                let (record, node) = (layout.record(&buffer, slot), (first + slot as u64) as u32);
                if manifest.capacity().is_some() && record.slot_generation().1 {
                    continue;
                }
                match self.key_of(keys.as_ref(), &manifest, record.key())? {
                    Some(key) if self.is_live(&key, node, true)? => {
                        report.points += 1;
                        show(key, record.vector())?;
                    }
                    Some(_) => {}
                    None => report.lost_unnamed += 1,
                }
            }
        }
        self.name_lost(keys.as_ref(), names_damaged, &lost, report)
    }

    /// The key of a record; `None` of a text whose name cannot be read.
    fn key_of(&self, keys: Option<&Keys>, manifest: &Manifest, key: Key) -> Result<Option<PointKey>, CollectionError> {
        if self.config.keys == KeyKind::Numbers {
            return Ok(Some(PointKey::Number(key.0)));
        }
        let name = if key.0 >= MERGED_TEXT {
            self.store.name_of(manifest.generation, key.0)?
        } else {
            keys.and_then(|keys| keys.string_of(key).ok().flatten())
        };
        Ok(name.map(|name| PointKey::Text(name.into())))
    }

    /// Whether the point of a key is the one in this node, which is that of its own keys (`built`) or of a merge.
    fn is_live(&self, key: &PointKey, node: u32, built: bool) -> Result<bool, CollectionError> {
        let view = self.store.view(&key.to_bytes())?;
        let is_here = view.node.map_or(built, |known| known == node && known != NO_NODE);
        Ok(is_here && view.row.is_none() && !view.deleted)
    }

    /// Says which points lay in nodes that cannot be read.
    fn name_lost(
        &self,
        keys: Option<&Keys>,
        names_damaged: bool,
        lost: &HashSet<u32>,
        report: &mut SalvageReport,
    ) -> Result<(), CollectionError> {
        if lost.is_empty() {
            return Ok(());
        }
        let mut named = HashSet::new();
        if let Some(keys) = keys {
            for place in 0..keys.len() {
                // Where it is damaged itself, the names are lost with the points.
                let Ok((name, node)) = keys.key_at(place) else { continue };
                if !lost.contains(&node.0) {
                    continue;
                }
                let key = match name {
                    KeyName::Number(number) => PointKey::Number(number),
                    KeyName::Text(text) => PointKey::Text(text.into()),
                };
                if self.is_live(&key, node.0, true)? && named.insert(node.0) {
                    report.lost.push(key);
                }
            }
        }
        self.store.each_node(|bytes, node| {
            let key = PointKey::from_bytes(self.config.keys, bytes);
            let key = key.ok_or_else(|| self.store.damaged(format!("the node of a key of {} bytes", bytes.len())))?;
            if lost.contains(&node) && self.is_live(&key, node, false)? && named.insert(node) {
                report.lost.push(key);
            }
            Ok(())
        })?;
        if names_damaged {
            // Dead and empty slots among them: which they were is not known.
            report.lost_unnamed += lost.iter().filter(|node| !named.contains(node)).count() as u64;
        }
        report.lost.sort_unstable();
        Ok(())
    }
}
