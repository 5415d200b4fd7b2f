//! `plan`: the bill before the work.

use super::{Limits, Shape, print_json};
use crate::{
    failure::Failure,
    input::Changes,
    interrupt, parse,
    progress::{Progress, Style},
    rates, text,
};
use roxanne_builder::{
    Builder, Device, Plan,
    scale::{self, Forecast, Rates, probe::Probe},
};
use roxanne_core::{id::MAX_NODES, metric::Metric};
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The list size that reads are told for.
const LIST_SIZE: usize = 64;

/// Say what a build would take, without doing it
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne plan base.fbin --metric cos --ram 64G
  roxanne plan synth:n=1000000000,dim=96,type=i8 --json
  roxanne plan base.u8bin --ram 64G --time --directory /srv/indexes
  roxanne plan synth:n=10000000000,dim=96,type=u8 --ram 64G --time --rates rates.json

More vectors than one index names (2^32 - 16) are planned as several of equal size. Exit code 4 when it does not fit --ram or --disk; the bill is printed all the same.")]
pub(crate) struct Args {
    /// The vectors
    input: String,
    /// What near means: l2, cos, dot, l1 or hamming
    #[arg(long, short, default_value = "l2", value_parser = parse::metric)]
    metric: Metric,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    limits: Limits,
    /// Where it will be computed: decides which RAM must fit, and whether --vram counts
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Build in N shards instead of as few as --ram allows
    #[arg(long, value_name = "N")]
    shards: Option<usize>,
    /// Say how long it will take as well: measures this machine for a few seconds
    #[arg(long)]
    time: bool,
    /// Take the rates from a file instead of measuring: what `plan --time --json` printed on this machine or another
    #[arg(long, value_name = "FILE", requires = "time")]
    rates: Option<PathBuf>,
    /// A directory on the disk that the index will be on, for --time
    #[arg(long, value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Threads of the build, for --time; 0 is one a core
    #[arg(long, short, value_name = "T", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: u16,
    /// Plan for the first rows only
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    interrupt::leaves_at_once();
    let (dataset, keys) = args.changes.open(&args.input, args.limit)?;
    // Each of several indexes is built by itself.
    let indexes = dataset.n().div_ceil(MAX_NODES).max(1);
    let rows = dataset.n().div_ceil(indexes);
    let dataset = dataset.limit(rows);
    let mut builder = Builder::new(args.metric).params(args.shape.params(1)).budget(args.limits.budget()).dataset(dataset);
    if let Some(shards) = args.shards {
        builder = builder.shards(shards);
    }
    if let Some(keys) = keys {
        builder = builder.keys(keys);
    }
    let plan = builder.plan()?;
    let fits = plan.check(&args.limits.budget(), &args.device);
    let time = if args.time { Some(Time::of(args, &plan)?) } else { None };
    print(&plan, fits.is_ok(), indexes, time.as_ref(), args, out)?;
    Ok(fits?)
}

/// How long a build will take, and what that was judged by.
struct Time {
    rates: Rates,
    forecast: Forecast,
}

impl Time {
    fn of(args: &Args, plan: &Plan) -> Result<Time, Failure> {
        let params = args.shape.params(1);
        let rates = match &args.rates {
            Some(path) => rates::read(path)?,
            None => {
                let progress = Arc::new(Progress::new(Style::Auto));
                let (directory, observer) = (args.directory.as_path(), progress.clone());
                let threads = usize::from(args.threads);
                let probe = Probe { metric: args.metric, params: &params, device: &args.device, threads, directory, observer };
                let measured = probe.rates(|| Ok::<_, Failure>(args.changes.open(&args.input, args.limit)?.0))?;
                progress.end();
                measured
            }
        };
        let partition = params.graph(plan.dim)?.partition;
        let forecast = rates.forecast(plan, &partition, !args.input.starts_with("synth:"));
        Ok(Time { rates, forecast })
    }

    fn json(&self, indexes: u64) -> Value {
        let forecast = &self.forecast;
        let stage = |(name, seconds): &(&str, f64)| json!({"name": name, "seconds": seconds});
        json!({
            "seconds": forecast.seconds * indexes as f64, "stages": forecast.stages.iter().map(stage).collect::<Vec<_>>(),
            "passes": forecast.passes, "bytes_read": forecast.bytes_read, "bytes_written": forecast.bytes_written,
        })
    }

