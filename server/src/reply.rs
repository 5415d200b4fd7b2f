//! What goes back: Qdrant's envelope, and errors in it with the fields of RFC 9457.

use crate::route::late;
use hyper::StatusCode;
use roxanne_core::{ErrorClass, build_codes::RowError};
use roxanne_engine::{
    SearchError,
    collection::{CollectionError, VectorError},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

/// What is not over soon.
const NOT_AT_HAND: &str = "not_at_hand";
/// Bytes of what an error says.
const LONGEST: usize = 1000;

/// Why a request was not done.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// For programs; it stays the same.
    code: &'static str,
    pub(crate) detail: String,
    more: Box<More>,
}

/// What only some refusals say.
#[derive(Debug, Default)]
struct More {
    /// Where in the body, or which parameter.
    field: Option<String>,
    got: Option<Value>,
    limit: Option<Value>,
    /// What methods there are, where it was another.
    allow: Option<String>,
}

/// An error as it goes back: what Qdrant's clients read, and RFC 9457.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ErrorBody {
    status: ErrorStatus,
    /// Seconds.
    time: f64,
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    /// What is wrong, for people.
    detail: String,
    /// What is wrong, for programs.
    code: &'static str,
    /// Where in the body, or which parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    got: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Value>,
    request_id: String,
}

#[derive(Serialize, JsonSchema)]
struct ErrorStatus {
    error: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Refusal {
        Refusal { status, code, detail: detail.into(), more: Box::default() }
    }

    pub(crate) fn bad(code: &'static str, detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// A number that is out of its range.
    pub(crate) fn out_of_range(field: &str, got: usize, least: usize, most: usize) -> Refusal {
        let detail = format!("{field}: {got}; it is {least} to {most}");
        Refusal::bad("limit_out_of_range", detail).at(field, got.into(), if got < least { least } else { most }.into())
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "not_found", format!("Not found: {}", detail.into()))
    }

    /// Never told: another thread asks again.
    pub(crate) fn not_at_hand() -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, NOT_AT_HAND, "not at hand")
    }

    pub(crate) fn is_not_at_hand(&self) -> bool {
        self.code == NOT_AT_HAND
    }

    /// Another server answers, or this one in a moment.
    pub(crate) fn draining(detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "draining", detail)
    }

    pub(crate) fn conflict(code: &'static str, detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::CONFLICT, code, detail)
    }

    /// Qdrant has it, this has not.
    pub(crate) fn not_there(what: &str) -> Refusal {
        Refusal::new(StatusCode::NOT_IMPLEMENTED, "not_there", format!("{what} is not there; docs/HTTP.md lists what is"))
    }

    /// It is not the fault of who asks; the log has said what it was.
    pub(crate) fn failed() -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "it failed; the server's log says how")
    }

    pub(crate) fn field(mut self, field: impl Into<String>) -> Refusal {
        self.more.field = Some(field.into());
        self
    }

    pub(crate) fn allowing(mut self, methods: String) -> Refusal {
        self.more.allow = Some(methods);
        self
    }

    pub(crate) fn allowed(&mut self) -> Option<String> {
        self.more.allow.take()
    }

    /// The same of a part of a body.
    pub(crate) fn within(mut self, part: &str) -> Refusal {
        let separator = if self.more.field.is_some() { "." } else { ": " };
        self.detail = format!("{part}{separator}{}", self.detail);
        self.more.field = Some(self.more.field.take().map_or_else(|| part.to_string(), |field| format!("{part}.{field}")));
        self
    }

    fn at(mut self, field: impl Into<String>, got: Value, limit: Value) -> Refusal {
        (self.more.got, self.more.limit) = (Some(got), Some(limit));
        self.field(field)
    }

    /// What goes back; nothing of what was asked comes back at length.
    pub(crate) fn body(mut self, seconds: f64, request_id: &str) -> ErrorBody {
        cut(&mut self.detail);
        self.more.field.iter_mut().for_each(cut);
        ErrorBody {
            status: ErrorStatus { error: self.detail.clone() },
            time: seconds,
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            detail: self.detail,
            code: self.code,
            field: self.more.field,
            got: self.more.got,
            limit: self.more.limit,
            request_id: request_id.to_string(),
        }
    }
}

