//! Collections over HTTP, in Qdrant's REST dialect as far as `docs/HTTP.md` says, and under `/v1` what Qdrant has not: jobs, bases, promotions.
//!
//! [`serve`] is the door; `routes` is the table of what is answered, from which the description at `/openapi.json` is drawn.

mod access;
mod aliases;
mod body;
mod canary;
mod collections;
mod dashboard;
mod events;
mod files;
mod http;
mod jobs;
mod metrics;
mod openapi;
mod patience;
mod points;
mod reply;
mod route;
mod routes;
mod searches;
mod snapshots;
mod tls;
mod trace;

use access::Access;
pub use access::{KeyError, KeyFile, KeyRecord, Role};
use collections::Collections;
use jobs::Jobs;
use metrics::Metrics;
use roxanne_core::ErrorClass;
use roxanne_engine::collection::{Collection, CollectionOptions};
use snapshots::Snapshots;
use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};
use tls::Tls;
pub use tls::TlsFiles;
use tokio::sync::Semaphore;

/// Requests that run at once; those beyond are told to come again.
const MOST_AT_ONCE: usize = 128;
/// Between two looks at whether keys or certificates have changed.
const REFRESH: Duration = Duration::from_secs(2);
/// For jobs to end when the server does.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// Files whose vectors are put into a collection.
pub struct ImportFiles {
    /// Vectors.
    pub vectors: PathBuf,
    /// Their keys, one a line; the rows' numbers where there is none.
    pub keys: Option<PathBuf>,
    /// Their payloads, one a line.
    pub payload: Option<PathBuf>,
}

/// Puts the rows of files into a collection and gives how many there were. It is told `(done, total)` and ends where it says false.
pub type Import = dyn Fn(&Collection, &ImportFiles, &mut dyn FnMut(u64, u64) -> bool) -> Result<u64, String> + Send + Sync;

