//! Connections: how many, how long they may take, and who may ask.
//!
//! A request goes through: a bound on connections, time for its head and for every piece of its body, the key, the route, the role, a bound on the body,
//! a bound on what runs at once. What runs is the engine, which blocks, on threads of its own.

use crate::{
    Server,
    access::{Caller, Role},
    dashboard, events, files,
    jobs::Jobs,
    patience::{HEAD, Patient},
    reply::{Refusal, envelope},
    route::{Call, Gives, Run, Scope, Takes},
    routes::{self, ROUTES},
    trace,
};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tracing::{Instrument, Span};

/// Connections at once.
const MOST_CONNECTIONS: usize = 4096;
/// For every piece of a body.
const PATIENCE: Duration = Duration::from_secs(10);
/// For all of a body.
const LONGEST_BODY: Duration = Duration::from_secs(120);
/// Bytes of a head, and of a body.
const HEAD_BYTES: usize = 32 << 10;
const BODY_BYTES: usize = 32 << 20;
/// Kibibytes of bodies that are read or worked on at once; those beyond are told to come again.
pub(crate) const BODIES_KIB: usize = 256 << 10;
/// Kibibytes of large answers that are on their way at once, and bytes of those that are not counted; those beyond are told to ask again.
pub(crate) const ANSWERS_KIB: usize = 512 << 10;
const SMALL_ANSWER: usize = 64 << 10;
/// Of bodies that are read on the thread of their connection, where they may be searches that are over at once.
const QUICK_BYTES: usize = 64 << 10;
/// For what runs when the server is told to stop.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// After an accept that failed, as where no more files may be open.
const BREATH: Duration = Duration::from_millis(50);
/// Characters of a request's id that somebody else gave.
const ID_LENGTH: usize = 64;
/// Of a request's `wait`.
const LONGEST_WAIT: usize = 60;

/// What goes back: bytes, or events as they come.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Accepts until `stop` is ready, then waits for what runs.
pub(crate) async fn run(server: &Arc<Server>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let (stopping, stopped) = watch::channel(());
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        // One more than may be is closed at once.
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
        let (server, mut stopped) = (Arc::clone(server), stopped.clone());
        tokio::spawn(async move {
            server.metrics.connections.fetch_add(1, Relaxed);
            let _ = stream.set_nodelay(true);
            match &server.tls {
                None => serve_one(&server, stream, &mut stopped).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(HEAD, tls.acceptor().accept(stream)).await {
                        serve_one(&server, stream, &mut stopped).await;
                    }
                }
            }
            server.metrics.connections.fetch_sub(1, Relaxed);
            drop(permit);
        });
    }
    drop(listener);
    drop(stopped);
    let _ = stopping.send(());
    // Every connection holds a receiver until it has ended.
    let _ = timeout(LAST_WORDS, stopping.closed()).await;
}

