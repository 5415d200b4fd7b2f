//! `truth`: the exact nearest neighbors, by comparing everything with everything.

use super::{print_json, refuse_existing, thread_count};
use crate::{failure::Failure, input::Changes, interrupt, parse, progress, text};
use roxanne_builder::Observer;
use roxanne_core::{
    ErrorClass,
    dataset::Dataset,
    element::ElementType,
    metric::Metric,
    recall::{TruthError, exact_truth},
};
use serde_json::json;
use std::{io::Write, path::PathBuf, process, sync::atomic::Ordering, time::Instant};

/// Compute exact neighbors, to measure recall by
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne truth base.u8bin query.u8bin -k 100 -o gt.bin
  roxanne truth base.npy query.npy -o gt.bin --metric cos
  roxanne truth base.u8bin query.u8bin -o gt.bin --keys base.keys --changes tuesday.u8bin:tuesday.keys --deleted gone.txt

.bin is u32 n, u32 k, u32 rows [n x k], f32 distances [n x k]; .ivecs holds the rows alone.")]
pub(crate) struct Args {
    /// The vectors that are searched
    base: String,
    /// The queries, of the same dimension and element type
    queries: String,
    /// Neighbors of each query
    #[arg(short, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=65536))]
    k: u32,
    /// The file to write: .bin or .ivecs; one that exists is refused
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// What near means: l2, cos, dot, l1 or hamming
    #[arg(long, short, default_value = "l2", value_parser = parse::metric)]
    metric: Metric,
    #[command(flatten)]
    changes: Changes,
    /// Search among the first rows of the base only
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Threads; 0 is one a core
    #[arg(long, short, value_name = "T", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: u16,
    /// Progress on stderr: bars on a terminal, lines, or JSON events
    #[arg(long, value_enum, value_name = "auto|plain|json", default_value_t, hide_possible_values = true)]
    progress: progress::Style,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let stop = interrupt::stop_flag();
    let start = Instant::now();
    refuse_existing(&args.output)?;
    let extension = args.output.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    if extension != "bin" && extension != "ivecs" {
        return Err(TruthError::UnknownFormat { path: args.output.clone(), extension }.into());
    }
    let seen = |dataset: Dataset| -> Result<Dataset, Failure> {
        let packed = args.metric == Metric::Hamming && dataset.element() == ElementType::U8;
        Ok(if packed { dataset.into_binary()? } else { dataset })
    };
    let (base, queries) = (seen(args.changes.open(&args.base, args.limit)?.0)?, seen(Dataset::open(&args.queries)?)?);
    let progress = progress::Progress::new(args.progress);
    progress.phase("truth", base.n(), "rows");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(thread_count(usize::from(args.threads))).build();
    let pool = pool.map_err(|e| Failure::new(ErrorClass::Busy, format!("cannot start threads: {e}")))?;
    let mut heard = |done| {
        if stop.load(Ordering::Relaxed) {
            // Nothing has been written yet, so there is nothing to clear away.
            progress::say(format_args!("error: {}", interrupt::interrupted(args.output.display()).line()));
            process::exit(130);
        }
        progress.reached(done);
    };
    let truth = pool.install(|| exact_truth(&base, &queries, args.metric, args.k as usize, &mut heard))?;
    truth.write(&args.output)?;
    progress.end();
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let value = json!({"path": args.output.display().to_string(), "base": base.n(), "queries": truth.n, "k": truth.k, "metric": args.metric.name(), "seconds": seconds});
        print_json(out, &value)?;
    } else {
        let (queries, k) = (text::count(truth.n), truth.k);
        writeln!(out, "{}: {k} exact neighbors of {queries} queries, in {}", args.output.display(), text::seconds(seconds))?;
    }
    Ok(())
}
