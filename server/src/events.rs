//! A job's changes as they come: server-sent events.

use crate::{Server, access::Caller, jobs::State, reply::Refusal};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{
    StatusCode,
    body::{Body, Bytes, Frame},
};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::timeout};

/// Who listens at once.
pub(crate) const MOST_LISTENERS: usize = 64;
/// Between two events of one job.
const PAUSE: Duration = Duration::from_millis(250);
/// After which silence a line says that the connection is there.
const BEAT: Duration = Duration::from_secs(15);

/// A body that comes piece by piece.
struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// The events of a job, until it has ended or nobody listens: `data` is the job as `GET /v1/jobs/ID` shows it.
pub(crate) fn of_job(server: &Arc<Server>, id: &str, caller: Caller) -> Result<UnsyncBoxBody<Bytes, Infallible>, Refusal> {
    server.jobs.get(server, id, &caller)?;
    let busy = |_| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "overload", "too many listen at once; try again");
    let place = Arc::clone(&server.listeners).try_acquire_owned().map_err(busy)?;
    let (pieces, body) = mpsc::channel(1);
    let (server, id) = (Arc::clone(server), id.to_string());
    tokio::spawn(async move {
        let _place = place;
        let mut changes = server.jobs.changes();
        let (mut last, mut since) = (String::new(), Instant::now());
        loop {
            let Ok(job) = server.jobs.get(&server, &id, &caller) else { return };
            let Ok(text) = serde_json::to_string(&job) else { return };
            // Other jobs' changes wake this one too; what it took so far changes always.
            let said = serde_json::to_string(&(&job.state, &job.progress)).unwrap_or_default();
            if said != last {
                (last, since) = (said, Instant::now());
                if pieces.send(format!("event: job\ndata: {text}\n\n").into()).await.is_err() {
                    return;
                }
            }
            if job.state != State::Running || server.jobs.is_ending() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
            tokio::select! {
                () = pieces.closed() => return,
                _ = timeout(BEAT, changes.changed()) => {}
            }
            // Other jobs may say much while this one says nothing.
            if since.elapsed() >= BEAT {
                since = Instant::now();
                if pieces.send(Bytes::from_static(b": still there\n\n")).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(UnsyncBoxBody::new(Pieces(body)))
}
