//! `merge` and `promote`: what lies in memory comes into the base, in place or by a new one; a finished index becomes the base.

use super::{Limits, Shape};
use crate::{failure::Failure, interrupt, parse, progress, text};
use roxanne::rebuild::{Rebuild, rebuild};
use roxanne_builder::Observer;
use roxanne_core::{ErrorClass, format::record::Stored};
use roxanne_engine::{
    Index,
    collection::{Collection, CollectionOptions, MergeLimits, Previous, Promotion},
};
use std::{
    io::Write,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

/// Vectors that a gate looks for, and the list it looks with.
const GATE_QUERIES: u64 = 100;
const GATE_LIST_SIZE: usize = 100;

/// Bring all points of a collection into its base
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne merge docs                         where a base is, it is changed in place
  roxanne merge docs --rebuild --ram 8G      a new one from all points

What was put and deleted since the last base lies in memory. The first merge builds a base, in the layout for flash and with room for as many points
again; from then on the base is changed where it lies, and work is in proportion to what changed. No other process may write meanwhile; any may
read.")]
pub(crate) struct MergeArgs {
    /// The collection
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Build a new base also where the one that is there could be changed
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    limits: Limits,
    /// Threads; 0 is one a core
    #[arg(long, short, value_name = "T", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: u16,
    /// Progress on stderr: bars on a terminal, lines, or JSON events
    #[arg(long, value_enum, value_name = "auto|plain|json", default_value_t, hide_possible_values = true)]
    progress: progress::Style,
}

/// Make a finished index the base of a collection
#[derive(clap::Args)]
#[command(after_help = "Example:
  roxanne info docs --json | jq .sequence        before the build begins
  roxanne promote docs new.rx --sequence 1234    when it is done
  roxanne promote docs new.rx --sequence 1234 --gate 'recall@10>=0.95'

The index holds the collection as it was after that batch; what was put or deleted later stays so. Into an empty collection an index goes with
--sequence 0. Its directory moves into that of the collection; where that was cut off before it counted, it lies there as base-NUMBER and can be
promoted from there.")]
pub(crate) struct PromoteArgs {
    /// The collection
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The index
    #[arg(value_name = "IDX")]
    index: PathBuf,
    /// The batch that it was built after
    #[arg(long, value_name = "N")]
    sequence: u64,
    /// Remove the base that it replaces; otherwise it is kept, so that `rollback` can bring it back
    #[arg(long)]
    remove_previous: bool,
    /// What it must reach, such as recall@10>=0.95: the recall of searches for its own vectors, with a list of 100, against all of them
    #[arg(long, value_name = "CONDITION", value_parser = parse::gate)]
    gate: Option<f64>,
}

/// Put the base before the last promotion back
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne rollback docs             what was written since stays
  roxanne rollback docs --forget    the new base stays, the room of the old one is free again

What was put and deleted since the promotion is kept; what the promoted index brought itself goes with it.")]
pub(crate) struct RollbackArgs {
    /// The collection
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Keep the base before no more, instead of going back to it
    #[arg(long)]
    forget: bool,
}

pub(crate) fn rollback(args: &RollbackArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let options = CollectionOptions { delta_bytes: u64::MAX, merges: false, ..CollectionOptions::default() };
    let collection = Collection::open(&args.directory, &options)?;
    if args.forget {
        collection.forget_previous()?;
        return Ok(());
    }
    collection.rollback()?;
    let stats = collection.stats();
    let waiting = stats.delta_points - stats.delta_dead;
    writeln!(out, "{} points, {} of them not in the base", text::count(stats.points), text::count(waiting))?;
    Ok(())
}

pub(crate) fn promote(args: &PromoteArgs, _: &mut dyn Write) -> Result<(), Failure> {
    let collection =
        Collection::open(&args.directory, &CollectionOptions { delta_bytes: u64::MAX, merges: false, ..CollectionOptions::default() })?;
    let previous = if args.remove_previous { Previous::Remove } else { Previous::Keep };
    let judge = |index: &Index| {
        let Some(least) = args.gate else { return Ok(()) };
        let recall = index.own_recall(GATE_QUERIES, GATE_LIST_SIZE, &mut |_| true).map_err(|error| error.to_string())?.unwrap_or_default();
        if recall >= least { Ok(()) } else { Err(format!("its recall@10 is {recall:.4}, the gate asks for {least}")) }
    };
    Ok(collection.promote_with(&args.index, args.sequence, &Promotion { previous, gate: Some(&judge), ..Promotion::default() })?)
}

pub(crate) fn merge(args: &MergeArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let collection =
        Collection::open(&args.directory, &CollectionOptions { delta_bytes: u64::MAX, merges: false, ..CollectionOptions::default() })?;
    if args.shape.vectors != Stored::Full {
        return Err(Failure::usage("the base of a collection holds vectors as they were given: --vectors full"));
    }
    let stats = collection.stats();
    let (waiting, dead) = (stats.delta_points - stats.delta_dead, stats.base_dead - stats.base_free);
    if waiting + dead == 0 || stats.points == 0 {
        writeln!(out, "nothing to merge: {} points, all in the base", text::count(stats.points))?;
        return Ok(());
    }
    if collection.merges_in_place() && !args.rebuild {
        return merge_in_place(&collection, args, out);
    }
    let progress = Arc::new(progress::Progress::within(args.progress, args.limits.budget()));
    let how = Rebuild {
        params: args.shape.params_with_room(1, stats.points),
        budget: args.limits.budget(),
        threads: usize::from(args.threads),
        observer: progress.clone(),
        stop: interrupt::stop_flag(),
    };
    let report = rebuild(&collection, &how);
    progress.end();
    let report = report?;
    writeln!(out, "{} points in a base of {}, built in {:.1} s", text::count(report.n), text::bytes(report.index_bytes), report.seconds)?;
    Ok(())
}

/// Merges round by round, until nothing is left that can be merged.
fn merge_in_place(collection: &Collection, args: &MergeArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let (stop, stats, begin) = (interrupt::stop_flag(), collection.stats(), Instant::now());
    let progress = progress::Progress::within(args.progress, args.limits.budget());
    progress.phase("merge", stats.delta_points - stats.delta_dead, "vectors");
    let (mut inserted, mut removed, mut bytes) = (0, 0, 0);
    let mut limits = MergeLimits::default();
    if args.threads > 0 {
        limits.threads = usize::from(args.threads);
    }
    while !stop.load(Ordering::Relaxed) {
        let report = collection.merge(&limits)?;
        if report.inserted + report.removed == 0 {
            break;
        }
        (inserted, removed, bytes) = (inserted + report.inserted, removed + report.removed, bytes + report.bytes);
        progress.reached(inserted);
    }
    progress.end();
    let [came, left] = [inserted, removed].map(text::count);
    let seconds = begin.elapsed().as_secs_f64();
    writeln!(out, "{came} vectors came into the base and {left} left it; {} written in {seconds:.1} s", text::bytes(bytes))?;
    let stats = collection.stats();
    let waiting = stats.delta_points - stats.delta_dead;
    if waiting > 0 && !stop.load(Ordering::Relaxed) {
        let text =
            format!("{}: {} vectors have no room in the base; `merge --rebuild` makes a larger one", args.directory.display(), waiting);
        return Err(Failure::new(ErrorClass::Gate, text));
    }
    Ok(())
}