async fn serve_one(server: &Arc<Server>, stream: impl AsyncRead + AsyncWrite + Unpin, stopped: &mut watch::Receiver<()>) {
    let answering = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| {
        let (server, answering) = (Arc::clone(server), Arc::clone(&answering));
        async move {
            answering.store(true, Relaxed);
            let answer = answer(&server, request).await;
            answering.store(false, Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    let stream = TokioIo::new(Patient::new(stream, Arc::clone(&answering)));
    let connection = http1::Builder::new().max_buf_size(HEAD_BYTES).serve_connection(stream, service);
    tokio::pin!(connection);
    tokio::select! {
        // Who goes away, or sends what is no HTTP, is told by the end of the connection.
        _ = connection.as_mut() => {}
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Bytes as a body.
fn full(bytes: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, Infallible> {
    UnsyncBoxBody::new(Full::new(bytes.into()))
}

async fn answer(server: &Arc<Server>, request: Request<Incoming>) -> Answer {
    let start = Instant::now();
    let (head, body) = request.into_parts();
    let request_id = id_of(server, &head.headers);
    let origin = head.headers.get(header::ORIGIN).filter(|origin| origin.to_str().is_ok_and(|origin| server.access.is_allowed(origin)));
    let route = routes::find(&head.method, head.uri.path());
    let number = route.as_ref().ok().map(|found| found.number);
    let span = trace::of_request(&head, number.map(|number| ROUTES[number].path), server.tls.is_some(), &request_id);
    let outcome = if head.method == Method::OPTIONS && origin.is_some() {
        Ok(preflight())
    } else {
        routed(server, &head, body, route, start, &request_id).instrument(span.clone()).await
    };
    let is_refused = outcome.is_err();
    let mut response = outcome.unwrap_or_else(|mut refusal| {
        refusal.detail = files::without(&refusal.detail, &server.data);
        refused(refusal, start, &request_id)
    });
    if head.method == Method::HEAD {
        *response.body_mut() = full(Bytes::new());
    }
    let status = response.status();
    server.metrics.answered(number, status.as_u16());
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
    }
    if head.uri.path().starts_with("/dashboard") {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(dashboard::POLICY));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    if status == StatusCode::UNAUTHORIZED && head.uri.path().starts_with("/dashboard") {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"roxanne: a key as the password\""));
    }
    tracing::debug!(
        request_id, method = %head.method, path = head.uri.path(), status = status.as_u16(), micros = start.elapsed().as_micros() as u64, is_refused,
        "request"
    );
    response
}

fn refused(mut refusal: Refusal, start: Instant, request_id: &str) -> Answer {
    let (status, allow) = (refusal.status, refusal.allowed());
    let body = serde_json::to_vec(&refusal.body(start.elapsed().as_secs_f64(), request_id)).unwrap_or_default();
    let mut response = with_kind(status, routes::JSON, full(body));
    let headers = response.headers_mut();
    if let Some(allow) = allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
        headers.insert(header::ALLOW, allow);
    }
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn with_kind(status: StatusCode, kind: &'static str, body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What a browser asks for before a page of another origin, which is allowed, asks.
fn preflight() -> Answer {
    let mut response = with_kind(StatusCode::NO_CONTENT, routes::JSON, full(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("api-key, authorization, content-type, x-request-id"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// The id of a request: the one it brings, if that is one.
fn id_of(server: &Server, headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let is_id = |id: &&str| (1..=ID_LENGTH).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    given.filter(is_id).map_or_else(|| format!("{}-{}", server.boot, server.requests.fetch_add(1, Relaxed)), str::to_string)
}

async fn routed(
    server: &Arc<Server>,
    head: &Parts,
    body: Incoming,
    route: Result<routes::Found, Refusal>,
    start: Instant,
    request_id: &str,
) -> Result<Answer, Refusal> {
    // Health answers whoever asks, and says nothing else.
    let is_open = route.as_ref().is_ok_and(|found| ROUTES[found.number].role.is_none());
    let caller = if is_open { Caller::nobody() } else { server.access.caller(&head.headers)? };
    let routes::Found { number, names } = route?;
    let route = &ROUTES[number];
    if let Some(role) = route.role {
        may_ask(server, &caller, role, route.scope, &names)?;
    }
    // A name is never a path, nor a part of one.
    for (name, kind) in names.iter().zip(route.names()).filter(|(_, kind)| matches!(*kind, "collection" | "snapshot")) {
        if !files::is_name(name) {
            return Err(Refusal::bad("bad_name", files::NAMES).field(kind));
        }
    }
    route.parameters.iter().try_for_each(|parameter| parameter.check(head.uri.query()))?;
    check_kind(&head.headers, &route.takes)?;
    let (bytes, of_bodies) = match route.takes {
        Takes::Nothing => (Vec::new(), None),
        _ => whole(server, body).await.map(|(bytes, permit)| (bytes, Some(permit)))?,
    };
    let kind = match route.gives {
        Gives::Json(_) => routes::JSON,
        Gives::Bare(kind) => kind,
    };
    let query = head.uri.query();
    match &route.run {
        Run::Now(run) => {
            let call = Call { server, request_id, caller: &caller, names: &names, query, start, at_once: false };
            Ok(with_kind(route.status, kind, full(run(&call, &bytes)?)))
        }
        Run::Engine(_) | Run::Search(_) => {
            let busy = |_| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "overload", "too much runs at once; try again");
            let permit = Arc::clone(&server.running).try_acquire_owned().map_err(busy)?;
            if let Run::Search(run) = &route.run
                && bytes.len() <= QUICK_BYTES
            {
                let call = Call { server, request_id, caller: &caller, names: &names, query, start, at_once: true };
                // A panic is a failure of this request, as on another thread.
                let answer = catch_unwind(AssertUnwindSafe(|| run(&call, &bytes))).unwrap_or_else(|_| Err(Refusal::failed()));
                if !answer.as_ref().is_err_and(Refusal::is_not_at_hand) {
                    return Ok(with_kind(route.status, kind, full(answer?)));
                }
            }
            let (server, request_id, query) = (Arc::clone(server), request_id.to_string(), query.map(str::to_string));
            let (span, answers) = (Span::current(), Arc::clone(&server.answers));
            let work = tokio::task::spawn_blocking(move || {
                let _in = span.enter();
                let _permits = (permit, of_bodies);
                let query = query.as_deref();
                let call = Call { server: &server, request_id: &request_id, caller: &caller, names: &names, query, start, at_once: false };
                let (Run::Engine(run) | Run::Search(run)) = &ROUTES[number].run else { return Err(Refusal::failed()) };
                run(&call, &bytes)
            });
            let answer = work.await.unwrap_or_else(|_| Err(Refusal::failed()))?;
            Ok(with_kind(route.status, kind, full(on_its_way(&answers, answer)?)))
        }
        Run::Wait => {
            let call = Call { server, request_id, caller: &caller, names: &names, query, start, at_once: false };
            let wait = Duration::from_secs(call.number("wait")?.unwrap_or(0).min(LONGEST_WAIT) as u64);
            let job = Jobs::wait(&server.jobs, server, call.name(0), &caller, wait).await?;
            Ok(with_kind(route.status, kind, full(envelope(job, start.elapsed().as_secs_f64())?)))
        }
        Run::Events => {
            let name = names.first().map_or("", String::as_str);
            Ok(with_kind(route.status, kind, events::of_job(server, name, caller)?))
        }
    }
}

/// An answer, with the right to hold it until the other end has taken it: who reads slowly shall not fill the memory.
fn on_its_way(answers: &Arc<Semaphore>, answer: Vec<u8>) -> Result<Bytes, Refusal> {
    if answer.len() <= SMALL_ANSWER {
        return Ok(answer.into());
    }
    let kib = answer.len().div_ceil(1024).min(ANSWERS_KIB) as u32;
    let busy = |_| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "overload", "too many large answers are on their way; try again");
    let permit = Arc::clone(answers).try_acquire_many_owned(kib).map_err(busy)?;
    Ok(Bytes::from_owner(Held { bytes: answer, _permit: permit }))
}

/// See [`on_its_way`].
struct Held {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Refuses what the caller's role or its collections do not allow.
fn may_ask(server: &Server, caller: &Caller, role: Role, scope: Scope, names: &[String]) -> Result<(), Refusal> {
    caller.may(role)?;
    match scope {
        Scope::Seen => Ok(()),
        Scope::All => caller.sees_all(),
        Scope::One => {
            let name = names.first().map_or("", String::as_str);
            let by_own_name = || server.collections.own_name(name).is_ok_and(|own| caller.sees(&own));
            if caller.sees(name) || by_own_name() { Ok(()) } else { Err(caller.hidden()) }
        }
    }
}

/// Refuses a body of another kind before any of it is read.
fn check_kind(headers: &HeaderMap, takes: &Takes) -> Result<(), Refusal> {
    let unsupported = |detail: String| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", detail);
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(unsupported("bodies are taken as they are, without a content-encoding".to_string()));
    }
    let wanted = match takes {
        Takes::Nothing => return Ok(()),
        // None is as good as an empty one, whatever a client calls it.
        Takes::Json(_, true) if headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0") => return Ok(()),
        Takes::Json(..) => routes::JSON,
        Takes::Rows => routes::ROWS,
    };
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let given = given.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if given == wanted { Ok(()) } else { Err(unsupported(format!("content-type: {given}; {wanted} is expected"))) }
}

/// All of a body, and the right to hold it: asked for as it comes, so that a body that is promised and does not come is in nobody's way.
async fn whole(server: &Server, body: Incoming) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refusal> {
    let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("a body of more than {BODY_BYTES} bytes"));
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_large());
    }
    let busy = |_| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "overload", "too many bodies at once; try again");
    let mut permit = Arc::clone(&server.bodies).try_acquire_many_owned(1).map_err(busy)?;
    let late = || Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not come in time");
    let (mut body, mut bytes) = (Limited::new(body, BODY_BYTES), Vec::new());
    let all = async {
        while let Some(frame) = timeout(PATIENCE, body.frame()).await.map_err(|_| late())? {
            let frame = frame.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() { too_large() } else { Refusal::bad("body", "the body broke off") }
            })?;
            bytes.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
            let more = (bytes.capacity() >> 10).saturating_sub(permit.num_permits());
            if more > 0 {
                permit.merge(Arc::clone(&server.bodies).try_acquire_many_owned(more as u32).map_err(busy)?);
            }
        }
        Ok(())
    };
    timeout(LONGEST_BODY, all).await.unwrap_or_else(|_| Err(late()))?;
    Ok((bytes, permit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_answers_count_until_they_are_taken() {
        let answers = Arc::new(Semaphore::new(200));
        let small = on_its_way(&answers, vec![1; SMALL_ANSWER]).unwrap();
        assert_eq!((small.len(), answers.available_permits()), (SMALL_ANSWER, 200));
        let large = on_its_way(&answers, vec![2; 150 << 10]).unwrap();
        let part = large.slice(7..9);
        drop(large);
        assert_eq!(answers.available_permits(), 50);
        assert_eq!(on_its_way(&answers, vec![3; 100 << 10]).unwrap_err().status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(part, [2, 2][..]);
        drop(part);
        assert_eq!(answers.available_permits(), 200);
    }
}
