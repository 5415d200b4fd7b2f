//! `build`: vectors in, one index directory out.

use super::{Limits, Shape, print_json, refuse_existing};
use crate::{failure::Failure, input::Changes, interrupt, parse, probe, progress, text};
use roxanne_builder::{BuildError, Builder, Device, Phase, Report};
use roxanne_core::metric::Metric;
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Build an index
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne build base.u8bin -o my.rx
  roxanne build embeddings.npy -o my.rx --metric cos --keys ids.txt --ram 16G
  roxanne build base.u8bin --keys base.keys --changes tuesday.u8bin:tuesday.keys --deleted gone.txt -o new.rx
  roxanne build base.fbin -o my.rx --ram 8G --verify
  roxanne build synth:n=1000000000,dim=128,type=u8 --sink null --shards 16 --only-shard 0 --json

With --changes and --deleted the index is that of the one file that `roxanne convert` would make of them, byte for byte.

An output that is complete with the same parameters and input is left as it is, and that is success; any other output
that exists is refused with exit code 3. A build that does not fit --ram is made in shards, on disk. Ctrl-C leaves nothing
behind, or the checkpoint of a build in shards: the same command goes on from there, --fresh starts over.")]
pub(crate) struct Args {
    /// The vectors
    input: String,
    /// The index directory to make
    #[arg(long, short, value_name = "IDX", required_unless_present = "sink")]
    output: Option<PathBuf>,
    /// Rehearse: do all the work, keep nothing, say how long it took
    #[arg(long, value_enum, value_name = "null", conflicts_with_all = ["output", "verify", "fresh"], hide_possible_values = true)]
    sink: Option<Sink>,
    /// With --sink null: route all vectors, and build one shard of those planned
    #[arg(long, value_name = "I", requires = "sink")]
    only_shard: Option<usize>,
    /// Before publishing, check every byte, that all is reachable, and recall@10 of a few rows against exact search; refuse less than R
    #[arg(long, value_name = "R", num_args = 0..=1, default_missing_value = "0.9", value_parser = parse::share)]
    verify: Option<f64>,
    /// What near means: l2, cos, dot, l1 or hamming
    #[arg(long, short, default_value = "l2", value_parser = parse::metric)]
    metric: Metric,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    limits: Limits,
    /// Where to compute: auto, cpu, cuda:N or wgpu:ADAPTER (`roxanne doctor` lists them); all give the same index
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Build in N shards, on disk, instead of as few as --ram allows; the number is part of what the index is
    #[arg(long, value_name = "N")]
    shards: Option<usize>,
    /// Start over where a build of shards was stopped, instead of going on
    #[arg(long)]
    fresh: bool,
    /// Threads; 0 is one a core
    #[arg(long, short, value_name = "T", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: u16,
    /// Seed of every random choice; the same input, parameters and seed make the same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Index the first rows only
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Progress on stderr: bars on a terminal, lines, or JSON events
    #[arg(long, value_enum, value_name = "auto|plain|json", default_value_t, hide_possible_values = true)]
    progress: progress::Style,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Where an index can go but to disk.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Sink {
    /// Nowhere.
    Null,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.output {
        Some(_) => run_step(args, out, &|builder, index| builder.build(index)),
        None => run_step(args, out, &|builder, _| builder.rehearse(args.only_shard)),
    }
}

impl Args {
    /// For commands whose work must lie somewhere.
    pub(crate) fn refuse_rehearsal(&self) -> Result<(), Failure> {
        if self.output.is_some() {
            Ok(())
        } else {
            Err(Failure::usage("steps of a build need a directory (-o): --sink null is for `roxanne build`"))
        }
    }
}

/// Something of a build.
pub(crate) type StepFn<'a> = dyn Fn(Builder, &Path) -> Result<Report, BuildError> + 'a;

/// Describes the build and lets `step` do something of it.
pub(crate) fn run_step(args: &Args, out: &mut dyn Write, step: &StepFn<'_>) -> Result<(), Failure> {
    let stop = interrupt::stop_flag();
    let nowhere = PathBuf::new();
    let index = args.output.as_ref().unwrap_or(&nowhere);
    if args.output.is_some() && index.symlink_metadata().is_err() {
        refuse_existing(index)?;
    }
    let progress = Arc::new(progress::Progress::within(args.progress, args.limits.budget()));
    let (dataset, keys) = args.changes.open(&args.input, args.limit)?;
    let mut builder = Builder::new(args.metric)
        .params(args.shape.params(args.seed))
        .budget(args.limits.budget())
        .device(args.device.clone())
        .threads(usize::from(args.threads))
        .dataset(dataset)
        .observer(progress.clone())
        .stop(stop);
    if let Some(shards) = args.shards {
        builder = builder.shards(shards);
    }
    if args.fresh {
        builder = builder.fresh();
    }
    if let Some(keys) = keys {
        builder = builder.keys(keys);
    }
    if let Some(least) = args.verify {
        builder = builder.judge(probe::judge(
            args.changes.open(&args.input, args.limit)?.0,
            args.metric,
            least,
            args.shape.degree,
            args.limits.budget().ram,
        )?);
    }
    let report = step(builder, index).map_err(|error| match error {
        BuildError::Stopped => interrupt::interrupted(index.display()),
        error => error.into(),
    })?;
    progress.end();
    tell(&report, args.output.as_deref(), args.json, out)
}

/// Says what a build did.
pub(crate) fn tell(report: &Report, index: Option<&Path>, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(index) = index.filter(|_| report.already_complete) {
        progress::say(format_args!("{}: complete already, of the same input and parameters; nothing was done", index.display()));
    }
    if json {
        print_json(out, &to_json(report))?
    } else {
        print(report, index, out)?
    }
    Ok(())
}

fn per_second(units: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { units as f64 / seconds } else { 0.0 }
}

fn to_json(report: &Report) -> Value {
    let phase =
        |p: &Phase| json!({"name": p.name, "seconds": p.seconds, "units": p.units, "unit": p.unit, "rate": per_second(p.units, p.seconds)});
    let work = &report.work;
    json!({
        "n": report.n,
        "dim": report.dim,
        "seconds": report.seconds,
        "phases": report.phases.iter().map(phase).collect::<Vec<_>>(),
        "peak_rss_bytes": report.peak_rss_bytes,
        "index_bytes": report.index_bytes,
        "code_bytes": report.code_bytes,
        "rotated": report.rotated,
        "pq_quality": report.pq_quality,
        "backend": report.backend,
        "shards": report.shards,
        "ghosts": report.ghosts,
        "disk": {
            "read_bytes": report.traffic.read_bytes,
            "written_bytes": report.traffic.written_bytes,
            "busy_seconds": report.traffic.busy_seconds,
            "busy_share": per_second(1, report.seconds) * report.traffic.busy_seconds,
        },
        "already_complete": report.already_complete,
        "work": {
            "assign_pairs": work.assign_pairs,
            "assign_seconds": work.assign_seconds,
            "assign_pairs_per_second": per_second(work.assign_pairs, work.assign_seconds),
            "leaf_pairs": work.leaf_pairs,
            "leaf_seconds": work.leaf_seconds,
            "leaf_pairs_per_second": per_second(work.leaf_pairs, work.leaf_seconds),
            "merge_seconds": work.merge_seconds,
            "prune_seconds": work.prune_seconds,
            "fixed_edges": work.fixed_edges,
        },
    })
}

fn print(report: &Report, index: Option<&Path>, out: &mut dyn Write) -> io::Result<()> {
    let work = &report.work;
    let mut lines = vec![
        ("index", index.map_or_else(|| "nowhere: a rehearsal".into(), |path| path.display().to_string())),
        ("vectors", format!("{} x {}", text::count(report.n), report.dim)),
        ("size", text::bytes(report.index_bytes)),
        ("code", format!("{} bytes a vector{}", report.code_bytes, if report.rotated { ", rotated" } else { "" })),
    ];
    if !report.already_complete {
        let ghosts = || format!(", {} vectors lent as ghosts", text::count(report.ghosts));
        let shards = format!("{}{}", report.shards, if report.shards > 1 { ghosts() } else { String::new() });
        let pairs = |pairs: u64, seconds: f64| format!("{} pairs, {}/s", text::rate(pairs as f64), text::rate(per_second(pairs, seconds)));
        let traffic = &report.traffic;
        let busy = 100.0 * per_second(1, report.seconds) * traffic.busy_seconds;
        let [read, written] = [traffic.read_bytes, traffic.written_bytes].map(text::bytes);
        let disk = if report.shards > 1 {
            format!("{read} read, {written} written between passes, {busy:.0}% of the time")
        } else {
            "written once".into()
        };
        lines.extend([
            ("time", format!("{}, {} vectors/s", text::seconds(report.seconds), text::rate(per_second(report.n, report.seconds)))),
            ("peak memory", text::bytes(report.peak_rss_bytes)),
            ("backend", report.backend.clone()),
            ("shards", shards),
            ("disk", disk),
            ("assign", pairs(work.assign_pairs, work.assign_seconds)),
            ("leaf", pairs(work.leaf_pairs, work.leaf_seconds)),
        ]);
    }
    text::pairs(out, &lines)?;
    if report.phases.is_empty() || report.already_complete {
        return Ok(());
    }
    writeln!(out)?;
    let name = report.phases.iter().map(|p| p.name.len()).max().unwrap_or(0);
    for phase in &report.phases {
        // A step that is done once has a time and no rate.
        let rate = format!("{} {}/s", text::rate(per_second(phase.units, phase.seconds)), phase.unit);
        let rate = if phase.units > 1 { rate } else { String::new() };
        writeln!(out, "{:<name$}  {:>10}  {rate:>20}", phase.name, text::seconds(phase.seconds))?;
    }
    Ok(())
}
