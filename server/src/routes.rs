//! Which URL asks for what.

use crate::{
    Server,
    collections::Served,
    points::{self, Form},
    reply::{Refusal, result},
};
use hyper::{Method, StatusCode, Uri};
use roxanne_core::{element::ElementType, metric::Metric};
use roxanne_engine::collection::{CollectionConfig, KeyKind};
use serde_json::{Value, json};
use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::OwnedSemaphorePermit;

pub(crate) const JSON: &str = "application/json";
const TEXT: &str = "text/plain; version=0.0.4";

/// The version of Qdrant whose dialect is spoken: its clients warn of a server that is much older or newer than they are.
const DIALECT: &str = "1.20.0";

/// Requests that run at once; those beyond are told to come again.
pub(crate) const MOST_AT_ONCE: usize = 128;

/// What goes back.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// The answer to a request whose body, where one is wanted, `body` reads.
pub(crate) async fn answer<F>(
    server: &Arc<Server>,
    method: &Method,
    uri: &Uri,
    start: Instant,
    body: impl FnOnce() -> F,
) -> Result<Reply, Refusal>
where
    F: Future<Output = Result<(Vec<u8>, OwnedSemaphorePermit), Refusal>>,
{
    let segments: Vec<&str> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let text = |text: String| Ok(Reply { status: StatusCode::OK, kind: TEXT, bytes: text.into_bytes() });
    if matches!(*method, Method::GET | Method::HEAD) {
        match segments[..] {
            ["healthz" | "livez" | "readyz"] => return text("healthz check passed".to_string()),
            ["metrics"] => return text(server.metrics.text(&server.collections.stats())),
            [] => {
                let about = json!({"title": "roxanne", "version": DIALECT, "roxanne_version": env!("CARGO_PKG_VERSION")});
                return Ok(Reply { status: StatusCode::OK, kind: JSON, bytes: about.to_string().into_bytes() });
            }
            _ => {}
        }
    }
    let (bytes, of_bodies) = match *method {
        Method::GET | Method::HEAD => (Vec::new(), None),
        _ => body().await.map(|(bytes, permit)| (bytes, Some(permit)))?,
    };
    let busy = |_| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too much runs at once; try again");
    let permit = Arc::clone(&server.running).try_acquire_owned().map_err(busy)?;
    let (server, method, query) = (Arc::clone(server), method.clone(), uri.query().map(str::to_string));
    let segments =
        segments.into_iter().map(decoded).collect::<Option<Vec<String>>>().ok_or_else(|| Refusal::bad("a path that is not UTF-8"))?;
    // The engine blocks.
    let work = tokio::task::spawn_blocking(move || {
        let _permits = (permit, of_bodies);
        let body = match &bytes[..] {
            [] => Value::Null,
            bytes => serde_json::from_slice(bytes).map_err(|error| Refusal::bad(format!("Format error in JSON body: {error}")))?,
        };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (status, value) = match segments[..] {
            ["v1", ref rest @ ..] => own(&server, &method, rest, query.as_deref(), &body)?,
            _ => (StatusCode::OK, route(&server, &method, &segments, &body)?),
        };
        Ok(Reply { status, kind: JSON, bytes: result(value, start.elapsed().as_secs_f64()).to_string().into_bytes() })
    });
    work.await.unwrap_or_else(|_| Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "it failed; the server's log says how")))
}

/// A segment of a path, with what stands behind % signs in its place.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).filter(|_| *first == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

