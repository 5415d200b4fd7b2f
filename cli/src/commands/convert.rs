//! `convert`: vectors from one file format into another.

use super::{print_json, refuse_existing};
use crate::{failure::Failure, input::Changes, interrupt, key_file, progress, text};
use roxanne_builder::Observer;
use roxanne_core::dataset::{self, DatasetError};
use serde_json::json;
use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::atomic::Ordering,
    time::Instant,
};

/// Write vectors in another format
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne convert base.fvecs base.fbin
  roxanne convert base.npy queries.npy --limit 1000
  roxanne convert synth:n=20000,dim=64 sample.f16bin
  roxanne convert base.u8bin new.u8bin --keys base.keys --changes tuesday.u8bin:tuesday.keys --deleted gone.txt --keys-to new.keys

f16 and bf16 round; u8 and i8 take whole numbers in range and refuse others by row.")]
pub(crate) struct Args {
    /// The vectors
    from: String,
    /// The file to write; its extension tells the format; one that exists is refused
    to: PathBuf,
    #[command(flatten)]
    changes: Changes,
    /// Write the keys of what was written, as text with one key a line
    #[arg(long, value_name = "FILE", requires = "keys")]
    keys_to: Option<PathBuf>,
    /// The first rows only
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Progress on stderr: bars on a terminal, lines, or JSON events
    #[arg(long, value_enum, value_name = "auto|plain|json", default_value_t, hide_possible_values = true)]
    progress: progress::Style,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// What the stack is unwound with when a stop was asked for.
struct Stopped;

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let stop = interrupt::stop_flag();
    let start = Instant::now();
    refuse_existing(&args.to)?;
    args.keys_to.as_deref().map_or(Ok(()), refuse_existing)?;
    let (from, keys) = args.changes.open(&args.from, args.limit)?;
    let progress = progress::Progress::new(args.progress);
    progress.phase("convert", from.n(), "rows");
    let mut heard = |done| {
        progress.reached(done);
        if stop.load(Ordering::Relaxed) {
            // The one way out of a callback; on it the half-written file is dropped, which removes it. No panic is reported.
            resume_unwind(Box::new(Stopped));
        }
    };
    match catch_unwind(AssertUnwindSafe(|| dataset::convert(&from, &args.to, &mut heard))) {
        // The one error that does not know its file.
        Ok(Err(DatasetError::NotFinite { row, at, value })) => {
            let (source, row) = from.place(row);
            return Err(Failure::from(DatasetError::NotFinite { row, at, value }).at(source));
        }
        Ok(outcome) => outcome?,
        Err(payload) if payload.is::<Stopped>() => return Err(interrupt::interrupted(args.to.display())),
        Err(payload) => resume_unwind(payload),
    }
    progress.end();
    // Last: where the keys are, the vectors are whole.
    if let Some((path, keys)) = args.keys_to.as_deref().zip(keys) {
        key_file::write(path, &keys)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let bytes = args.to.metadata().map_or(0, |m| m.len());
    if args.json {
        let value = json!({"path": args.to.display().to_string(), "n": from.n(), "dim": from.dim(), "bytes": bytes, "seconds": seconds});
        print_json(out, &value)?;
    } else {
        let (n, took) = (text::count(from.n()), text::seconds(seconds));
        writeln!(out, "{}: {n} x {}, {} in {took}", args.to.display(), from.dim(), text::bytes(bytes))?;
    }
    Ok(())
}
