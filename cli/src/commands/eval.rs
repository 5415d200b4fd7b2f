//! `eval`: recall against speed, one point a list size.

use super::{Memory, check_index, index_json, print_json, refuse_existing, search_failure, thread_count};
use crate::{
    failure::Failure,
    input::Changes,
    interrupt, key_file,
    parse::{self, Sweep},
    plot,
    progress::say,
    queries::{self, Queries},
    text,
    trial::{Point, Trial},
};
use roxanne_core::{
    ErrorClass,
    format::{self, keys::KeyList, manifest::Manifest},
    metric::Metric,
    recall::Truth,
};
use roxanne_engine::{Index, IndexInfo, OpenOptions, SearchParams, io::drop_page_cache};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Measure recall and speed
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne eval my.rx -q query.u8bin -g gt.bin --sweep list-size=16,32,64,128 --threads 2 --cold
  roxanne eval my.rx -q query.u8bin -g gt.bin --sweep list-size=16..256 --plot recall.svg --json
  roxanne eval my.rx -q query.u8bin -g gt.bin --in-flight 1,8,64 --ram 80M --warm-with other.u8bin
  roxanne eval my.rx -q query.u8bin -g gt.bin --sweep 64 --min-recall 0.95        a gate: exit code 5 below it

Recall compares row numbers: rows at equal distance that the truth does not name count as missed (but not under hamming,
where such ties are the rule). An index with number keys of its own needs the file it was built with (--keys); string keys
need nothing.")]
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
    /// List sizes to measure: list-size=16,32,64 or list-size=16..256 (doubling); at least k is used; also ef=, complexity=
    #[arg(long, value_name = "list-size=...", default_value = "list-size=16,32,64,128")]
    sweep: Sweep,
    /// Threads; 0 is one a core
    #[arg(long, short, value_name = "T", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: u16,
    /// Queries in flight, over all threads, such as 1,8,64; each is measured. 0 is one a thread
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "0", value_parser = clap::value_parser!(u16).range(0..=4096))]
    in_flight: Vec<u16>,
    #[command(flatten)]
    memory: Memory,
    /// Most reads in flight for a query (W); among many queries each has fewer
    #[arg(long, value_name = "W", default_value_t = SearchParams::default().beam_width)]
    beam_width: usize,
    /// The same answers in every run, whatever order reads come back in
    #[arg(long)]
    deterministic: bool,
    /// Make the kernel forget the index's files before each point, and keep no pages of our own
    #[arg(long)]
    cold: bool,
    /// Queries that are run first, unmeasured, so that the cache knows what is wanted
    #[arg(long, value_name = "Q", conflicts_with = "cold")]
    warm_with: Option<String>,
    /// The first queries only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    changes: Changes,
    /// End with exit code 5 where a list size finds less than this share of the true neighbors, such as 0.95
    #[arg(long, value_name = "SHARE", value_parser = parse::share)]
    min_recall: Option<f64>,
    /// Draw recall against queries per second
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    interrupt::leaves_at_once();
    args.plot.as_deref().map_or(Ok(()), refuse_existing)?;
    check_index(&args.index)?;
    let threads = thread_count(usize::from(args.threads));
    let most = args.in_flight.iter().map(|&n| usize::from(n)).max().unwrap_or(0).max(threads);
    let options = OpenOptions { searchers: threads, in_flight: most.div_ceil(threads), ..args.memory.options() };
    let index = Index::open_with(&args.index, &options)?;
    let info = index.info();
    let (truth, dataset) = (Truth::read(&args.truth)?, queries::open(&args.queries, info, args.limit)?);
    check_truth(args, &truth, dataset.n(), info)?;
    let rows = rows_of_keys(args, info)?;
    let queries = Queries::read(&dataset, 0, usize::try_from(dataset.n()).unwrap_or(usize::MAX))?;
    let ties = info.metric == Metric::Hamming && !truth.distances.is_empty();
    let params =
        SearchParams { k: args.k as usize, beam_width: args.beam_width, deterministic: args.deterministic, ..SearchParams::default() };
    let trial = Trial { index: &index, queries: &queries, truth: &truth, rows, stranger: None, ties, params, threads };
    if let Some(source) = &args.warm_with {
        warm(&index, source, &params)?;
    }

    if !args.json {
        print_head(out, args.k)?;
    }
    let mut points = Vec::new();
    let in_flight = args.in_flight.iter().map(|&n| if n == 0 { threads } else { usize::from(n) });
    for (effort, in_flight) in in_flight.flat_map(|n| args.sweep.0.iter().map(move |&effort| (effort, n))) {
        if args.cold {
            forget(&args.index)?;
        }
        let point = trial.measure(effort, in_flight)?;
        if !args.json {
            print_point(out, &point)?;
            out.flush()?;
        }
        points.push(point);
    }
    if args.json {
        let run = json!({
            "k": args.k, "queries": queries.len(), "threads": threads, "beam_width": args.beam_width, "cold": args.cold,
            "ties": ties, "reader": info.reader, "direct": info.direct, "deterministic": args.deterministic,
            "ram": args.memory.ram, "adjacency_in_ram": info.adjacency_in_ram, "kept_bytes": info.kept_bytes,
            "all_resident": info.all_resident, "warm_with": args.warm_with,
        });
        print_json(out, &json!({"index": index_json(info), "run": run, "points": points.iter().map(to_json).collect::<Vec<_>>()}))?;
    }
    if let Some(path) = &args.plot {
        write_plot(path, &plot::svg(&chart(args, info, threads, &points)))?;
        say(format_args!("{}: written", path.display()));
    }
    gate(args, &points)
}

