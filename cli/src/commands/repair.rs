//! `repair`: a new collection of all that can be read of a damaged one.

use super::{
    collection::{BATCH, Opening, key_json, patiently},
    print_json,
};
use crate::{failure::Failure, interrupt, progress::say, text};
use roxanne_core::ErrorClass;
use roxanne_engine::collection::{Change, Collection, CollectionError, Salvage};
use serde_json::{Value, json};
use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    sync::atomic::Ordering::Relaxed,
};

/// Make a new collection of what can be read of a damaged one
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne repair docs -o docs-again           says what is damaged, and which keys are lost
  roxanne repair docs -o docs-again --json

The damaged collection stays as it is. Points are lost where a page of the base cannot be read, and only those; a snapshot may still hold them
(`snapshot restore`). A damaged store of keys and payloads is not repaired: restore a snapshot. Exit code 6 when something was lost.")]
pub(crate) struct Args {
    /// The damaged collection
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The collection to make
    #[arg(long, short, value_name = "NEW")]
    output: PathBuf,
    #[command(flatten)]
    opening: Opening,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let salvage = Salvage::open(&args.directory)?;
    // Under another name until it is whole.
    let name = args.output.file_name().ok_or_else(|| Failure::usage("--output names no directory"))?;
    let partial = args.output.with_file_name(format!(".{}.repairing", name.to_string_lossy()));
    if args.output.symlink_metadata().is_ok() {
        return Err(CollectionError::Exists { path: args.output.clone() }.into());
    }
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::io(&partial, "remove what was left of a repair")(error));
        }
        _ => {}
    }
    let collection = Collection::create(&partial, salvage.config(), &args.opening.options())?;
    let stop = interrupt::stop_flag();
    let mut batch = Vec::with_capacity(BATCH);
    let write = |batch: &mut Vec<Change>| -> Result<(), CollectionError> {
        if stop.load(Relaxed) {
            return Err(CollectionError::Io { path: partial.clone(), error: io::ErrorKind::Interrupted.into() });
        }
        patiently(&collection, std::mem::take(batch), &mut || !stop.load(Relaxed)).map(|_| ())
    };
    let outcome = salvage.each(|point| {
        batch.push(Change::Upsert(point));
        if batch.len() < BATCH { Ok(()) } else { write(&mut batch) }
    });
    let report = match outcome.and_then(|report| write(&mut batch).map(|()| report)) {
        Ok(report) => report,
        Err(error) => {
            drop(collection);
            let _ = fs::remove_dir_all(&partial);
            let failure = Failure::from(error);
            return Err(if stop.load(Relaxed) { Failure::new(ErrorClass::Interrupted, "interrupted; nothing was left") } else { failure });
        }
    };
    drop(collection);
    fs::rename(&partial, &args.output).map_err(Failure::io(&args.output, "name the new collection"))?;
    let lost = report.lost.len() as u64 + report.lost_unnamed;
    if args.json {
        let keys: Vec<Value> = report.lost.iter().map(key_json).collect();
        let value = json!({"points": report.points, "damage": report.damage, "lost": keys, "lost_unnamed": report.lost_unnamed});
        print_json(out, &value)?;
    } else {
        report.damage.iter().try_for_each(|damage| writeln!(out, "damaged\t{damage}"))?;
        report.lost.iter().try_for_each(|key| writeln!(out, "lost\t{}", super::search::escape(&key.to_string())))?;
        say(format_args!("{} points are in {}", text::count(report.points), args.output.display()));
        if report.lost_unnamed > 0 {
            say(format_args!("{} points are lost whose keys cannot be read either", text::count(report.lost_unnamed)));
        }
    }
    if lost > 0 {
        let text = format!("{}: {} points are lost", args.directory.display(), text::count(lost));
        return Err(Failure::new(ErrorClass::Corrupt, text));
    }
    Ok(())
}
