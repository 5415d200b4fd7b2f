//! A collection that is written to: what writes, merges and churn cost, what they do to searches beside them, and to recall.
//!
//! Prints a JSON line for everything measured. The base is opened with as many of its pages cached as `--cached` says, the store is RocksDB with
//! the synced log that a user has.

mod scenes;

use clap::{Parser, ValueEnum};
use std::{path::PathBuf, process::ExitCode};

/// What is done to the collection.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scene {
    /// 8 writers of batches of 64 for some seconds, then 64 writers of single points
    Upserts,
    /// Points come into a base: with searches idle, then beside searches at half of what the machine gives
    Merge,
    /// Everything is replaced, again and again, in the order of the file and in that of clusters
    Churn,
    /// Nine of ten are deleted
    Delete,
    /// Searches under filters that a half, a tenth, a hundredth and a thousandth of the points pass
    Filter,
}

/// What a living collection costs
#[derive(Parser)]
struct Args {
    /// What is done
    #[arg(value_enum)]
    scene: Scene,
    /// The vectors
    base: String,
    /// The queries
    queries: String,
    /// A directory on the disk that is measured; it must not hold `live`
    #[arg(long)]
    work: PathBuf,
    /// l2, cos, dot or l1
    #[arg(long, default_value = "l2")]
    metric: roxanne_core::metric::Metric,
    /// Points of the base; churn takes as many more, merge and upserts what they need
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// Points that are merged
    #[arg(long, default_value_t = 20_000)]
    extra: u64,
    /// Points that come a second, beside searches
    #[arg(long, default_value_t = 450.0)]
    rate: f64,
    /// Times that everything is replaced
    #[arg(long, default_value_t = 5)]
    turns: u64,
    /// Seconds of writing
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The share of the base's pages that may be kept in RAM
    #[arg(long, default_value_t = 0.1)]
    cached: f64,
    /// Queries that are asked
    #[arg(long, default_value_t = 1000)]
    asked: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match scenes::play(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("live: {error}");
            ExitCode::FAILURE
        }
    }
}
