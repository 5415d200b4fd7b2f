//! `eval`: recall against speed, one point a list size.
//!
//! Threads take queries from one counter, each with a searcher of its own; a query's latency is measured around its search, and the
//! rate is all queries over the wall time. Recall compares row numbers and nothing else: of several rows at one distance only those
//! that the truth names count, so it errs to the low side. (Counting ties by equal distances would need the truth to have been
//! computed by our own arithmetic to the last bit.)

use super::{index_json, print_json, refuse_existing, rss_bytes, thread_count};
use crate::{
    failure::Failure,
    interrupt, key_file,
    latency::Latency,
    parse::{self, Sweep},
    plot,
    progress::say,
    queries::{self, Queries},
    text,
};
use roxanne_core::{
    Budget, ErrorClass,
    format::{self, keys::KeyList, manifest::Manifest},
    id::Key,
    recall::{Truth, recall_at_k},
};
use roxanne_engine::{Index, IndexInfo, SearchParams, Searcher, io::drop_page_cache};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

/// Measure recall and speed
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne eval my.rx -q query.u8bin -g gt.bin --sweep list-size=16,32,64,128 --threads 2 --cold
  roxanne eval my.rx -q query.u8bin -g gt.bin --sweep list-size=16..256 --plot recall.svg --json

Recall compares row numbers: rows at equal distance that the truth does not name count as missed. An index with number
keys of its own needs the file it was built with (--keys); string keys need nothing.")]
pub(crate) struct Args {
    /// The index directory
    #[arg(value_name = "IDX")]
    index: PathBuf,
    /// The queries, of the index's dimension
    #[arg(long, short, value_name = "Q")]
    queries: String,
    /// Their exact neighbors: .bin or .ivecs (see roxanne truth)
    #[arg(long, short = 'g', value_name = "GT", visible_alias = "groundtruth")]
    truth: PathBuf,
    /// Hits of each query
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// List sizes to measure: list-size=16,32,64 or list-size=16..256, which doubles (ef= and complexity= mean the same)
    #[arg(long, value_name = "list-size=...", default_value = "list-size=16,32,64,128")]
    sweep: Sweep,
    /// Threads; 0 is one a core
    #[arg(long, short, value_name = "T", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: u16,
    /// Reads in flight for a query (W)
    #[arg(long, value_name = "W", default_value_t = SearchParams::default().beam_width)]
    beam_width: usize,
    /// Most memory for the index, such as 1G
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    ram: Option<u64>,
    /// Make the kernel forget the index's files before each point; we cache nothing of our own
    #[arg(long)]
    cold: bool,
    /// The first queries only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// The file that the index was built with as --keys
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Draw recall against queries per second
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// What one list size gave.
struct Point {
    list_size: usize,
    recall: f64,
    qps: f64,
    /// Per query.
    reads: f64,
    cache_hits: f64,
    distances: f64,
    latency: Latency,
    rss_bytes: u64,
}

/// Everything that all points share.
struct Trial<'a> {
    index: &'a Index,
    queries: &'a Queries,
    truth: &'a Truth,
    /// Rows of the user's own number keys, where there are such.
    rows: Option<HashMap<u64, u64>>,
    k: usize,
    beam_width: usize,
    threads: usize,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    interrupt::leaves_at_once();
    args.plot.as_deref().map_or(Ok(()), refuse_existing)?;
    let index = Index::open(&args.index, Budget::ram(args.ram.unwrap_or(u64::MAX)))?;
    let info = index.info();
    let (truth, dataset) = (Truth::read(&args.truth)?, queries::open(&args.queries, info, args.limit)?);
    check_truth(args, &truth, dataset.n(), info)?;
    let rows = rows_of_keys(args, info)?;
    let queries = Queries::read(&dataset, 0, usize::try_from(dataset.n()).unwrap_or(usize::MAX))?;
    let threads = thread_count(usize::from(args.threads));
    let trial = Trial { index: &index, queries: &queries, truth: &truth, rows, k: args.k as usize, beam_width: args.beam_width, threads };

    if !args.json {
        print_head(out, args.k)?;
    }
    let mut points = Vec::new();
    for &list_size in &args.sweep.0 {
        if args.cold {
            forget(&args.index)?;
        }
        let point = trial.measure(list_size)?;
        if !args.json {
            print_point(out, &point)?;
            out.flush()?;
        }
        points.push(point);
    }
    if args.json {
        let run = json!({
            "k": args.k, "queries": queries.len(), "threads": threads, "beam_width": args.beam_width, "cold": args.cold,
            "reader": info.reader, "direct": info.direct,
        });
        print_json(out, &json!({"index": index_json(info), "run": run, "points": points.iter().map(to_json).collect::<Vec<_>>()}))?;
    }
    if let Some(path) = &args.plot {
        write_plot(path, &plot::svg(&chart(args, info, threads, &points)))?;
        say(format_args!("{}: written", path.display()));
    }
    Ok(())
}

