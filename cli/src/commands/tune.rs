//! `tune`: measures once which list size gives which recall and which pages are wanted, and keeps both beside the index.

use super::{check_index, print_json, thread_count};
use crate::{
    failure::Failure,
    interrupt,
    parse::{self, Effort, Sweep},
    progress::say,
    queries::{self, Queries},
    text,
    trial::Trial,
};
use roxanne_core::{Budget, ErrorClass, metric::Metric, recall::Truth};
use roxanne_engine::{CALIBRATION_FILE, Calibration, Index, OpenError, OpenOptions, SearchParams, WARM_FILE};
use serde_json::json;
use std::{
    collections::HashMap,
    io::Write,
    path::{Path, PathBuf},
};

/// Measure which effort gives which recall, and keep it
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne tune my.rx -q query.u8bin -g gt.bin --target 0.95
  roxanne tune my.rx                              by vectors of the index itself, each looking for its neighbors

Writes CALIBRATION, which `search --recall` reads, and warm.rx, the pages that a cache begins with, into the index's
directory. Use queries like those that will come: vectors of the index itself are a little easier to find neighbors of.")]
pub(crate) struct Args {
    /// The index directory
    #[arg(value_name = "IDX")]
    index: PathBuf,
    /// Queries like those that will come
    #[arg(long, short, value_name = "Q", requires = "truth")]
    queries: Option<String>,
    /// Their exact neighbors: .bin or .ivecs (see roxanne truth)
    #[arg(long, short = 'g', value_name = "GT", visible_alias = "groundtruth", requires = "queries")]
    truth: Option<PathBuf>,
    /// Hits of each query
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    k: u32,
    /// Vectors of the index that are taken for queries where none are given
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sample: u32,
    /// Slacks to measure
    #[arg(long, value_name = "slack=...", default_value = "slack=0.01,0.02,0.03,0.04,0.06,0.08,0.1,0.12,0.15,0.18,0.22,0.26,0.32,0.4")]
    sweep: Sweep,
    /// Say which slack gives this recall (0 to 1); exit code 5 when none that was measured does
    #[arg(long, value_name = "R", value_parser = parse::share)]
    target: Option<f64>,
    /// Threads; 0 is one a core
    #[arg(long, short, value_name = "T", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: u16,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// The share of pages that the cache holds whose counts are kept: it only has to be a cache.
const CACHED_SHARE: u64 = 8;
/// Queries in flight of each thread.
const IN_FLIGHT: usize = 16;

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    interrupt::leaves_at_once();
    check_index(&args.index)?;
    let threads = thread_count(usize::from(args.threads));
    let index = open_with_cache(&args.index, threads)?;
    let asked = match (&args.queries, &args.truth) {
        (Some(source), Some(path)) => given(args, &index, source, path)?,
        _ => sampled(args, &index)?,
    };
    let slack = |effort: &Effort| match effort {
        Effort::Slack(slack) => Ok(*slack),
        Effort::List(_) => Err(Failure::usage("tune measures slacks: --sweep slack=0.05,0.1")),
    };
    let mut slacks = args.sweep.0.iter().map(slack).collect::<Result<Vec<f32>, _>>()?;
    slacks.sort_by(f32::total_cmp);
    slacks.dedup();
    let params = SearchParams { k: args.k as usize + asked.own, ..SearchParams::DEFAULT };
    let ties = index.info().metric == Metric::Hamming;
    let Asked { queries, truth, rows, own } = asked;
    let trial = Trial { index: &index, queries: &queries, truth: &truth, rows, stranger: Some(u64::MAX), ties, params, threads };
    let mut points: Vec<(f32, f64)> = Vec::new();
    for slack in slacks {
        let recall = trial.measure(Effort::Slack(slack), threads * IN_FLIGHT)?.recall;
        // A vector that looks for its neighbors finds itself, which is no merit.
        let recall = ((recall * params.k as f64 - own as f64) / (params.k - own) as f64).max(0.0);
        // A larger one that happens to find a little less is no worse.
        points.push((slack, points.last().map_or(recall, |last| recall.max(last.1))));
    }
    let calibration = Calibration { k: args.k as usize, points };
    calibration.write(&args.index, index.info().generation)?;
    index.remember_pages()?;
    report(args, &calibration, queries.len(), out)
}

