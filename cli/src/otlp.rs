//! Traces of requests, sent to a collector of OpenTelemetry as it takes them over HTTP (OTLP 1.x, protobuf).

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use std::{
    env,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, runtime::Handle, time::timeout};
use tracing::Subscriber;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    registry::LookupSpan,
};

/// For the collector to take a batch, and at the end for the last of them.
const PATIENCE: Duration = Duration::from_secs(5);
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Between two times that the log says that traces are lost.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// Bytes of a collector's answer.
const ANSWER_BYTES: usize = 64 << 10;

/// Sends what is traced, from its making to [`Traces::end`].
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends to the collector at `endpoint`, `http://HOST:PORT`, on the threads of `runtime`. Which requests are traced `OTEL_TRACES_SAMPLER` may say; a caller
    /// that traces (`traceparent`) is followed.
    ///
    /// # Errors
    /// An endpoint that is none.
    pub(crate) fn begin(endpoint: &str, runtime: &Handle) -> Result<Traces, String> {
        let address = endpoint.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let address = address.filter(|address| !address.is_empty() && !address.contains('/'));
        let address = address.ok_or("a collector is named as http://HOST:PORT; one that speaks TLS needs another beside this server")?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Post { runtime: runtime.clone(), said: Mutex::default() })
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(PATIENCE)
            .with_endpoint(format!("http://{address}/v1/traces"))
            .build()
            .map_err(|error| error.to_string())?;
        global::set_text_map_propagator(TraceContextPropagator::new());
        // Unless OTEL_SERVICE_NAME says another.
        let resource = Resource::builder();
        let resource = if env::var_os("OTEL_SERVICE_NAME").is_some() { resource } else { resource.with_service_name("roxanne") }.build();
        Ok(Traces(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    /// What hears of spans, and of what is logged within them.
    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let of_requests = Targets::new().with_target("roxanne_server", LevelFilter::DEBUG);
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("roxanne")).with_filter(of_requests)
    }

    /// Sends what is left; the runtime must be there still.
    pub(crate) fn end(self) {
        // What does not arrive is lost, as a trace may be.
        let _ = self.0.shutdown_with_timeout(LAST_WORDS);
    }
}

/// A client that asks once a connection: a batch comes every few seconds.
#[derive(Debug)]
struct Post {
    runtime: Handle,
    /// When it was said last that traces are lost.
    said: Mutex<Option<Instant>>,
}

impl Post {
    fn say(&self, error: &HttpError) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() > SAID_AGAIN) {
            *said = Some(Instant::now());
            tracing::warn!(%error, "traces are lost: the collector does not take them");
        }
    }
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Whoever asks waits on a thread that knows nothing of sockets.
        let sent = self.runtime.spawn(async move { timeout(PATIENCE, send(request)).await? }).await;
        sent.map_err(HttpError::from).flatten().inspect_err(|error| self.say(error))
    }
}

async fn send(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut head, body) = request.into_parts();
    let host = head.uri.authority().ok_or("no host")?.clone();
    // An address of IPv6 stands in brackets, which are not of it.
    let stream = TcpStream::connect((host.host().trim_matches(['[', ']']), host.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    head.headers.insert(hyper::header::HOST, host.as_str().parse()?);
    head.uri = head.uri.path().parse()?;
    let (head, body) = sender.send_request(Request::from_parts(head, Full::new(body))).await?.into_parts();
    Ok(Response::from_parts(head, Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes()))
}