fn route(server: &Server, method: &Method, segments: &[&str], body: &Value) -> Result<Value, Refusal> {
    let all = &server.collections;
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    match (method, segments) {
        ("GET", ["collections"]) => {
            let names: Vec<Value> = all.names().into_iter().map(|name| json!({"name": name})).collect();
            Ok(json!({"collections": names}))
        }
        ("GET", ["aliases"]) => Ok(all.aliases.shown(None)),
        ("GET", ["collections", name, "aliases"]) => Ok(all.aliases.shown(Some(name))),
        ("POST", ["collections", "aliases"]) => all.aliases.change(body, &|name| all.is_there(name)).map(|()| json!(true)),
        ("GET", ["cluster"]) => Ok(json!({"status": "disabled"})),
        ("GET", ["collections", name]) => Ok(info(&*all.get(name)?)),
        ("GET", ["collections", name, "exists"]) => Ok(json!({"exists": all.find(name).is_some()})),
        ("PUT", ["collections", name]) => all.create(name, &config(body)?).map(|()| json!(true)),
        ("DELETE", ["collections", name]) => {
            server.jobs.none_of(name)?;
            all.remove(name).map(|removed| json!(removed))
        }
        // All scalars of payloads are indexed as they are.
        ("PUT", ["collections", name, "index"]) | ("DELETE", ["collections", name, "index", _]) => {
            Ok(points::done(all.get(name)?.collection.stats().sequence))
        }
        (_, ["collections", name, "points", rest @ ..]) => on_points(server, &*all.get(name)?, method, rest, body),
        ("GET", ["collections", name, "snapshots"]) => server.snapshots.list(&all.own_name(name)?),
        ("POST", ["collections", name, "snapshots"]) => server.snapshots.create(&all.own_name(name)?, &*all.get(name)?),
        ("PUT", ["collections", name, "snapshots", "recover"]) => {
            server.jobs.none_of(name)?;
            server.snapshots.recover(all, name, body)
        }
        ("DELETE", ["collections", name, "snapshots", snapshot]) => {
            server.snapshots.remove(&all.own_name(name).unwrap_or(name.to_string()), snapshot)
        }
        (_, ["collections", _, "snapshots", ..] | ["snapshots", ..]) => {
            Err(Refusal::not_there("snapshots as files, or of all collections"))
        }
        (_, ["collections", _, ..] | ["cluster", ..] | ["telemetry" | "locks" | "issues", ..]) => {
            Err(Refusal::not_there(&format!("{method} /{}", segments.join("/"))))
        }
        _ => Err(Refusal::not_found(format!("{method} /{}", segments.join("/")))),
    }
}

/// What Qdrant has not: bases of collections, and jobs.
fn own(server: &Server, method: &Method, segments: &[&str], query: Option<&str>, body: &Value) -> Result<(StatusCode, Value), Refusal> {
    let (all, jobs) = (&server.collections, &server.jobs);
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let begun = |job: Result<Value, Refusal>| job.map(|job| (StatusCode::ACCEPTED, job));
    let done = |value: Result<Value, Refusal>| value.map(|value| (StatusCode::OK, value));
    match (method, segments) {
        ("GET", ["collections", name]) => done(base_of(&*all.get(name)?)),
        ("POST", ["collections", name, "promote"]) => begun(jobs.promote(&all.own_name(name)?, all.get(name)?, body)),
        ("POST", ["collections", name, "rollback"]) => begun(jobs.rollback(&all.own_name(name)?, all.get(name)?)),
        ("POST", ["collections", name, "rebuild"]) => begun(jobs.rebuild(&all.own_name(name)?, all.get(name)?)),
        ("DELETE", ["collections", name, "previous"]) => {
            all.get(name)?.collection.forget_previous()?;
            done(Ok(json!(true)))
        }
        ("GET", ["jobs"]) => done(Ok(jobs.shown())),
        ("GET", ["jobs", id]) => {
            let wait = query.and_then(|query| query.split('&').find_map(|part| part.strip_prefix("wait=")));
            let seconds = wait.map_or(Ok(0), str::parse).map_err(|_| Refusal::bad("wait: a number of seconds is expected"))?;
            done(jobs.get(id, Duration::from_secs(seconds)))
        }
        ("DELETE", ["jobs", id]) => done(jobs.cancel(id)),
        _ => Err(Refusal::not_found(format!("{method} /v1/{}", segments.join("/")))),
    }
}

/// The base of a collection, and the one before.
fn base_of(served: &Served) -> Result<Value, Refusal> {
    let (stats, previous) = (served.collection.stats(), served.collection.previous()?);
    Ok(json!({
        "points": stats.points, "sequence": stats.sequence, "base_points": stats.base_points,
        "in_memory": stats.delta_points - stats.delta_dead, "previous": previous.map(|sequence| json!({"sequence": sequence})),
    }))
}