fn report(args: &Args, calibration: &Calibration, queries: usize, out: &mut dyn Write) -> Result<(), Failure> {
    let wanted = args.target.map(|target| (target, calibration.slack(target)));
    if args.json {
        let points: Vec<_> = calibration.points.iter().map(|(size, recall)| json!({"slack": size, "recall": recall})).collect();
        let slack = wanted.and_then(|(_, slack)| slack);
        print_json(out, &json!({"k": calibration.k, "queries": queries, "points": points, "target": args.target, "slack": slack}))?;
    } else {
        text::row(out, &["slack".to_string(), format!("recall@{}", calibration.k)], &[9, 10])?;
        for (size, recall) in &calibration.points {
            text::row(out, &[size.to_string(), format!("{recall:.4}")], &[9, 10])?;
        }
        if let Some((target, Some(size))) = wanted {
            writeln!(out, "recall {target}: --slack {size}")?;
        }
    }
    say(format_args!("{}: {CALIBRATION_FILE} and {WARM_FILE} written, from {queries} queries", args.index.display()));
    match wanted {
        Some((target, None)) => Err(Failure::new(
            ErrorClass::Gate,
            format!("{}: no slack that was measured gives recall {target}; give larger ones with --sweep", args.index.display()),
        )),
        _ => Ok(()),
    }
}

/// Opens the index with a cache of some of its pages, so that wanted pages are counted.
fn open_with_cache(path: &Path, threads: usize) -> Result<Index, Failure> {
    let options = OpenOptions { searchers: threads, in_flight: IN_FLIGHT, ..OpenOptions::default() };
    match Index::open_with(path, &OpenOptions { budget: Budget::ram(1), ..options }) {
        Err(OpenError::Budget { needed, .. }) => {
            let pages = Index::open(path, Budget::default())?.info().index_bytes / CACHED_SHARE;
            Ok(Index::open_with(path, &OpenOptions { budget: Budget::ram(needed + pages), ..options })?)
        }
        opened => Ok(opened?),
    }
}

/// Queries and what they should find.
struct Asked {
    queries: Queries,
    truth: Truth,
    /// Numbers of the keys that the truth names, where keys are no row numbers.
    rows: Option<HashMap<u64, u64>>,
    /// 1 where each query is itself among what it finds.
    own: usize,
}

/// The queries and the truth of files, which name rows.
fn given(args: &Args, index: &Index, source: &str, path: &Path) -> Result<Asked, Failure> {
    let (dataset, truth) = (queries::open(source, index.info(), None)?, Truth::read(path)?);
    let path = path.display();
    if !index.info().row_keys && !index.info().string_keys {
        return Err(Failure::input(format!(
            "{path}: names rows, but the keys of {} are numbers of their own; tune without it",
            args.index.display()
        )));
    }
    if dataset.n() == 0 || truth.n != dataset.n() || truth.k < args.k as usize {
        let text = format!("{path}: {} neighbors of {} queries, where {} of {} are needed", truth.k, truth.n, args.k, dataset.n());
        return Err(Failure::input(text));
    }
    let queries = Queries::read(&dataset, 0, usize::try_from(dataset.n()).unwrap_or(usize::MAX))?;
    Ok(Asked { queries, truth, rows: None, own: 0 })
}

/// Vectors of the index as queries, and their exact neighbors, themselves among them.
fn sampled(args: &Args, index: &Index) -> Result<Asked, Failure> {
    if index.info().n <= u64::from(args.k) {
        return Err(Failure::input(format!("{}: too few vectors to look for {} neighbors of one", args.index.display(), args.k)));
    }
    let (sample, dim, k) = (index.sample(u64::from(args.sample), 1)?, index.info().dim, args.k as usize + 1);
    let vectors: Vec<&[f32]> = sample.iter().map(|(_, vector)| vector.as_slice()).collect();
    say(format_args!("comparing {} vectors with all {}", vectors.len(), text::count(index.info().n)));
    let answers = index.exact(&vectors, k, None)?;
    // Keys may be any numbers; the truth has small ones.
    let mut rows = HashMap::new();
    let mut row = |key: u64| -> u32 {
        let next = rows.len() as u64;
        *rows.entry(key).or_insert(next) as u32
    };
    let hits = || answers.iter().flat_map(|answer| &answer.hits);
    let truth = Truth {
        n: answers.len() as u64,
        k,
        ids: hits().map(|hit| row(hit.key.0)).collect(),
        distances: hits().map(|hit| hit.distance).collect(),
    };
    Ok(Asked { queries: Queries::of_values(&vectors.concat(), dim), truth, rows: Some(rows), own: 1 })
}
