//! Without the feature `otlp` nothing is traced.

use tokio::runtime::Handle;
use tracing_subscriber::layer::Identity;

/// There are none.
pub(crate) enum Traces {}

impl Traces {
    pub(crate) fn begin(_: &str, _: &Handle) -> Result<Traces, String> {
        Err("this program was built without the feature otlp".to_string())
    }

    pub(crate) fn layer(&self) -> Identity {
        match *self {}
    }

    pub(crate) fn end(self) {
        match self {}
    }
}
