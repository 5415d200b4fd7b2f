//! The command `roxanne`. stdout is data, stderr is talk, and the exit code says how it went.
//!
//! Only this binary prints; the libraries below return values. A command is one file in `commands`: its arguments and its run.

mod commands;
mod failure;
mod input;
mod interrupt;
mod key_file;
mod latency;
#[cfg_attr(not(feature = "otlp"), path = "no_otlp.rs")]
mod otlp;
mod parse;
mod plot;
mod probe;
mod progress;
mod queries;
mod rates;
mod settings;
mod text;
mod trial;
mod usage;

// The compiler's own unwinder, found by build.rs, which says why.
#[cfg(own_unwinder)]
#[allow(unsafe_code)]
#[link(name = "gcc_eh", kind = "static", modifiers = "+whole-archive")]
unsafe extern "C" {}

use clap::{Parser, Subcommand};
use failure::Failure;
use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

const EXAMPLES: &str = "\
Examples:
  roxanne plan base.u8bin --ram 64G                        what a build would take
  roxanne build base.u8bin -o my.rx                        build an index
  roxanne truth base.u8bin query.u8bin -k 100 -o gt.bin    exact neighbors
  roxanne eval my.rx -q query.u8bin -g gt.bin --sweep list-size=16..256 --plot recall.svg
  roxanne search my.rx -q query.u8bin -k 10                query, rank, key, distance
  roxanne tune my.rx --target 0.95                         which effort gives which recall
  roxanne create docs --dim 384 --metric cos               a collection: insert, delete, get, search
  roxanne serve                                            collections over HTTP, as Qdrant's clients ask

Inputs are .fbin .f16bin .bf16bin .u8bin .i8bin .fvecs .bvecs .npy, or a generated mixture:
  synth:n=1000000,dim=128,type=u8,seed=1    and with part=query, queries of the same kind

Exit codes: 0 done, 2 called wrongly, 3 bad input, 4 does not fit the budget, 5 a gate said no,
6 corruption, 7 busy or no space, 8 device not available, 130 interrupted.";

/// An SSD vector-search index: built on this machine, served from flash, with its recall measured
#[derive(Parser)]
#[command(name = "roxanne", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Plan(commands::plan::Args),
    Build(commands::build::Args),
    Shard(commands::shard::Args),
    Truth(commands::truth::Args),
    Eval(commands::eval::Args),
    Search(commands::search::Args),
    Tune(commands::tune::Args),
    Info(commands::info::Args),
    Verify(commands::verify::Args),
    Repair(commands::repair::Args),
    Create(commands::collection::CreateArgs),
    Insert(commands::collection::InsertArgs),
    Delete(commands::collection::DeleteArgs),
    Get(commands::collection::GetArgs),
    Merge(commands::merge::MergeArgs),
    #[command(subcommand)]
    Snapshot(commands::snapshot::Args),
    Promote(commands::merge::PromoteArgs),
    Rollback(commands::merge::RollbackArgs),
    Serve(commands::serve::Args),
    #[command(subcommand)]
    Config(commands::serve::ConfigArgs),
    #[command(subcommand)]
    Key(commands::key::Args),
    Convert(commands::convert::Args),
    Import(commands::import::Args),
    Export(commands::export::Args),
    Doctor(commands::doctor::Args),
    BenchGpu(commands::bench_gpu::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = run(&cli.command, &mut out).and_then(|()| Ok(out.flush()?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // What was printed before it went wrong stays printed.
            let _ = out.flush();
            if failure.code() != 0 {
                progress::say(format_args!("error: {}", failure.line()));
            }
            ExitCode::from(failure.code())
        }
    }
}

fn run(command: &Command, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Plan(args) => commands::plan::run(args, out),
        Command::Build(args) => commands::build::run(args, out),
        Command::Shard(args) => commands::shard::run(args, out),
        Command::Truth(args) => commands::truth::run(args, out),
        Command::Eval(args) => commands::eval::run(args, out),
        Command::Search(args) => commands::search::run(args, out),
        Command::Tune(args) => commands::tune::run(args, out),
        Command::Info(args) => commands::info::run(args, out),
        Command::Verify(args) => commands::verify::run(args, out),
        Command::Repair(args) => commands::repair::run(args, out),
        Command::Create(args) => commands::collection::create(args, out),
        Command::Insert(args) => commands::collection::insert(args, out),
        Command::Delete(args) => commands::collection::delete(args, out),
        Command::Get(args) => commands::collection::get(args, out),
        Command::Merge(args) => commands::merge::merge(args, out),
        Command::Snapshot(args) => commands::snapshot::run(args, out),
        Command::Promote(args) => commands::merge::promote(args, out),
        Command::Rollback(args) => commands::merge::rollback(args, out),
        Command::Serve(args) => commands::serve::run(args, out),
        Command::Config(args) => commands::serve::config(args, out),
        Command::Key(args) => commands::key::run(args, out),
        Command::Convert(args) => commands::convert::run(args, out),
        Command::Import(args) => commands::import::run(args, out),
        Command::Export(args) => commands::export::run(args, out),
        Command::Doctor(args) => commands::doctor::run(args, out),
        Command::BenchGpu(args) => commands::bench_gpu::run(args, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn list_size_answers_to_the_names_that_users_know() {
        for name in ["--list-size", "--ef", "--complexity"] {
            assert!(Cli::try_parse_from(["roxanne", "search", "my.rx", "-q", "v=1", name, "32"]).is_ok(), "{name}");
        }
        assert!(Cli::try_parse_from(["roxanne", "search", "my.rx", "-q", "v=1", "-k", "0"]).is_err());
    }
}