/// Refuses a truth that is not of these queries, this base, or this k.
fn check_truth(args: &Args, truth: &Truth, queries: u64, info: &IndexInfo) -> Result<(), Failure> {
    let path = args.truth.display();
    if queries == 0 {
        return Err(Failure::input(format!("{}: no queries", args.queries)));
    }
    if truth.n < queries || (args.limit.is_none() && truth.n != queries) {
        let text = format!("{path}: neighbors of {} queries, but {} has {queries}; give the truth of these queries", truth.n, args.queries);
        return Err(Failure::input(text));
    }
    if (truth.k as u64) < u64::from(args.k).min(info.n) {
        return Err(Failure::input(format!("{path}: {} neighbors a query, too few for -k {}; make it with more", truth.k, args.k)));
    }
    match truth.ids.iter().position(|&id| u64::from(id) >= info.n) {
        None => Ok(()),
        Some(at) => {
            let (id, query) = (truth.ids[at], at / truth.k.max(1));
            Err(Failure::input(format!("{path}: query {query} names row {id}, the index has {}; it is the truth of another base", info.n)))
        }
    }
}

/// From key to row, where keys are numbers of the user's own. (Of string keys the index itself keeps the rows.)
fn rows_of_keys(args: &Args, info: &IndexInfo) -> Result<Option<HashMap<u64, u64>>, Failure> {
    if info.row_keys || info.string_keys {
        return Ok(None);
    }
    let path = args.index.display();
    let Some(file) = &args.keys else {
        return Err(Failure::usage(format!(
            "{path} has keys of its own, the truth has row numbers; give the file they came from with --keys"
        )));
    };
    match key_file::read(file, Some(info.n))? {
        KeyList::Numbers(keys) if keys.len() as u64 == info.n => Ok(Some(keys.into_iter().zip(0..).collect())),
        _ => Err(Failure::input(format!("{}: not the {} number keys that {path} was built with", file.display(), info.n))),
    }
}

/// Makes the kernel forget what it has cached of the index.
fn forget(index: &Path) -> Result<(), Failure> {
    let manifest = Manifest::read(index)?;
    let names = manifest.files.iter().map(|file| file.name.as_str()).chain([format::MANIFEST_FILE]);
    names.map(|name| index.join(name)).try_for_each(|path| drop_page_cache(&path).map_err(Failure::io(&path, "drop its page cache")))
}

/// What one thread brings home.
#[derive(Default)]
struct Share {
    /// (query, recall).
    recalls: Vec<(usize, f64)>,
    nanos: Vec<u64>,
    reads: u64,
    cache_hits: u64,
    distances: u64,
}

impl Trial<'_> {
    /// Runs all queries once with one list size.
    fn measure(&self, list_size: usize) -> Result<Point, Failure> {
        let params = SearchParams { k: self.k, list_size, beam_width: self.beam_width };
        // Searchers are made beforehand, so that their making is in no measured time.
        let threads = self.threads.min(self.queries.len());
        let mut searchers = (0..threads).map(|_| self.index.searcher()).collect::<Result<Vec<_>, _>>()?;
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let start = Instant::now();
        let shares: Vec<Result<Share, Failure>> = thread::scope(|scope| {
            let begin = |searcher| thread::Builder::new().spawn_scoped(scope, || self.work(searcher, &params, &next, &stop));
            let begun: Vec<io::Result<_>> = searchers.iter_mut().map(begin).collect();
            let end = |thread: io::Result<thread::ScopedJoinHandle<'_, Result<Share, Failure>>>| match thread {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(error) => {
                    Err(Failure::new(ErrorClass::Busy, format!("cannot start {threads} threads: {error}; give fewer with --threads")))
                }
            };
            begun.into_iter().map(end).collect()
        });
        let seconds = start.elapsed().as_secs_f64();
        let rss_bytes = rss_bytes();
        drop(searchers);

        let mut all = Share::default();
        for share in shares {
            let share = share?;
            all.recalls.extend(share.recalls);
            all.nanos.extend(share.nanos);
            all.reads += share.reads;
            all.cache_hits += share.cache_hits;
            all.distances += share.distances;
        }
        // Summed in the order of the queries, the mean is the same for any number of threads.
        all.recalls.sort_unstable_by_key(|&(query, _)| query);
        let n = all.recalls.len() as f64;
        Ok(Point {
            list_size,
            recall: all.recalls.iter().map(|&(_, recall)| recall).sum::<f64>() / n,
            qps: if seconds > 0.0 { n / seconds } else { 0.0 },
            reads: all.reads as f64 / n,
            cache_hits: all.cache_hits as f64 / n,
            distances: all.distances as f64 / n,
            latency: Latency::of(&mut all.nanos),
            rss_bytes,
        })
    }

    /// Takes queries until there are no more, or another thread has failed.
    fn work(&self, searcher: &mut Searcher, params: &SearchParams, next: &AtomicUsize, stop: &AtomicBool) -> Result<Share, Failure> {
        let mut share = Share::default();
        let (mut query, mut found) = (Vec::new(), Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.queries.len() || stop.load(Ordering::Relaxed) {
                return Ok(share);
            }
            self.queries.decode(number, &mut query);
            let start = Instant::now();
            let outcome = searcher.search(&query, params);
            let nanos = start.elapsed().as_nanos();
            let rows = outcome.map_err(Failure::from).and_then(|answer| {
                found.clear();
                for hit in &answer.hits {
                    found.push(self.row_of(hit.key)?);
                }
                Ok(answer.stats)
            });
            let stats = rows.map_err(|failure| {
                stop.store(true, Ordering::Relaxed);
                failure.at(format_args!("query {number}"))
            })?;
            share.recalls.push((number, recall_at_k(self.truth, number as u64, &found, self.k)));
            share.nanos.push(u64::try_from(nanos).unwrap_or(u64::MAX));
            share.reads += stats.reads;
            share.cache_hits += stats.cache_hits;
            share.distances += stats.distances;
        }
    }

    fn row_of(&self, key: Key) -> Result<u64, Failure> {
        match &self.rows {
            None => Ok(key.0),
            Some(rows) => rows.get(&key.0).copied().ok_or_else(|| Failure::input(format!("key {key} is not in the file of --keys"))),
        }
    }
}

