//! `snapshot`: copies of a collection, made while it is written to, restored when every byte is as it was.

use super::print_json;
use crate::{failure::Failure, text};
use roxanne_engine::collection::{Collection, CollectionOptions, SnapshotInfo};
use serde_json::json;
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// Copy a collection as of one moment, and make one of a copy
#[derive(clap::Subcommand)]
#[command(after_help = "Examples:
  roxanne snapshot create docs backups/monday
  roxanne snapshot list backups --check
  roxanne snapshot restore backups/monday docs-again

A copy takes the room of the collection. Only a copy whose every byte is as it was is restored; otherwise exit code 6 names the file.")]
pub(crate) enum Args {
    /// Copy a collection into a new directory
    Create {
        /// The collection
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The directory to make
        #[arg(value_name = "SNAPSHOT")]
        snapshot: PathBuf,
    },
    /// Make a collection of a copy, every byte of which is compared with its checksum
    Restore {
        /// The copy
        #[arg(value_name = "SNAPSHOT")]
        snapshot: PathBuf,
        /// The collection to make
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Show the copies that lie in a directory
    List {
        /// The directory
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Compare every byte of them with its checksum
        #[arg(long)]
        check: bool,
        /// One JSON object a copy
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    match args {
        Args::Create { directory, snapshot } => {
            // Nothing is merged meanwhile.
            let options = CollectionOptions { delta_bytes: u64::MAX, merges: false, ..CollectionOptions::default() };
            let info = Collection::open(directory, &options)?.snapshot(snapshot)?;
            told(snapshot, &info, false, out)
        }
        Args::Restore { snapshot, directory } => {
            let info = Collection::restore(snapshot, directory)?;
            told(directory, &info, false, out)
        }
        Args::List { directory, check, json } => {
            let entries = std::fs::read_dir(directory).map_err(Failure::io(directory, "read"))?;
            let mut paths: Vec<PathBuf> =
                entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.join("SNAPSHOT").is_file()).collect();
            paths.sort_unstable();
            for path in paths {
                let info = if *check { SnapshotInfo::check(&path)? } else { SnapshotInfo::read(&path)? };
                told(&path, &info, *json, out)?;
            }
            Ok(())
        }
    }
}

fn told(path: &Path, info: &SnapshotInfo, as_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    if as_json {
        return Ok(print_json(out, &json!({"path": path.display().to_string(), "sequence": info.sequence, "bytes": info.bytes}))?);
    }
    writeln!(out, "{}: all up to batch {}, {}", path.display(), text::count(info.sequence), text::bytes(info.bytes))?;
    Ok(())
}