/// Says no where recall is below what was asked for.
fn gate(args: &Args, points: &[Point]) -> Result<(), Failure> {
    let least = args.min_recall.unwrap_or(0.0);
    let short: Vec<String> = points.iter().filter(|p| p.recall < least).map(|p| format!("{:.4} at {}", p.recall, p.effort)).collect();
    if short.is_empty() {
        return Ok(());
    }
    let text = format!("{}: recall@{} {}, below the {least} asked for", args.index.display(), args.k, short.join(", "));
    Err(Failure::new(ErrorClass::Gate, text))
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
    let Some(keys) = args.changes.keys()? else {
        return Err(Failure::usage(format!(
            "{path} has keys of its own, the truth has row numbers; give the file they came from with --keys"
        )));
    };
    match key_file::limited(keys, Some(info.n)) {
        KeyList::Numbers(keys) if keys.len() as u64 == info.n => Ok(Some(keys.into_iter().zip(0..).collect())),
        _ => {
            let file = args.changes.keys.as_deref().unwrap_or(Path::new("")).display();
            Err(Failure::input(format!(
                "{file}: not the {} number keys that {path} was built with; give --keys, --changes and --deleted as it was",
                info.n
            )))
        }
    }
}

/// Runs the queries of `source` for what the cache learns from them.
fn warm(index: &Index, source: &str, params: &SearchParams) -> Result<(), Failure> {
    let dataset = queries::open(source, index.info(), None)?;
    let queries = Queries::read(&dataset, 0, usize::try_from(dataset.n()).unwrap_or(usize::MAX))?;
    let (mut searcher, mut query) = (index.searcher()?, Vec::new());
    (0..queries.len()).try_for_each(|at| {
        queries.decode(at, &mut query);
        searcher.search(&query, params).map(|_| ()).map_err(|error| search_failure(error, at as u64))
    })
}

/// Makes the kernel forget what it has cached of the index.
fn forget(index: &Path) -> Result<(), Failure> {
    let manifest = Manifest::read(index)?;
    let names = manifest.files.iter().map(|file| file.name.as_str()).chain([format::MANIFEST_FILE]);
    names.map(|name| index.join(name)).try_for_each(|path| drop_page_cache(&path).map_err(Failure::io(&path, "drop its page cache")))
}

fn to_json(point: &Point) -> Value {
    let latency = point.latency;
    let params = point.effort.of(SearchParams::DEFAULT);
    json!({
        "list_size": params.list_size, "slack": params.slack, "in_flight": point.in_flight, "threads": point.threads, "way": point.way.name(), "recall": point.recall, "qps": point.qps, "reads": point.reads, "mean_us": latency.mean_us,
        "p50_us": latency.p50_us, "p99_us": latency.p99_us, "p999_us": latency.p999_us, "rss_bytes": point.rss_bytes,
        "cache_hits": point.cache_hits, "distances": point.distances, "cpu_us": point.cpu_us,
    })
}

const WIDTHS: [usize; 12] = [9, 9, 9, 8, 7, 9, 9, 9, 9, 9, 9, 10];

fn print_head(out: &mut dyn Write, k: u32) -> io::Result<()> {
    let recall = format!("recall@{k}");
    let names = ["effort", "in_flight", &recall, "QPS", "reads", "distances", "CPU", "mean", "p50", "p99", "p99.9", "RSS"];
    text::row(out, &names.map(String::from), &WIDTHS)
}

fn print_point(out: &mut dyn Write, point: &Point) -> io::Result<()> {
    let latency = point.latency;
    let cells = [
        point.effort.to_string(),
        point.in_flight.to_string(),
        format!("{:.4}", point.recall),
        format!("{:.0}", point.qps),
        format!("{:.1}", point.reads),
        format!("{:.0}", point.distances),
        text::micros(point.cpu_us),
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
    let point = |p: &Point| plot::Point { x: p.recall, y: p.qps, label: p.effort.to_string(), note: format!("{:.1} reads", p.reads) };
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
