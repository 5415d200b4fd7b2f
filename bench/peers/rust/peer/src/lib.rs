//! What every measured program of this workspace shares: arguments, rows in, recall and rates out. The twin of `peer.py`.
//!
//! A program is run twice: `build` writes an index into a directory, `search` opens it, so that the memory of a search holds nothing
//! of the build. What it finds goes as JSON lines to the file of `--events`; standard output is left to the libraries.

mod rows;
mod trial;

pub use rows::{Element, Rows, Truth, Values};
pub use trial::{Found, Pass, Turns, measure};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

/// The arguments that run.py gives to every peer.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// What to do
    #[arg(value_enum)]
    pub verb: Verb,
    /// The library, where a program knows several
    #[arg(long)]
    pub peer: String,
    /// Rows to index: .u8bin, .fbin, .f16bin or .npy
    #[arg(long)]
    pub base: PathBuf,
    /// Rows to ask for, of the same type
    #[arg(long)]
    pub queries: PathBuf,
    /// Their exact neighbors
    #[arg(long)]
    pub truth: PathBuf,
    /// How rows are compared
    #[arg(long, value_enum)]
    pub metric: Metric,
    /// First rows of the base only
    #[arg(long)]
    pub limit: Option<usize>,
    /// First queries only
    #[arg(long)]
    pub queries_limit: Option<usize>,
    /// Hits of each query
    #[arg(short, default_value_t = 10)]
    pub k: usize,
    /// Threads, of the build or of the search
    #[arg(long)]
    pub threads: usize,
    /// The best of so many passes over the queries counts
    #[arg(long, default_value_t = 2)]
    pub repeats: usize,
    /// Queries begin at this rate a second, whether those before have ended or not; as fast as can be where it is not given
    #[arg(long)]
    pub rate: Option<f64>,
    /// The peer's own, as JSON
    #[arg(long)]
    pub settings: String,
    /// The directory of the index
    #[arg(long)]
    pub index: PathBuf,
    /// The file that results go to
    #[arg(long)]
    pub events: PathBuf,
}

/// The two runs of a program.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
pub enum Verb {
    /// Makes the index.
    Build,
    /// Measures searches in it.
    Search,
}

/// How rows are compared.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    /// Squared Euclidean distance.
    L2,
    /// One less the cosine.
    Cos,
}

impl Args {
    /// The peer's own settings, in its own type.
    pub fn settings<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.settings).with_context(|| format!("--settings {}", self.settings))
    }

    /// The queries, as they stand in their file.
    pub fn queries(&self) -> Result<Rows> {
        Rows::read(&self.queries, self.queries_limit)
    }
}

/// Results, one JSON line each, on disk at once.
pub struct Events(File);

impl Events {
    /// Begins the file at `path` anew.
    pub fn create(path: &Path) -> Result<Events> {
        Ok(Events(File::create(path).with_context(|| format!("{}: create", path.display()))?))
    }

    /// `{"built": built}`, with the peak memory of this process.
    pub fn built(&mut self, mut built: Value) -> Result<()> {
        built["peak_rss_bytes"] = status_bytes("VmHWM")?.into();
        self.line(&json!({ "built": built }))
    }

    /// `{"point": point}`.
    pub fn point(&mut self, point: Value) -> Result<()> {
        self.line(&json!({ "point": point }))
    }

    fn line(&mut self, event: &Value) -> Result<()> {
        writeln!(self.0, "{event}").context("write an event")
    }
}

/// A line of /proc/self/status in bytes: VmRSS is memory now, VmHWM the most there ever was.
pub fn status_bytes(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.with_context(|| format!("/proc/self/status: no {name}"))? * 1024)
}

/// Bytes that this process has had the device read so far: what the page cache answered is not among them.
pub fn device_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io").context("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok());
    line.context("/proc/self/io: no read_bytes")
}

/// Bytes of all files under `directory`.
pub fn bytes_of(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).with_context(|| format!("{}: list", directory.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
