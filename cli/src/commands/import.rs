//! `import`: an index that another system made, into one of ours.

use super::{Limits, Shape, build::tell, refuse_existing};
use crate::{failure::Failure, interrupt, parse, probe, progress};
use roxanne_builder::{
    BuildError, Builder, Device,
    foreign::{Foreign, ForeignError, Reading, System},
};
use roxanne_core::{element::ElementType, metric::Metric};
use std::{io::Write, path::PathBuf, sync::Arc};

/// Make an index of one that hnswlib, faiss, USearch or DiskANN made
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne import hnswlib words.bin -o my.rx --metric cos
  roxanne import faiss ivory.index -o my.rx
  roxanne import usearch docs.usearch -o my.rx --capacity 2000000
  roxanne import diskann ann_disk.index -o my.rx --metric l2 --element u8

Vectors, keys and the graph's lowest level are taken; deleted vectors are left out. Read are: hnswlib's save_index; IndexHNSWFlat
of faiss, also in an IndexIDMap; USearch 2.10 and later; DiskANN's NAME (beside NAME.data) and NAME_disk.index. Where most vectors
were deleted few edges are left: take --new-graph there.
Edges are pruned to --degree, and linked where the entry reached nothing: a part of the work of finding them. --new-graph finds
new ones all the same, as `roxanne build` does.")]
pub(crate) struct Args {
    /// Whose it is: hnswlib, faiss, usearch or diskann
    #[arg(value_name = "SYSTEM", value_parser = parse::system)]
    system: System,
    /// Its file
    file: PathBuf,
    /// The index directory to make
    #[arg(long, short, value_name = "IDX")]
    output: PathBuf,
    /// What near means there, which files of hnswlib and DiskANN do not say: l2, cos, dot, l1 or hamming
    #[arg(long, short, value_parser = parse::metric)]
    metric: Option<Metric>,
    /// The type of the coordinates, which files of hnswlib and DiskANN do not say: f32 if it is not given
    #[arg(long, value_name = "TYPE", value_parser = parse::element)]
    element: Option<ElementType>,
    /// Take vectors and keys alone, and find edges anew
    #[arg(long)]
    new_graph: bool,
    /// Before publishing, check every byte, that all is reachable, and recall@10 of a few rows against exact search; refuse less than R
    #[arg(long, value_name = "R", num_args = 0..=1, default_missing_value = "0.9", value_parser = parse::share)]
    verify: Option<f64>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    limits: Limits,
    /// Where to compute what is not the graph: auto, cpu, cuda:N or wgpu:ADAPTER; all give the same index
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Threads; 0 is one a core
    #[arg(long, short, value_name = "T", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: u16,
    /// Seed of every random choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Progress on stderr: bars on a terminal, lines, or JSON events
    #[arg(long, value_enum, value_name = "auto|plain|json", default_value_t, hide_possible_values = true)]
    progress: progress::Style,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let stop = interrupt::stop_flag();
    if args.output.symlink_metadata().is_err() {
        refuse_existing(&args.output)?;
    }
    let how = Reading { element: args.element, ram: args.limits.budget().ram, stop: Arc::clone(&stop) };
    let stopped = |error| match error {
        BuildError::Stopped | BuildError::Foreign(ForeignError::Stopped { .. }) => interrupt::interrupted(args.output.display()),
        error => error.into(),
    };
    let open = || Foreign::open(args.system, &args.file, &how).map_err(|error| stopped(error.into()));
    let foreign = open()?;
    let metric = foreign.metric_or(args.metric).map_err(Failure::usage)?;
    let progress = Arc::new(progress::Progress::within(args.progress, args.limits.budget()));
    let mut builder = Builder::new(metric)
        .params(args.shape.params(args.seed))
        .budget(args.limits.budget())
        .device(args.device.clone())
        .threads(usize::from(args.threads))
        .observer(progress.clone())
        .stop(stop);
    builder = if args.new_graph {
        // The edges go at once.
        let Foreign { dataset, keys, .. } = foreign;
        builder.keys(keys).dataset(dataset)
    } else {
        builder.foreign(foreign)
    };
    if let Some(least) = args.verify {
        builder = builder.judge(probe::judge(open()?.dataset, metric, least, args.shape.degree, args.limits.budget().ram)?);
    }
    let report = builder.build(&args.output).map_err(stopped)?;
    progress.end();
    tell(&report, Some(&args.output), args.json, out)
}