/// Ends a text that is too long.
fn cut(text: &mut String) {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
}

/// What the engine says; places on this machine's disk are nobody's business.
impl From<CollectionError> for Refusal {
    fn from(error: CollectionError) -> Refusal {
        use CollectionError as E;
        let detail = error.to_string();
        let bad = |code| Refusal::bad(code, detail.clone());
        match &error {
            E::Vector { at, error } => of_vector(error, format!("points[{at}].vector"), detail),
            E::Query(error) => of_vector(error, "query".to_string(), detail),
            E::BadKey { .. } | E::KeyKind { .. } => bad("bad_key"),
            E::DuplicateKey { .. } => bad("duplicate_key"),
            E::Dimension { dim } => bad("dimension").at("vectors.size", (*dim).into(), roxanne_core::id::MAX_DIM.into()),
            E::Metric(_) => bad("metric").field("vectors.distance"),
            E::Payload { at, .. } => bad("payload").field(format!("points[{at}].payload")),
            E::Filter { .. } => bad("filter").field("filter"),
            E::Search(SearchError::Param { name, got, low, high }) => Refusal::out_of_range(name, *got, *low, *high),
            E::Search(SearchError::Late) => late(),
            E::Search(SearchError::Drained { .. }) => Refusal::draining(detail),
            E::KeyExists { .. } => Refusal::conflict("key_exists", detail),
            E::Exists { .. } => Refusal::conflict("exists", detail),
            E::NoPrevious { .. } => Refusal::conflict("no_previous", detail),
            E::Rejected { .. } => Refusal::conflict("gen_rejected", detail),
            E::Snapshot { .. } => Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "corrupt_snapshot", detail),
            E::DeltaFull { bytes, allowed } => {
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, "overload", detail).at("points", (*bytes).into(), (*allowed).into())
            }
            E::DiskFull { free, reserve, .. } => {
                let detail = format!("{free} bytes of the disk are free, {reserve} stay so");
                Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "no_space", detail)
            }
            E::Poisoned { .. } => {
                let detail = "writing stopped after an error of the disk; searches go on; the server's log says more";
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "writer_poisoned", detail)
            }
            _ => match error.class() {
                ErrorClass::Usage | ErrorClass::BadInput => bad("bad_input"),
                ErrorClass::Busy => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail),
                ErrorClass::Budget => Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "no_space", detail),
                ErrorClass::Corrupt => {
                    tracing::error!(%error, "corruption");
                    let detail = "what is stored is damaged; the server's log says where";
                    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "corruption", detail)
                }
                _ => {
                    tracing::error!(%error, "a request failed");
                    Refusal::failed()
                }
            },
        }
    }
}

fn of_vector(error: &VectorError, field: String, detail: String) -> Refusal {
    match error {
        VectorError::Dimension { got, limit } => Refusal::bad("dimension_mismatch", detail).at(field, (*got).into(), (*limit).into()),
        VectorError::Row(RowError::NotFinite(_)) => Refusal::bad("non_finite", detail).field(field),
        VectorError::Row(RowError::Zero) => Refusal::bad("zero_vector", detail).field(field),
        VectorError::Row(RowError::Magnitude) => Refusal::bad("magnitude", detail).field(field),
        VectorError::NotRepresentable(_) => Refusal::bad("not_representable", detail).field(field),
    }
}

/// A result in Qdrant's envelope.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Envelope<T> {
    pub(crate) result: T,
    /// `ok`.
    pub(crate) status: &'static str,
    /// Seconds.
    pub(crate) time: f64,
}

/// The bytes of an answer.
pub(crate) fn envelope<T: Serialize>(result: T, seconds: f64) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(&Envelope { result, status: "ok", time: seconds }).map_err(|error| {
        tracing::error!(%error, "an answer that is no JSON");
        Refusal::failed()
    })
}

/// What a GET of the root says, for clients of Qdrant that look for a version.
pub(crate) fn about(dialect: &str) -> Value {
    json!({"title": "roxanne", "version": dialect, "roxanne_version": env!("CARGO_PKG_VERSION")})
}
