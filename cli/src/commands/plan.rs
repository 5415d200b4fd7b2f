//! `plan`: the bill before the work.

use super::{Limits, Shape, print_json};
use crate::{failure::Failure, input::Changes, interrupt, parse, text};
use roxanne_builder::{Builder, Device, Plan};
use roxanne_core::metric::Metric;
use serde_json::json;
use std::io::{self, Write};

/// Say what a build would take, without doing it
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne plan base.fbin --metric cos --ram 64G
  roxanne plan synth:n=1000000000,dim=96,type=i8 --json

Exit code 4 when it does not fit --ram or --disk; the bill is printed all the same.")]
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
    let mut builder = Builder::new(args.metric).params(args.shape.params(1)).budget(args.limits.budget()).dataset(dataset);
    if let Some(shards) = args.shards {
        builder = builder.shards(shards);
    }
    if let Some(keys) = keys {
        builder = builder.keys(keys);
    }
    let plan = builder.plan()?;
    let fits = plan.check(&args.limits.budget(), &args.device);
    print(&plan, fits.is_ok(), args, out)?;
    Ok(fits?)
}

fn print(plan: &Plan, fits: bool, args: &Args, out: &mut dyn Write) -> io::Result<()> {
    if args.json {
        let value = json!({
            "n": plan.n,
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
            "shards": plan.shards,
            "fits": fits,
        });
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
    let lines = [
        ("vectors", format!("{} x {} {}, {}", text::count(plan.n), plan.dim, plan.element, plan.metric)),
        ("page", format!("{} with {} nodes of {} bytes", text::bytes(plan.page_bytes as u64), plan.records_per_page, plan.record_bytes)),
        ("code", format!("{} bytes a vector in RAM", plan.code_bytes)),
        ("index", text::bytes(plan.index_bytes)),
        ("shards", text::count(plan.shards as u64)),
        ("RAM to build", format!("{}{}", text::bytes(plan.peak_ram_bytes), of(args.limits.ram))),
        ("disk to build", format!("{}{}", text::bytes(plan.disk_bytes), of(args.limits.disk))),
        ("on a CUDA device", on_device),
        ("RAM to serve", text::bytes(plan.serve_ram_bytes)),
    ];
    text::pairs(out, &lines)
}
