//! Collections over HTTP, in Qdrant's REST dialect as far as `docs/HTTP.md` says: what a client of Qdrant asks for most, on the same URLs.
//!
//! A request goes through: a bound on connections, time for its head and for every piece of its body, the key, the route, a bound on the body,
//! a bound on what runs at once. What runs is the engine, which blocks, on threads of its own.

mod aliases;
mod collections;
mod files;
mod http;
mod jobs;
mod metrics;
mod points;
mod reply;
mod routes;
mod snapshots;

use collections::Collections;
use jobs::Jobs;
use metrics::Metrics;
use roxanne_core::ErrorClass;
use roxanne_engine::collection::CollectionOptions;
use snapshots::Snapshots;
use std::{future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::sync::Semaphore;

/// How to serve.
#[derive(Clone)]
pub struct ServerOptions {
    /// Where collections are; made where it is not there.
    pub data: PathBuf,
    /// Where to listen.
    pub bind: SocketAddr,
    /// What a request must bring, as `api-key` or as a bearer's token; without one who reaches the address may do all.
    pub api_key: Option<String>,
    /// Listen beyond this machine without a key.
    pub insecure: bool,
    /// How collections are opened.
    pub collection: CollectionOptions,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address that others reach, and no key.
    #[error(
        "{bind} can be reached from other machines and there is no key: set one (--api-key, ROXANNE_API_KEY), bind 127.0.0.1, or say --insecure"
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
}

impl ServeError {
    /// How a door reports it.
    pub fn class(&self) -> ErrorClass {
        match self {
            ServeError::Insecure { .. } => ErrorClass::Usage,
            ServeError::Bind { error, .. } | ServeError::Data { error, .. } => ErrorClass::of_io(error),
        }
    }
}

/// What all requests share.
struct Server {
    /// The data directory, which is nobody's business.
    data: String,
    collections: Collections,
    snapshots: Snapshots,
    jobs: Arc<Jobs>,
    metrics: Metrics,
    api_key: Option<String>,
    /// Whether only this machine reaches it.
    is_local: bool,
    /// Of what runs at once.
    running: Arc<Semaphore>,
    /// Of kibibytes of bodies.
    bodies: Arc<Semaphore>,
}

/// Serves until `stop` is ready, then lets what runs come to its end. `ready` hears of the address when all collections are open.
///
/// # Errors
/// An address or a directory that cannot be used.
pub async fn serve(options: ServerOptions, ready: impl FnOnce(SocketAddr), stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    let ServerOptions { data, bind, api_key, insecure, collection } = options;
    let is_local = bind.ip().is_loopback();
    if !is_local && api_key.is_none() && !insecure {
        return Err(ServeError::Insecure { bind });
    }
    let failed = |error| ServeError::Bind { bind, error };
    let listener = tokio::net::TcpListener::bind(bind).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // From the root on, so that it can be told from other words where it must not be said.
    let data = &std::path::absolute(&data).map_err(|error| ServeError::Data { path: data, error })?;
    let collections = Collections::open(data, collection)?;
    let (snapshots, jobs) = (Snapshots::new(data), Arc::new(Jobs::new(data)));
    let running = Arc::new(Semaphore::new(routes::MOST_AT_ONCE));
    let bodies = Arc::new(Semaphore::new(http::BODIES_KIB));
    let server = Arc::new(Server {
        data: data.display().to_string(),
        collections,
        snapshots,
        jobs,
        metrics: Metrics::default(),
        api_key,
        is_local,
        running,
        bodies,
    });
    ready(address);
    http::run(&server, listener, stop).await;
    server.jobs.stop();
    Ok(())
}
