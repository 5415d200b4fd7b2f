//! What is traced of a request: a span of it, and in that one of every search. Nobody pays for them but who listens, see the feature `otlp`.

use hyper::{HeaderMap, http::request::Parts};
use tracing::{Span, field::Empty};

/// The span of a request, by the names of OpenTelemetry's conventions for HTTP (1.27).
pub(crate) fn of_request(head: &Parts, route: Option<&'static str>, is_secret: bool, request_id: &str) -> Span {
    let span = tracing::debug_span!(
        "request",
        otel.name = Empty,
        otel.kind = "server",
        // What nobody knows has no name of its own, or anybody could make names.
        http.request.method = if route.is_some() { head.method.as_str() } else { "_OTHER" },
        url.path = head.uri.path(),
        url.scheme = if is_secret { "https" } else { "http" },
        http.route = route,
        http.response.status_code = Empty,
        otel.status_code = Empty,
        request_id,
    );
    if !span.is_disabled() {
        span.record("otel.name", route.map_or("HTTP".to_string(), |route| format!("{} {route}", head.method)));
        follow(&span, &head.headers);
    }
    span
}

/// Goes on with the trace that the caller began (W3C Trace Context).
#[cfg(feature = "otlp")]
fn follow(span: &Span, headers: &HeaderMap) {
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    let context = opentelemetry::global::get_text_map_propagator(|known| known.extract(&opentelemetry_http::HeaderExtractor(headers)));
    // Where nobody sends traces there is no span to set it at.
    let _ = span.set_parent(context);
}

#[cfg(not(feature = "otlp"))]
fn follow(_: &Span, _: &HeaderMap) {}