fn to_json(point: &Point) -> Value {
    let latency = point.latency;
    json!({
        "list_size": point.list_size, "recall": point.recall, "qps": point.qps, "reads": point.reads, "mean_us": latency.mean_us,
        "p50_us": latency.p50_us, "p99_us": latency.p99_us, "p999_us": latency.p999_us, "rss_bytes": point.rss_bytes,
        "cache_hits": point.cache_hits, "distances": point.distances,
    })
}

const WIDTHS: [usize; 10] = [9, 9, 8, 7, 9, 9, 9, 9, 9, 10];

fn print_head(out: &mut dyn Write, k: u32) -> io::Result<()> {
    let recall = format!("recall@{k}");
    let names = ["list_size", &recall, "QPS", "reads", "distances", "mean", "p50", "p99", "p99.9", "RSS"];
    text::row(out, &names.map(String::from), &WIDTHS)
}

fn print_point(out: &mut dyn Write, point: &Point) -> io::Result<()> {
    let latency = point.latency;
    let cells = [
        point.list_size.to_string(),
        format!("{:.4}", point.recall),
        format!("{:.0}", point.qps),
        format!("{:.1}", point.reads),
        format!("{:.0}", point.distances),
        text::micros(latency.mean_us),
        text::micros(latency.p50_us),
        text::micros(latency.p99_us),
        text::micros(latency.p999_us),
        text::bytes(point.rss_bytes),
    ];
    text::row(out, &cells, &WIDTHS)
}

fn chart(args: &Args, info: &IndexInfo, threads: usize, points: &[Point]) -> plot::Chart {
    let name = args.index.file_name().map_or_else(|| args.index.display().to_string(), |n| n.to_string_lossy().into_owned());
    let shape = format!("{} x {} {}, {}", text::count(info.n), info.dim, info.element, info.metric);
    let built = format!("degree {}, {}-byte codes, {} reads", info.max_degree, info.code_bytes, text::bytes(info.page_bytes as u64));
    let threads = if threads == 1 { "1 thread".to_string() } else { format!("{threads} threads") };
    let cold = if args.cold { ", cold" } else { "" };
    let point = |p: &Point| plot::Point { x: p.recall, y: p.qps, label: p.list_size.to_string(), note: format!("{:.1} reads", p.reads) };
    plot::Chart {
        title: format!("{name}: recall against speed"),
        subtitle: format!("{shape}; {built}"),
        legend: format!("{threads}, beam width {}{cold}; points: list size, reads a query", args.beam_width),
        x_label: format!("recall@{}", args.k),
        y_label: "queries per second".to_string(),
        points: points.iter().map(point).collect(),
    }
}

/// Writes the plot under a name that was free; what cannot be written whole is removed.
fn write_plot(path: &Path, svg: &str) -> Result<(), Failure> {
    let mut file = fs::File::create_new(path).map_err(Failure::io(path, "create the plot"))?;
    file.write_all(svg.as_bytes()).map_err(|error| {
        // The error to tell is the first one.
        let _ = fs::remove_file(path);
        Failure::io(path, "write the plot")(error)
    })
}
