//! What the engine counts and measures goes to the host's metrics.

use std::sync::Arc;
use std::time::Duration;

use mcp_sessions::ErrorKind;
use mcp_sessions::metrics::{Counter, Gauge, Recorder};

/// Takes what an engine counts and measures, under the names that the documentation lists
/// (`mcp_sessions_accepted_total`, …). Called on any thread; it must return at once, and not call the engine.
#[uniffi::export(with_foreign)]
pub trait MetricsSink: Send + Sync {
    /// A counter went up.
    fn count(&self, name: String, by: u64);

    /// A gauge stands here now; told at every renewal of the lease.
    fn gauge(&self, name: String, value: f64);

    /// An operation on the backend (`streams.open`, `info.get`, …) took that long; `error` is the code of
    /// how it failed, if it did.
    fn operation(&self, operation: String, took: Duration, error: Option<String>);
}

/// Hands everything over the border.
pub(crate) struct Forward(pub(crate) Arc<dyn MetricsSink>);

impl Recorder for Forward {
    fn count(&self, counter: Counter, by: u64) {
        self.0.count(counter.name().to_owned(), by);
    }

    fn gauge(&self, gauge: Gauge, value: f64) {
        self.0.gauge(gauge.name().to_owned(), value);
    }

    fn operation(&self, operation: &'static str, took: Duration, failed: Option<ErrorKind>) {
        self.0.operation(operation.to_owned(), took, failed.map(|kind| kind.code().to_owned()));
    }
}
