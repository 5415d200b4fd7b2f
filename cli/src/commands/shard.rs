//! `shard`: a build in shards, step by step, by as many machines as see the directory.

use super::build;
use crate::failure::Failure;
use std::io::Write;

/// Build in shards, step by step, on as many machines as share the directory
#[derive(clap::Args)]
#[command(after_help = "Example, for 8 machines that share /data; every step takes the arguments of `roxanne build`:
  roxanne shard plan   base.u8bin -o /data/my.rx --shards 8              once
  roxanne shard build  base.u8bin -o /data/my.rx --shards 8 --index 3    for each of 0 to 7, in any order and at once
  roxanne shard commit base.u8bin -o /data/my.rx --shards 8              once, when all are built

Each step may be killed and done again; one that is done does nothing. The index is the one that `roxanne build` makes, byte by byte, and
appears by one rename. Until then all lies in /data/.my.rx.partial, each file under the hash of what it holds; a damaged one is refused with
exit code 6.")]
pub(crate) struct Args {
    #[command(subcommand)]
    step: Step,
}

#[derive(clap::Subcommand)]
enum Step {
    /// Learn what all shards need, and route every vector to its shards
    Plan(build::Args),
    /// Build one shard
    Build {
        /// Which, from 0
        #[arg(long, short, value_name = "I")]
        index: usize,
        #[command(flatten)]
        build: build::Args,
    },
    /// Join the shards and publish the index
    Commit(build::Args),
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let (build, step): (_, Box<build::StepFn>) = match &args.step {
        Step::Plan(build) => (build, Box::new(|builder, path| builder.shard_plan(path))),
        Step::Build { index, build } => (build, Box::new(|builder, path| builder.shard_build(path, *index))),
        Step::Commit(build) => (build, Box::new(|builder, path| builder.shard_commit(path))),
    };
    build.refuse_rehearsal()?;
    build::run_step(build, out, &*step)
}
