//! What goes back: Qdrant's envelope, and errors in it.

use hyper::StatusCode;
use roxanne_core::ErrorClass;
use roxanne_engine::collection::CollectionError;
use serde_json::{Value, json};

/// Why a request was not done.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Refusal {
        Refusal { status, detail: detail.into() }
    }

    pub(crate) fn bad(detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, format!("Not found: {}", detail.into()))
    }

    /// Qdrant has it, this has not.
    pub(crate) fn not_there(what: &str) -> Refusal {
        Refusal::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not there; docs/HTTP.md lists what is"))
    }

    pub(crate) fn body(&self, seconds: f64) -> Value {
        json!({"status": {"error": self.detail}, "time": seconds})
    }
}

/// What the engine says; places on this machine's disk are nobody's business.
impl From<CollectionError> for Refusal {
    fn from(error: CollectionError) -> Refusal {
        let status = match (&error, error.class()) {
            (CollectionError::DeltaFull { .. }, _) => StatusCode::TOO_MANY_REQUESTS,
            (CollectionError::KeyExists { .. } | CollectionError::Exists { .. }, _) => StatusCode::CONFLICT,
            (CollectionError::NoPrevious { .. } | CollectionError::Rejected { .. }, _) => StatusCode::CONFLICT,
            (CollectionError::Snapshot { .. }, _) => StatusCode::UNPROCESSABLE_ENTITY,
            (_, ErrorClass::Usage | ErrorClass::BadInput) => StatusCode::BAD_REQUEST,
            (_, ErrorClass::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            (_, ErrorClass::Budget) => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let detail = match &error {
            CollectionError::DiskFull { free, reserve, .. } => format!("{free} bytes of the disk are free, {reserve} stay so"),
            _ if status == StatusCode::INTERNAL_SERVER_ERROR => {
                eprintln!("error: {error}");
                "the collection failed; the server's log says how".to_string()
            }
            _ => error.to_string(),
        };
        Refusal { status, detail }
    }
}

/// A body for a result.
pub(crate) fn result(value: Value, seconds: f64) -> Value {
    json!({"result": value, "status": "ok", "time": seconds})
}
