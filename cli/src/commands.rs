//! One file a command, and what several of them share.

pub(crate) mod bench_gpu;
pub(crate) mod build;
pub(crate) mod collection;
pub(crate) mod convert;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod key;
pub(crate) mod merge;
pub(crate) mod plan;
pub(crate) mod repair;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod shard;
pub(crate) mod snapshot;
pub(crate) mod truth;
pub(crate) mod tune;
pub(crate) mod verify;

use crate::{failure::Failure, parse};
use roxanne_builder::BuildParams;
use roxanne_core::{Budget, ErrorClass, format::record::Stored};
use roxanne_engine::{IndexInfo, OpenOptions, SearchError};
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    path::Path,
};

/// The parameters that shape an index, as flags.
#[derive(clap::Args)]
pub(crate) struct Shape {
    /// Most neighbors of a node (R)
    #[arg(long, value_name = "R", default_value_t = BuildParams::default().max_degree, visible_alias = "max-degree")]
    degree: usize,
    /// RobustPrune's alpha, on squared distances for l2, cos and dot
    #[arg(long, value_name = "A", default_value_t = BuildParams::default().alpha)]
    alpha: f64,
    /// Neighbors that a row of a leaf gives and takes (1 to 16)
    #[arg(long, value_name = "K", default_value_t = BuildParams::default().leaf_k)]
    leaf_k: usize,
    /// Candidates kept for the prune
    #[arg(long, value_name = "N", default_value_t = BuildParams::default().reservoir)]
    reservoir: usize,
    /// What records on disk hold of f32, f16 and bf16 vectors: full, or sq8, a byte a coordinate, which takes fewer reads and ranks by what it keeps
    #[arg(long, value_name = "full|sq8", default_value = "full", value_parser = parse::stored)]
    vectors: Stored,
    /// Make an index that a collection can change in place, with room for so many vectors
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    capacity: u64,
    /// Bytes of a compressed code in RAM; auto is min(dim, max(32, dim / 8))
    #[arg(long, value_name = "auto|N", default_value = "auto")]
    pq_bytes: parse::PqBytes,
}

impl Shape {
    fn params(&self, seed: u64) -> BuildParams {
        BuildParams {
            max_degree: self.degree,
            alpha: self.alpha,
            leaf_k: self.leaf_k,
            reservoir: self.reservoir,
            stored: self.vectors,
            capacity: self.capacity,
            pq_bytes: self.pq_bytes.0,
            seed,
            ..BuildParams::default()
        }
    }
}

impl Shape {
    /// Of the base of a collection of `n` points: as many again and a million more have room, where nothing else was said.
    fn params_with_room(&self, seed: u64, n: u64) -> BuildParams {
        let params = self.params(seed);
        let capacity = if params.capacity > 0 { params.capacity } else { roxanne::rebuild::room_for(n) };
        BuildParams { capacity, ..params }
    }
}

/// The limits of a build, as flags.
#[derive(clap::Args)]
pub(crate) struct Limits {
    /// Most memory of the build, such as 64G (G is 2^30); refused up front when it does not fit
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    ram: Option<u64>,
    /// Most device memory of a build on a CUDA device, such as 20G
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    vram: Option<u64>,
    /// Most disk of the build, such as 2T
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    disk: Option<u64>,
}

impl Limits {
    fn budget(&self) -> Budget {
        let limit = |given: Option<u64>| given.unwrap_or(u64::MAX);
        Budget { ram: limit(self.ram), vram: limit(self.vram), disk: limit(self.disk) }
    }
}

/// What a search may keep in memory, as flags.
#[derive(clap::Args)]
pub(crate) struct Memory {
    /// Most memory to serve the index, such as 1G: what codes and searchers leave of it keeps pages; without it none are kept. A command's own queries and truth come on top
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    ram: Option<u64>,
    /// Where neighbors are: in RAM a search reads one round of pages and no more
    #[arg(long, value_name = "disk|ram", value_enum, default_value_t, hide_possible_values = true)]
    adjacency: Place,
}

/// Where something is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::ValueEnum)]
pub(crate) enum Place {
    /// On disk.
    #[default]
    Disk,
    /// In memory.
    Ram,
}

impl Memory {
    fn options(&self) -> OpenOptions {
        let budget = Budget::ram(self.ram.unwrap_or(u64::MAX));
        OpenOptions { budget, adjacency_in_ram: self.adjacency == Place::Ram, ..OpenOptions::default() }
    }
}

/// Writes a JSON value as one line.
fn print_json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value}")
}

/// What an index is, under the names that every command uses.
fn index_json(info: &IndexInfo) -> Value {
    let params: serde_json::Map<String, Value> = info.params.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "path": info.path.display().to_string(),
        "generation": format!("{:016x}", info.generation),
        "n": info.n,
        "dim": info.dim,
        "element": info.element.name(),
        "stored": info.stored.name(),
        "metric": info.metric.name(),
        "keys": keys_text(info),
        "max_degree": info.max_degree,
        "code_bytes": info.code_bytes,
        "rotated": info.rotated,
        "nav_nodes": info.nav_nodes,
        "page_bytes": info.page_bytes,
        "page_count": info.page_count,
        "records_per_page": info.records_per_page,
        "record_bytes": info.record_bytes,
        "index_bytes": info.index_bytes,
        "resident_bytes": info.resident_bytes,
        "params": params,
    })
}

fn keys_text(info: &IndexInfo) -> &'static str {
    match (info.row_keys, info.string_keys) {
        (true, _) => "rows",
        (false, true) => "strings",
        (false, false) => "numbers",
    }
}

/// Refuses an output that is there already, or whose directory is not, before any work goes into it.
fn refuse_existing(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::input(format!("{}: exists already and was left untouched; remove it or choose another name", path.display())));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.file_name().is_none() || !parent.is_dir() {
        return Err(Failure::input(format!("{}: there is no directory {} to write it into", path.display(), parent.display())));
    }
    Ok(())
}

/// Refuses a path that cannot be an index, which is a directory.
fn check_index(path: &Path) -> Result<(), Failure> {
    if path.exists() && !path.is_dir() {
        return Err(Failure::input(format!("{}: not a roxanne index: it is a file, an index is a directory", path.display())));
    }
    Ok(())
}

/// A failed search, with the number of its query where that is to blame and not the flags or the disk.
pub(crate) fn search_failure(error: SearchError, query: u64) -> Failure {
    let blamed = error.class() == ErrorClass::BadInput;
    let failure = Failure::from(error);
    if blamed { failure.at(format_args!("query {query}")) } else { failure }
}

/// A number of threads: that many, or one a core for 0.
fn thread_count(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_needs_a_directory_and_a_free_name() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refuse_existing(&dir.path().join("new")).is_ok());
        assert!(refuse_existing(dir.path()).unwrap_err().line().contains("exists already"));
        assert!(refuse_existing(&dir.path().join("no/new")).unwrap_err().line().contains("no directory"));
        assert!(refuse_existing(Path::new("")).is_err());
    }
}