    fn lines(&self, indexes: u64, rates: Option<&Path>) -> Vec<(&'static str, String)> {
        let forecast = &self.forecast;
        let by = rates.map_or("as this machine was just measured".to_string(), |path| format!("by the rates of {}", name_of(path)));
        let each = if indexes > 1 { format!(", {} an index", text::seconds(forecast.seconds)) } else { String::new() };
        let stages: Vec<String> = forecast.stages.iter().map(|(name, seconds)| format!("{name} {}", text::seconds(*seconds))).collect();
        vec![
            ("time to build", format!("{}{each}, {by}", text::seconds(forecast.seconds * indexes as f64))),
            ("  of that", stages.join(", ")),
            ("passes", format!("{} over the vectors", forecast.passes)),
            ("disk traffic", format!("{} read, {} written", text::bytes(forecast.bytes_read), text::bytes(forecast.bytes_written))),
        ]
    }
}

/// The last part of a path.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn print(plan: &Plan, fits: bool, indexes: u64, time: Option<&Time>, args: &Args, out: &mut dyn Write) -> io::Result<()> {
    if args.json {
        let mut value = json!({
            "n": plan.n,
            "indexes": indexes,
            "dim": plan.dim,
            "element": plan.element.name(),
            "metric": plan.metric.name(),
            "code_bytes": plan.code_bytes,
            "record_bytes": plan.record_bytes,
            "records_per_page": plan.records_per_page,
            "page_bytes": plan.page_bytes,
            "index_bytes": plan.index_bytes,
            "peak_ram_bytes": plan.peak_ram_bytes,
            "serve_ram_bytes": plan.serve_ram_bytes,
            "on_device": {
                "least_bytes": plan.on_device.least_bytes,
                "best_bytes": plan.on_device.best_bytes,
                "peak_ram_bytes": plan.on_device.peak_ram_bytes,
            },
            "disk_bytes": plan.disk_bytes,
            "read_bytes": plan.read_bytes,
            "written_bytes": plan.written_bytes,
            "shards": plan.shards,
            "reads_per_query": scale::reads_a_query(LIST_SIZE),
            "fits": fits,
        });
        if let Some(time) = time {
            value["time"] = time.json(indexes);
            value["rates"] = rates::to_json(&time.rates);
        }
        return print_json(out, &value);
    }
    let of = |limit: Option<u64>| limit.map_or(String::new(), |limit| format!(" of {} allowed", text::bytes(limit)));
    let on_device = format!(
        "{} of its memory (better {}){} and {} RAM",
        text::bytes(plan.on_device.least_bytes),
        text::bytes(plan.on_device.best_bytes),
        of(args.limits.vram),
        text::bytes(plan.on_device.peak_ram_bytes)
    );
    let reads = [LIST_SIZE / 2, LIST_SIZE, LIST_SIZE * 2].map(|list| format!("{:.0} at list size {list}", scale::reads_a_query(list)));
    let traffic = || format!(", {} read and {} written between passes", text::bytes(plan.read_bytes), text::bytes(plan.written_bytes));
    let shards = format!("{}{}", text::count(plan.shards as u64), if plan.shards > 1 { traffic() } else { String::new() });
    let mut lines = vec![
        ("vectors", format!("{} x {} {}, {}", text::count(plan.n), plan.dim, plan.element, plan.metric)),
        ("page", format!("{} with {} nodes of {} bytes", text::bytes(plan.page_bytes as u64), plan.records_per_page, plan.record_bytes)),
        ("code", format!("{} bytes a vector in RAM", plan.code_bytes)),
        ("index", text::bytes(plan.index_bytes)),
        ("shards", shards),
        ("RAM to build", format!("{}{}", text::bytes(plan.peak_ram_bytes), of(args.limits.ram))),
        ("disk to build", format!("{}{}", text::bytes(plan.disk_bytes), of(args.limits.disk))),
        ("on a CUDA device", on_device),
        ("RAM to serve", text::bytes(plan.serve_ram_bytes)),
        ("reads a query", format!("about {}", reads.join(", "))),
    ];
    if indexes > 1 {
        lines.insert(0, ("indexes", format!("{indexes}, each as below, searched side by side")));
    }
    lines.extend(time.into_iter().flat_map(|time| time.lines(indexes, args.rates.as_deref())));
    text::pairs(out, &lines)
}
