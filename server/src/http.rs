//! Connections: how many, how long they may take, and who may ask.

use crate::{Server, files, reply::Refusal, routes};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

/// Connections at once.
const MOST_CONNECTIONS: usize = 4096;
/// For the head of a request, and for every piece of its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// For all of a body.
const LONGEST_BODY: Duration = Duration::from_secs(120);
/// Bytes of a head, and of a body.
const HEAD_BYTES: usize = 32 << 10;
const BODY_BYTES: usize = 32 << 20;
/// Kibibytes of bodies that are read or worked on at once; those beyond wait.
pub(crate) const BODIES_KIB: usize = 256 << 10;
/// For what runs when the server is told to stop.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// After an accept that failed, as where no more files may be open.
const BREATH: Duration = Duration::from_millis(50);

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
            serve_one(&server, stream, &mut stopped).await;
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

async fn serve_one(server: &Arc<Server>, stream: TcpStream, stopped: &mut watch::Receiver<()>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let server = Arc::clone(server);
        async move { Ok::<_, Infallible>(answer(&server, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEAD_BYTES);
    let connection = http.serve_connection(TokioIo::new(stream), service);
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

async fn answer(server: &Arc<Server>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let start = Instant::now();
    let (head, body) = request.into_parts();
    let outcome = match may_ask(server, &head.headers, head.uri.path()) {
        Ok(()) => routes::answer(server, &head.method, &head.uri, start, || whole(server, body)).await,
        Err(refusal) => Err(refusal),
    };
    let (status, kind, bytes) = match outcome {
        Ok(reply) => (reply.status, reply.kind, reply.bytes),
        Err(Refusal { status, detail }) => {
            let refusal = Refusal { status, detail: files::without(&detail, &server.data) };
            (status, routes::JSON, refusal.body(start.elapsed().as_secs_f64()).to_string().into_bytes())
        }
    };
    server.metrics.answered(status.as_u16());
    let mut response = Response::new(Full::new(if head.method == Method::HEAD { Bytes::new() } else { bytes.into() }));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    response
}

/// Whether who asks may. Without a key only this machine reaches the address, but a page in its browser may be somebody else's: such a request
/// names another host, or where it comes from.
fn may_ask(server: &Server, headers: &HeaderMap, path: &str) -> Result<(), Refusal> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(key) = &server.api_key {
        let given = headers.get("api-key").and_then(|value| value.to_str().ok());
        let given = given.or_else(|| text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")));
        let is_open = matches!(path, "/healthz" | "/livez" | "/readyz");
        return if is_open || given.is_some_and(|given| is_same(given.as_bytes(), key.as_bytes())) {
            Ok(())
        } else {
            Err(Refusal::new(StatusCode::UNAUTHORIZED, "a key is needed: the header api-key, or a bearer's token"))
        };
    }
    let host = text(header::HOST).unwrap_or("localhost");
    let host = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(host, _)| host);
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]" | "::1");
    if server.is_local && (!is_here || headers.contains_key(header::ORIGIN)) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "without a key only programs on this machine may ask, and no page of a browser"));
    }
    Ok(())
}

/// Compared in a time that depends on lengths alone.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// All of a body, and the right to hold it.
async fn whole(server: &Server, body: Incoming) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refusal> {
    let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body of more than {BODY_BYTES} bytes"));
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_large());
    }
    // As long as it says, or as long as one may be.
    let bytes = body.size_hint().exact().unwrap_or(BODY_BYTES as u64);
    let permit = Arc::clone(&server.bodies).acquire_many_owned((bytes >> 10) as u32 + 1).await;
    let permit = permit.map_err(|_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server stops"))?;
    let late = || Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
    let (mut body, mut bytes) = (Limited::new(body, BODY_BYTES), Vec::new());
    let all = async {
        while let Some(frame) = timeout(PATIENCE, body.frame()).await.map_err(|_| late())? {
            let frame = frame.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() { too_large() } else { Refusal::bad("the body broke off") }
            })?;
            bytes.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        }
        Ok(())
    };
    timeout(LONGEST_BODY, all).await.unwrap_or_else(|_| Err(late()))?;
    Ok((bytes, permit))
}