/// How to serve.
#[derive(Clone)]
pub struct ServerOptions {
    /// Where collections are; made where it is not there.
    pub data: PathBuf,
    /// Where to listen.
    pub bind: SocketAddr,
    /// A key that may do all, beside those of `keys.json` in the data directory; with neither, who reaches the address may do all.
    pub api_key: Option<String>,
    /// Listen beyond this machine without a key.
    pub insecure: bool,
    /// Speak TLS, and nothing else.
    pub tls: Option<TlsFiles>,
    /// Pages of other origins that may ask, such as `https://app.example.com`.
    pub cors_origins: Vec<String>,
    /// Searches that took so long are logged.
    pub slow_query: Option<Duration>,
    /// How often recall is measured; `None` for never.
    pub canary_every: Option<Duration>,
    /// The program whose commands build, verify and plan, as processes of their own: `roxanne` itself.
    pub program: Option<PathBuf>,
    /// What imports, where something does.
    pub import: Option<Arc<Import>>,
    /// How collections are opened.
    pub collection: CollectionOptions,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address that others reach, and no key.
    #[error(
        "{bind} can be reached from other machines and there is no key: make one (roxanne key create), set ROXANNE_API_KEY, bind 127.0.0.1, or say --insecure"
    )]
    Insecure {
        /// The address.
        bind: SocketAddr,
    },
    /// It is taken, or not this machine's.
    #[error("cannot listen at {bind}: {error}")]
    Bind {
        /// The address.
        bind: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// The directory of collections.
    #[error("{path}: {error}")]
    Data {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// The file of keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A certificate that cannot be used.
    #[error("TLS: {0}")]
    Tls(io::Error),
}

impl ServeError {
    /// How a door reports it.
    pub fn class(&self) -> ErrorClass {
        match self {
            ServeError::Insecure { .. } => ErrorClass::Usage,
            ServeError::Bind { error, .. } | ServeError::Data { error, .. } => ErrorClass::of_io(error),
            ServeError::Keys(_) | ServeError::Tls(_) => ErrorClass::BadInput,
        }
    }
}

/// What all requests share.
struct Server {
    /// The data directory, from the root on.
    path: PathBuf,
    /// The same as a text, which is nobody's business.
    data: String,
    collections: Collections,
    snapshots: Snapshots,
    jobs: Jobs,
    metrics: Metrics,
    access: Access,
    tls: Option<Tls>,
    slow_query: Option<Duration>,
    program: Option<PathBuf>,
    import: Option<Arc<Import>>,
    /// Of what runs at once.
    running: Arc<Semaphore>,
    /// Of kibibytes of bodies.
    bodies: Arc<Semaphore>,
    /// Of kibibytes of answers.
    answers: Arc<Semaphore>,
    /// Of who listens to events.
    listeners: Arc<Semaphore>,
    /// What the ids of this process's requests begin with, and how many there were.
    boot: String,
    requests: AtomicU64,
    since: Instant,
}

impl Server {
    fn program(&self) -> Result<&Path, String> {
        self.program.as_deref().ok_or_else(|| "this server runs no other programs".to_string())
    }
}

/// Serves until `stop` is ready, then lets what runs come to its end. `ready` hears of the address when all collections are open.
///
/// # Errors
/// An address, a directory, keys or a certificate that cannot be used.
pub async fn serve(options: ServerOptions, ready: impl FnOnce(SocketAddr), stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    let ServerOptions { data, bind, api_key, insecure, tls, cors_origins, slow_query, canary_every, program, import, collection } = options;
    let failed = |error| ServeError::Bind { bind, error };
    let listener = tokio::net::TcpListener::bind(bind).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // From the root on, so that it can be told from other words where it must not be said.
    let path = std::path::absolute(&data).map_err(|error| ServeError::Data { path: data, error })?;
    let is_local = bind.ip().is_loopback();
    let access = Access::open(&path, api_key.as_deref(), is_local, cors_origins)?;
    if !is_local && !access.is_locked() && !insecure {
        return Err(ServeError::Insecure { bind });
    }
    let server = Arc::new(Server {
        data: path.display().to_string(),
        collections: Collections::open(&path, collection)?,
        snapshots: Snapshots::new(&path),
        jobs: Jobs::open(&path)?,
        metrics: Metrics::of(routes::ROUTES.len()),
        access,
        tls: tls.map(Tls::open).transpose().map_err(ServeError::Tls)?,
        slow_query,
        program,
        import,
        running: Arc::new(Semaphore::new(MOST_AT_ONCE)),
        bodies: Arc::new(Semaphore::new(http::BODIES_KIB)),
        answers: Arc::new(Semaphore::new(http::ANSWERS_KIB)),
        listeners: Arc::new(Semaphore::new(events::MOST_LISTENERS)),
        boot: format!("{:08x}", RandomState::new().hash_one(0) as u32),
        requests: AtomicU64::default(),
        since: Instant::now(),
        path,
    });
    server.jobs.resume(&server);
    let mut watches = vec![tokio::spawn(refresh(Arc::clone(&server)))];
    watches.extend(canary_every.map(|every| tokio::spawn(canary::watch(Arc::clone(&server), every))));
    tracing::info!(%address, collections = server.collections.names().len(), tls = server.tls.is_some(), "serving");
    ready(address);
    let told = async {
        stop.await;
        tracing::info!("stopping");
        // Jobs end, or go on at the next start, while requests come to their end.
        server.jobs.stop();
    };
    http::run(&server, listener, told).await;
    watches.iter().for_each(tokio::task::JoinHandle::abort);
    let begin = Instant::now();
    while !server.jobs.are_idle() && begin.elapsed() < LAST_WORDS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Takes up keys and certificates that have changed.
async fn refresh(server: Arc<Server>) {
    loop {
        tokio::time::sleep(REFRESH).await;
        let server = Arc::clone(&server);
        let look = move || {
            server.access.refresh();
            server.tls.iter().for_each(Tls::refresh);
        };
        let _ = tokio::task::spawn_blocking(look).await;
    }
}
