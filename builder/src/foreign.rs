//! Indexes that other systems made: their vectors, their keys, and the graph of their lowest level, which is a good one and was dear.
//!
//! A file is read once, from its begin to its end, and believed in nothing: lengths are held against the file before anything is allocated, ids against the
//! number of nodes, and what is not understood is refused with its place. The vectors stay where they are, and are read from there when the index is built.

mod adopt;
mod diskann;
mod faiss;
mod hnswlib;
mod links;
mod reader;
mod usearch;

pub(crate) use adopt::adopt;
pub use links::Links;

use reader::Reader;
use roxanne_core::{
    dataset::{Dataset, DatasetError, Run},
    element::ElementType,
    format::keys::KeyList,
    id::MAX_NODES,
    metric::Metric,
};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, atomic::AtomicBool},
};

/// A system whose indexes are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// hnswlib's `save_index`.
    Hnswlib,
    /// `IndexHNSWFlat` of faiss, or one in an `IndexIDMap`, as `write_index` leaves it.
    Faiss,
    /// USearch's `save`, version 2.10 and later, with its vectors.
    Usearch,
    /// DiskANN of C++: an index in memory (`NAME` beside `NAME.data`) or on disk (`NAME_disk.index`).
    DiskAnn,
}

impl System {
    /// All of them.
    pub const ALL: [System; 4] = [System::Hnswlib, System::Faiss, System::Usearch, System::DiskAnn];

    /// The name at every door.
    pub fn name(self) -> &'static str {
        match self {
            System::Hnswlib => "hnswlib",
            System::Faiss => "faiss",
            System::Usearch => "usearch",
            System::DiskAnn => "diskann",
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for System {
    type Err = String;
    fn from_str(text: &str) -> Result<System, String> {
        let known = || System::ALL.map(System::name).join(", ");
        System::ALL.into_iter().find(|system| system.name() == text).ok_or_else(|| format!("unknown system \"{text}\"; known: {}", known()))
    }
}

/// Why an index of another system was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's own words.
        error: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: at byte {at}: {detail}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is there and what belongs there.
        detail: String,
    },
    /// A kind of index that is not read.
    #[error("{path}: {detail}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Which, and what to do.
        detail: String,
    },
    /// Its vectors are none.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Keys and edges alone take more.
    #[error("{path}: keys and edges take more than {allowed} bytes of memory")]
    Budget {
        /// The file.
        path: PathBuf,
        /// By the budget.
        allowed: u64,
    },
    /// A stop was asked for.
    #[error("{path}: stopped on request")]
    Stopped {
        /// The file that was being read.
        path: PathBuf,
    },
}

/// How an index of another system is read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The type of its coordinates where its files do not say, as those of hnswlib and DiskANN: f32 there, if `None`.
    pub element: Option<ElementType>,
    /// Bytes that keys and edges may take.
    pub ram: u64,
    /// Set to true, it ends.
    pub stop: Arc<AtomicBool>,
}

impl Default for Reading {
    fn default() -> Reading {
        Reading { element: None, ram: u64::MAX, stop: Arc::default() }
    }
}

/// What an index of another system holds.
#[derive(Debug)]
pub struct Foreign {
    /// Which system's.
    pub system: System,
    /// What near means there; `None` where its files do not say.
    pub metric: Option<Metric>,
    /// The vectors, where they lie in its file, without those that were deleted.
    pub dataset: Dataset,
    /// Its keys, one a row.
    pub keys: KeyList,
    /// The neighbors of each row.
    pub links: Links,
}

impl Foreign {
    /// Opens the index of `system` at `path`. Memory: keys and edges, 16 bytes a vector and 4 an edge, up to twice while they grow, and once more while deleted
    /// vectors are left out.
    ///
    /// # Errors
    /// A file that is absent, cut off, damaged, or of a kind that is not understood; of another type of coordinates than was said; more memory than is allowed; a stop.
    pub fn open(system: System, path: &Path, how: &Reading) -> Result<Foreign, ForeignError> {
        let (reader, element) = (Reader::open(path, how)?, how.element);
        if element == Some(ElementType::Binary) {
            return Err(reader.unsupported("packed bits are read as u8, of which the metric hamming makes bits".to_string()));
        }
        let foreign = match system {
            System::Hnswlib => hnswlib::read(reader, element.unwrap_or(ElementType::F32)),
            System::DiskAnn => diskann::read(reader, element.unwrap_or(ElementType::F32)),
            System::Faiss => faiss::read(reader, element),
            System::Usearch => usearch::read(reader, element),
        }?;
        // Keys that are the numbers of the rows need not be kept.
        let keys = match foreign.keys {
            KeyList::Numbers(keys) if (0..).zip(&keys).all(|(row, &key)| row == key) => KeyList::Rows(keys.len() as u64),
            keys => keys,
        };
        Ok(Foreign { keys, ..foreign })
    }

    /// What near means: as its files say it, and where they do not, as `asked`.
    ///
    /// # Errors
    /// Neither says it, or one says something else than the other.
    pub fn metric_or(&self, asked: Option<Metric>) -> Result<Metric, String> {
        match (self.metric, asked) {
            (Some(found), Some(asked)) if found != asked => Err(format!("near means {found} in {}, not {asked}", self.dataset.source())),
            (None, None) => Err(format!("files of {} do not say what near means: a metric must be given", self.system)),
            (Some(metric), _) | (None, Some(metric)) => Ok(metric),
        }
    }
}

/// A number of vectors that an index can have.
fn checked_n(reader: &Reader, n: u64) -> Result<u64, ForeignError> {
    if (1..=MAX_NODES).contains(&n) {
        return Ok(n);
    }
    Err(reader.wrong(format!("{n} vectors; an index holds 1 to {MAX_NODES}")))
}

/// Refuses `element` where the file says that coordinates are `found`.
fn agree(reader: &Reader, found: ElementType, element: Option<ElementType>) -> Result<ElementType, ForeignError> {
    match element {
        Some(element) if element != found => Err(reader.wrong(format!("its coordinates are {found}, not {element}"))),
        _ => Ok(found),
    }
}

/// Leaves out the rows that `is_gone` names: they lose their vectors, their keys, and the edges that lead to them.
fn without(dataset: Dataset, keys: KeyList, links: Links, is_gone: &[bool]) -> Result<(Dataset, KeyList, Links), ForeignError> {
    if !is_gone.contains(&true) {
        return Ok((dataset, keys, links));
    }
    let mut runs: Vec<Run> = Vec::new();
    for (row, _) in (0..).zip(is_gone).filter(|(_, gone)| !**gone) {
        match runs.last_mut() {
            Some(run) if run.start + run.count == row => run.count += 1,
            _ => runs.push(Run { part: 0, start: row, count: 1 }),
        }
    }
    let keys = match keys {
        KeyList::Numbers(keys) => KeyList::Numbers(keys.into_iter().zip(is_gone).filter(|(_, gone)| !**gone).map(|(key, _)| key).collect()),
        // Row numbers are keys: those of the rows that stay.
        KeyList::Rows(_) => KeyList::Numbers((0..).zip(is_gone).filter(|(_, gone)| !**gone).map(|(row, _)| row).collect()),
        strings @ KeyList::Strings(_) => strings,
    };
    Ok((Dataset::of_parts(vec![dataset], &runs)?, keys, links.without(is_gone)))
}