fn on_points(server: &Server, served: &Served, method: &str, rest: &[&str], body: &Value) -> Result<Value, Refusal> {
    let search = |body: &Value, form: Form| points::search(served, body, form, &server.metrics);
    let each = |form: Form| {
        let searches = body.get("searches").and_then(Value::as_array).ok_or_else(|| Refusal::bad("searches: a list is expected"))?;
        if searches.len() > points::MOST_SEARCHES {
            return Err(Refusal::bad(format!("searches: {}; at most {}", searches.len(), points::MOST_SEARCHES)));
        }
        searches.iter().map(|body| search(body, form)).collect::<Result<Vec<_>, _>>().map(Value::from)
    };
    match (method, rest) {
        ("PUT", []) => points::upsert(served, body),
        ("POST", []) => points::retrieve(served, body),
        ("GET", [id]) => points::get(served, id),
        ("POST", ["delete"]) => points::delete(served, body),
        ("POST", ["search"]) => search(body, Form::Search),
        ("POST", ["search", "batch"]) => each(Form::Search),
        ("POST", ["query"]) => search(body, Form::Query),
        ("POST", ["query", "batch"]) => each(Form::Query),
        ("POST", ["scroll"]) => points::scroll(served, body),
        ("POST", ["count"]) => points::count(served, body),
        ("POST", ["payload"]) => points::change_payload(served, body, &points::Payload::Set),
        ("PUT", ["payload"]) => points::change_payload(served, body, &points::Payload::Overwrite),
        ("POST", ["payload", "delete"]) => points::change_payload(served, body, &points::Payload::Delete),
        ("POST", ["payload", "clear"]) => points::change_payload(served, body, &points::Payload::Clear),
        ("POST", ["batch"]) => points::batch(served, body),
        _ => Err(Refusal::not_there(&format!("{method} points/{}", rest.join("/")))),
    }
}

/// What a collection is made of.
fn config(body: &Value) -> Result<CollectionConfig, Refusal> {
    let vectors = body.get("vectors").filter(|vectors| !vectors.is_null()).ok_or_else(|| Refusal::bad("vectors is missing"))?;
    if body.get("sparse_vectors").is_some_and(|sparse| sparse.as_object().is_some_and(|sparse| !sparse.is_empty())) {
        return Err(Refusal::not_there("sparse vectors"));
    }
    let Some(size) = vectors.get("size") else { return Err(Refusal::not_there("several vectors with names under one point")) };
    let dim =
        size.as_u64().and_then(|size| usize::try_from(size).ok()).ok_or_else(|| Refusal::bad("vectors.size: a number is expected"))?;
    let metric = match vectors.get("distance").and_then(Value::as_str) {
        Some("Cosine") => Metric::Cosine,
        Some("Dot") => Metric::InnerProduct,
        Some("Euclid") => Metric::L2,
        Some("Manhattan") => Metric::Manhattan,
        _ => return Err(Refusal::bad("vectors.distance: Cosine, Dot, Euclid or Manhattan is expected")),
    };
    let element = match vectors.get("datatype").and_then(Value::as_str) {
        None | Some("float32") => ElementType::F32,
        Some("float16") => ElementType::F16,
        Some("uint8") => ElementType::U8,
        Some(_) => return Err(Refusal::bad("vectors.datatype: float32, float16 or uint8 is expected")),
    };
    if vectors.get("multivector_config").is_some_and(|config| !config.is_null()) {
        return Err(Refusal::not_there("several vectors under one point"));
    }
    // Ids are numbers or UUIDs, both as texts.
    Ok(CollectionConfig { dim, metric, element, keys: KeyKind::Strings })
}

/// What a collection is and where it stands, in the fields that clients of Qdrant look for.
fn info(served: &Served) -> Value {
    let (config, stats) = (served.collection.config(), served.collection.stats());
    let distance = match config.metric {
        Metric::Cosine => "Cosine",
        Metric::InnerProduct => "Dot",
        Metric::L2 => "Euclid",
        Metric::Manhattan => "Manhattan",
        Metric::Hamming => "Hamming",
    };
    let trouble = served.collection.trouble();
    json!({
        "status": if trouble.is_some() { "yellow" } else { "green" },
        "optimizer_status": trouble.map_or(json!("ok"), |error| json!({"error": error})),
        "points_count": stats.points,
        "indexed_vectors_count": stats.points.saturating_sub(stats.delta_points.saturating_sub(stats.delta_linked)),
        "segments_count": 1 + u64::from(stats.base_points > 0),
        "config": {
            "params": {"vectors": {"size": config.dim, "distance": distance}, "shard_number": 1, "replication_factor": 1, "on_disk_payload": true},
            "hnsw_config": {"m": 0, "ef_construct": 0, "full_scan_threshold": 0},
            "optimizer_config": {"deleted_threshold": 0.0, "vacuum_min_vector_number": 0, "default_segment_number": 0, "flush_interval_sec": 0},
        },
        "payload_schema": {},
        "roxanne": {
            "sequence": stats.sequence, "base_points": stats.base_points, "base_dead": stats.base_dead - stats.base_free,
            "base_free": stats.base_free, "delta_points": stats.delta_points - stats.delta_dead, "delta_bytes": stats.delta_bytes,
            "delta_allowed_bytes": stats.delta_allowed,
        },
    })
}
