//! The key-value peers: arroy and hannoy in LMDB, crvecdb in a mapped file. Build time and size; recall, rate and latency of searches.
//!
//! As their documentation recommends: arroy chooses its number of trees, hannoy has M 16 / 32 and its default search range, crvecdb M 16.
//! All take f32. The effort of a search is `search_k` of arroy (items it may look at), `ef_search` of the two others. The time of a
//! build holds everything from the first row to what is on disk.

mod arroy;
mod crvecdb;
mod environment;
mod hannoy;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use peer::{Args, Events, Rows, Truth, Verb, bytes_of, measure};
use serde_json::{Value, json};
use std::{fs, time::Instant};

/// See `STORES` in systems.py; what a store has no use for is absent.
#[derive(serde::Deserialize)]
struct Settings {
    list_sizes: Vec<usize>,
    ef_construction: Option<usize>,
    #[serde(rename = "M")]
    m: Option<usize>,
}

/// What a build tells beside its time.
type About = Value;

fn main() -> Result<()> {
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global().context("threads")?;
    let mut events = Events::create(&args.events)?;
    match args.verb {
        Verb::Build => build(&args, &mut events),
        Verb::Search => search(&args, &mut events),
    }
}

fn build(args: &Args, events: &mut Events) -> Result<()> {
    let (rows, settings) = (Rows::read(&args.base, args.limit)?, args.settings()?);
    let (n, dim, values) = (rows.n, rows.dim, rows.to_f32());
    drop(rows);
    ensure!(!args.index.exists(), "{}: is there already", args.index.display());
    fs::create_dir_all(&args.index).with_context(|| format!("{}: create", args.index.display()))?;
    let start = Instant::now();
    let about: About = match args.peer.as_str() {
        "arroy" => arroy::build(args, &values, dim)?,
        "hannoy" => hannoy::build(args, &settings, &values, dim)?,
        "crvecdb" => crvecdb::build(args, &settings, &values, dim)?,
        other => bail!("--peer {other}: arroy, hannoy or crvecdb"),
    };
    let seconds = start.elapsed().as_secs_f64();
    let mut built = json!({
        "seconds": seconds, "n": n, "dim": dim, "input_bytes": size_of_val(values.as_slice()), "index_bytes": bytes_of(&args.index)?,
    });
    for (name, value) in about.as_object().into_iter().flatten() {
        built[name] = value.clone();
    }
    events.built(built)
}

fn search(args: &Args, events: &mut Events) -> Result<()> {
    let (queries, settings) = (args.queries()?, args.settings::<Settings>()?);
    let truth = Truth::read(&args.truth, queries.n, args.k)?;
    let trial = Trial { args, values: queries.to_f32(), dim: queries.dim, truth };
    for &list_size in &settings.list_sizes {
        let point = match args.peer.as_str() {
            "arroy" => arroy::search(&trial, list_size)?,
            "hannoy" => hannoy::search(&trial, list_size)?,
            "crvecdb" => crvecdb::search(&trial, list_size)?,
            other => bail!("--peer {other}: arroy, hannoy or crvecdb"),
        };
        events.point(point)?;
    }
    Ok(())
}

/// What all points share.
struct Trial<'a> {
    args: &'a Args,
    values: Vec<f32>,
    dim: usize,
    truth: Truth,
}

impl Trial<'_> {
    fn query(&self, at: usize) -> &[f32] {
        &self.values[at * self.dim..][..self.dim]
    }

    /// One point; `work` is called on each thread and takes its turns.
    fn measure(&self, list_size: usize, work: impl Fn(&mut peer::Turns) -> Result<()> + Sync) -> Result<Value> {
        measure(self.args, list_size, self.values.len() / self.dim, &self.truth, work)
    }
}
