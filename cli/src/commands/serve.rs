//! `serve`: the collections of a directory over HTTP.

use crate::{failure::Failure, interrupt, parse};
use roxanne::rebuild;
use roxanne_core::{Budget, ErrorClass};
use roxanne_engine::{OpenOptions, collection::CollectionOptions};
use roxanne_server::{ServeError, ServerOptions, serve};
use std::{io::Write, net::SocketAddr, path::PathBuf, sync::atomic::Ordering, time::Duration};

/// For what runs when all connections have ended.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Between two looks at whether it shall stop.
const LOOK: Duration = Duration::from_millis(100);

/// Serve collections over HTTP, as Qdrant's clients ask for them
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne serve                                      127.0.0.1:6333, over ./data
  roxanne serve --data /srv/vectors --ram 8G
  ROXANNE_API_KEY=secret roxanne serve --bind 0.0.0.0:6333

What it answers is in docs/HTTP.md; /metrics is for Prometheus. Without a key it answers programs on this machine alone. It ends on SIGTERM and
Ctrl-C when what runs has come to its end; what it acknowledged is on the disk at any time.")]
pub(crate) struct Args {
    /// The directory of collections; made where it is not there
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6333")]
    bind: SocketAddr,
    /// What a request must bring, as the header api-key or as a bearer's token; better in the variable ROXANNE_API_KEY, which others do not see
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Listen beyond this machine without a key
    #[arg(long)]
    insecure: bool,
    /// Most memory to serve the base of a collection, such as 8G: what codes leave of it keeps pages; refused where codes alone take more. A quarter
    /// of the machine's unless said
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    ram: Option<u64>,
    /// Most memory of a collection's vectors that are in no base yet
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse::size)]
    delta_ram: u64,
    /// Most memory of a build of a base
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse::size)]
    build_ram: u64,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let quarter = || {
        let system = rustix::system::sysinfo();
        system.totalram as u64 * u64::from(system.mem_unit) / 4
    };
    let base = OpenOptions { budget: Budget::ram(args.ram.unwrap_or_else(quarter)), ..OpenOptions::default() };
    let collection = CollectionOptions { base, delta_bytes: args.delta_ram, ..CollectionOptions::default() };
    let api_key = args.api_key.clone().or_else(|| std::env::var("ROXANNE_API_KEY").ok()).filter(|key| !key.is_empty());
    let options = ServerOptions {
        data: args.data.clone(),
        bind: args.bind,
        api_key,
        insecure: args.insecure,
        collection: rebuild::by_itself(collection, Budget::ram(args.build_ram)),
    };
    let failed = |error| Failure::new(ErrorClass::Device, format!("cannot start threads: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    let stop = interrupt::stop_flag();
    let mut told = Ok(());
    let served: Result<(), ServeError> =
        runtime.block_on(serve(options, |address| told = writeln!(out, "serving at http://{address}").and_then(|()| out.flush()), async {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
        }));
    // What still runs then has answered nobody.
    runtime.shutdown_timeout(LAST_WORDS);
    served.map_err(|error| Failure::new(error.class(), error))?;
    Ok(told?)
}
