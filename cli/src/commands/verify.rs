//! `verify`: every byte of an index held against its checksums, every neighbor against the graph.

use super::{check_index, print_json};
use crate::{failure::Failure, interrupt, parse, progress, text};
use roxanne_builder::Observer;
use roxanne_core::ErrorClass;
use roxanne_engine::{
    collection::{Collection, CollectionOptions, is_collection},
    verify::verify_within,
};
use serde_json::json;
use std::{io::Write, path::PathBuf, time::Instant};

/// Check every byte of an index, or of a collection
#[derive(clap::Args)]
#[command(after_help = "Example:
  roxanne verify my.rx

Exit code 6 names the file and the offset of the first damage, 5 a graph that does not reach all of its nodes.")]
pub(crate) struct Args {
    /// The index directory
    #[arg(value_name = "IDX")]
    index: PathBuf,
    /// Most memory for an index: where its graph takes more, an edge to every node is looked for, not a way; and one code a page is computed again, not all [default: what it takes]
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    ram: Option<u64>,
    /// Progress on stderr: bars on a terminal, lines, or JSON events
    #[arg(long, value_enum, value_name = "auto|plain|json", default_value_t, hide_possible_values = true)]
    progress: progress::Style,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// A collection: its base, and that base and store agree.
fn of_collection(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let options = CollectionOptions { delta_bytes: u64::MAX, merges: false, ..CollectionOptions::default() };
    let collection = Collection::open(&args.index, &options)?;
    let progress = progress::Progress::new(args.progress);
    let mut begun = false;
    let report = collection.verify(&mut |done, total| {
        if !std::mem::replace(&mut begun, true) {
            progress.phase("verify", total, "pages");
        }
        progress.reached(done);
    })?;
    progress.end();
    let base = report.base.as_ref();
    let unreachable = base.map_or(0, |base| base.unreachable);
    if args.json {
        let of_base = base.map(|base| {
            json!({
                "pages": base.pages, "nodes": base.nodes, "edges": base.edges, "unreachable": base.unreachable, "free": base.free,
                "stale_edges": base.stale,
            })
        });
        print_json(out, &json!({"ok": unreachable == 0, "points": report.points, "base": of_base}))?;
    } else if unreachable == 0 {
        writeln!(out, "{}: whole; {} points", args.index.display(), text::count(report.points))?;
    }
    if unreachable > 0 {
        let text = format!("{}: {unreachable} nodes of the base cannot be reached; `merge --rebuild` makes another", args.index.display());
        return Err(Failure::new(ErrorClass::Gate, text));
    }
    Ok(())
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    interrupt::leaves_at_once();
    if is_collection(&args.index) {
        return of_collection(args, out);
    }
    check_index(&args.index)?;
    let start = Instant::now();
    let progress = progress::Progress::new(args.progress);
    let mut begun = false;
    let mut heard = |done: u64, total: u64| {
        if !begun {
            progress.phase("verify", total, "pages");
            begun = true;
        }
        progress.reached(done);
    };
    let report = match verify_within(&args.index, args.ram.unwrap_or(u64::MAX), &mut heard) {
        Ok(report) => report,
        Err(error) => {
            let failure = Failure::from(error);
            if args.json {
                print_json(out, &json!({"ok": false, "error": failure.line()}))?;
            }
            return Err(failure);
        }
    };
    progress.end();
    let (seconds, ok) = (start.elapsed().as_secs_f64(), report.unreachable == 0);
    if args.json {
        let value = json!({
            "ok": ok, "pages": report.pages, "nodes": report.nodes, "edges": report.edges,
            "unreachable": report.unreachable, "walked": report.walked, "free": report.free, "stale_edges": report.stale,
            "bytes": report.bytes, "seconds": seconds,
        });
        print_json(out, &value)?;
    } else if ok {
        let [pages, nodes, edges] = [report.pages, report.nodes, report.edges].map(text::count);
        let bytes = text::bytes(report.bytes);
        let took = text::seconds(seconds);
        let found = if report.walked { "all reachable" } else { "one to every node" };
        writeln!(out, "{}: whole; {bytes}, {pages} pages, {nodes} nodes, {edges} edges, {found}; {took}", args.index.display())?;
    }
    if !ok {
        let text = format!("{}: {} of {} nodes cannot be reached; build it again", args.index.display(), report.unreachable, report.nodes);
        return Err(Failure::new(ErrorClass::Gate, text));
    }
    Ok(())
}
