//! `serve`: the collections of a directory over HTTP; `config check`: whether it can be told so.

use super::collection::{Source, fill};
use crate::{
    failure::Failure,
    interrupt,
    otlp::Traces,
    settings::{LogFormat, LogLevel, Settings},
};
use roxanne::rebuild;
use roxanne_core::{Budget, ErrorClass};
use roxanne_engine::{
    OpenOptions,
    collection::{Collection, CollectionOptions},
};
use roxanne_server::{ImportFiles, ServeError, ServerOptions, TlsFiles, serve};
use sd_notify::NotifyState;
use std::{
    fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::runtime::Runtime;
use tracing_subscriber::{Layer, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// For what runs when all connections have ended.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Between two looks at whether it shall stop.
const LOOK: Duration = Duration::from_millis(100);
/// What is taken where nobody says.
const PORT: u16 = 6333;
const DELTA_RAM: u64 = 256 << 20;
const BUILD_RAM: u64 = 2 << 30;
const SLOW_QUERY: Duration = Duration::from_millis(500);
const CANARY_EVERY: Duration = Duration::from_secs(60);

/// Serve collections over HTTP, as Qdrant's clients ask for them
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne serve                                      127.0.0.1:6333, over ./data
  roxanne serve --data /srv/vectors --ram 8G
  roxanne serve --config /etc/roxanne.toml           a flag, then a variable (ROXANNE_RAM), then the file
  roxanne key create app --role write --data /srv/vectors
  roxanne serve --data /srv/vectors --bind 0.0.0.0:6333 --tls-cert cert.pem --tls-key key.pem

What it answers is in docs/HTTP.md and at /openapi.json; /dashboard is for people, /metrics for Prometheus. Without a key it answers programs on this
machine alone. It ends on SIGTERM and Ctrl-C when what runs has come to its end; what it acknowledged is on the disk at any time.")]
pub(crate) struct Args {
    /// A file of settings, which are called as the flags below are
    #[arg(long, env = "ROXANNE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// A key that may do all, as the header api-key or as a bearer's token; better in the variable, which others do not see, or made by `roxanne key`
    #[arg(long, env = "ROXANNE_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

/// Look at settings without serving
#[derive(clap::Subcommand)]
pub(crate) enum ConfigArgs {
    /// Read a file of settings, and name its bad line
    Check {
        /// The file
        file: PathBuf,
    },
}

pub(crate) fn config(args: &ConfigArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let ConfigArgs::Check { file } = args;
    Settings::read(file)?;
    Ok(writeln!(out, "{}: well", file.display())?)
}

/// The memory that this process may have: the machine's, or less where a control group says so.
fn memory() -> u64 {
    let system = rustix::system::sysinfo();
    let machine = system.totalram as u64 * u64::from(system.mem_unit);
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_string();
        fs::read_to_string(PathBuf::from("/sys/fs/cgroup").join(path).join("memory.max")).ok()?.trim().parse().ok()
    });
    group.map_or(machine, |group: u64| machine.min(group))
}

/// Keeps memory flat: large pieces, such as bodies, go back to the system when they are let go. Left to itself the C library keeps more of them the larger
/// they come.
fn give_large_pieces_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGE: i32 = 1 << 20;
        // SAFETY: it sets a number of the allocator, which takes its own lock; 1 MiB is in the range that it allows (mallopt(3), M_MMAP_THRESHOLD).
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        }
    }
}

/// Begins to log, and to send traces where they are wanted.
fn log(settings: &Settings, runtime: &Runtime) -> Result<Option<Traces>, Failure> {
    let (format, level) = (settings.log_format.unwrap_or(LogFormat::Text), settings.log_level.unwrap_or(LogLevel::Info));
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.with_filter(level).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(level).boxed(),
    };
    let traces = settings
        .otlp_endpoint
        .as_deref()
        .filter(|endpoint| !endpoint.is_empty())
        .map(|endpoint| Traces::begin(endpoint, runtime.handle()))
        .transpose();
    let traces = traces.map_err(|error| Failure::usage(format!("otlp-endpoint: {error}")))?;
    // Whoever logs already goes on doing so.
    let _ = tracing_subscriber::registry().with(lines).with(traces.as_ref().map(Traces::layer)).try_init();
    Ok(traces)
}

/// Puts the rows of files into a collection that is served.
fn import(collection: &Collection, files: &ImportFiles, told: &mut dyn FnMut(u64, u64) -> bool) -> Result<u64, String> {
    let source = Source {
        input: &files.vectors.to_string_lossy(),
        keys: files.keys.as_deref(),
        payload: files.payload.as_deref(),
        limit: None,
        insert_only: false,
    };
    let filled = fill(collection, &source, told).map_err(|failure| failure.line())?;
    if filled.is_whole { Ok(filled.rows) } else { Err(format!("stopped after {} rows, which are kept", filled.rows)) }
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let file = args.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let settings = args.settings.clone().or(file);
    settings.check()?;
    give_large_pieces_back();
    let failed = |error| Failure::new(ErrorClass::Device, format!("cannot start threads: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    let traces = log(&settings, &runtime)?;
    let base = OpenOptions { budget: Budget::ram(settings.ram.unwrap_or_else(|| memory() / 4)), ..OpenOptions::default() };
    let collection = CollectionOptions {
        base,
        delta_bytes: settings.delta_ram.unwrap_or(DELTA_RAM),
        mode: settings.promote_mode.unwrap_or_default(),
        ..CollectionOptions::default()
    };
    let at_all = |time: &Duration| !time.is_zero();
    let options = ServerOptions {
        data: settings.data.unwrap_or_else(|| PathBuf::from("data")),
        bind: settings.bind.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))),
        api_key: args.api_key.clone().filter(|key| !key.is_empty()),
        insecure: settings.insecure.unwrap_or(false),
        tls: settings.tls_cert.zip(settings.tls_key).map(|(cert, key)| TlsFiles { cert, key }),
        cors_origins: settings.cors_origins.unwrap_or_default(),
        slow_query: Some(settings.slow_query.unwrap_or(SLOW_QUERY)).filter(at_all),
        canary_every: Some(settings.canary_every.unwrap_or(CANARY_EVERY)).filter(at_all),
        program: std::env::current_exe().ok(),
        import: Some(Arc::new(import)),
        collection: rebuild::by_itself(collection, Budget::ram(settings.build_ram.unwrap_or(BUILD_RAM))),
    };
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let stop = interrupt::stop_flag();
    let mut told = Ok(());
    // Where systemd does not listen, nobody is told.
    let notify = |state| _ = sd_notify::notify(false, &[state]);
    let ready = |address| {
        notify(NotifyState::Ready);
        told = writeln!(out, "serving at {scheme}://{address}").and_then(|()| out.flush());
    };
    let served: Result<(), ServeError> = runtime.block_on(serve(options, ready, async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
        notify(NotifyState::Stopping);
    }));
    traces.into_iter().for_each(Traces::end);
    // What still runs then has answered nobody.
    runtime.shutdown_timeout(LAST_WORDS);
    served.map_err(|error| Failure::new(error.class(), error))?;
    Ok(told?)
}
