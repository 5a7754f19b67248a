//! What an engine counts, and how a program's metrics system hears of it.
//!
//! Set a [`Recorder`] with [`Options::with_recorder`](crate::Options::with_recorder). With the feature
//! `metrics`, [`MetricsFacade`] hands everything to the `metrics` crate, for which there are exporters to
//! Prometheus and OpenTelemetry. [`Engine::stats`](crate::Engine::stats) has the same counts without one.
//!
//! | name | kind | what |
//! |---|---|---|
//! | `mcp_sessions_accepted_total` | counter | events accepted, counted in sessions; a broadcast counts once |
//! | `mcp_sessions_dropped_total` | counter | events dropped because their session is unknown (G4) |
//! | `mcp_sessions_duplicates_total` | counter | events that an idempotency key showed to be accepted before (G5) |
//! | `mcp_sessions_opened_total` | counter | streams opened |
//! | `mcp_sessions_gaps_total` | counter | streams opened with a gap (G3) |
//! | `mcp_sessions_replaced_total` | counter | streams ended because a newer one took over (G6) |
//! | `mcp_sessions_overflows_total` | counter | streams ended because their reader was too slow (G10) |
//! | `mcp_sessions_fenced_total` | counter | streams ended because this node's lease ran out |
//! | `mcp_sessions_repairs_total` | counter | times a missed signal was read from a log |
//! | `mcp_sessions_subscription_overflows_total` | counter | subscriptions ended because their reader was too slow |
//! | `mcp_sessions_streams` | gauge | streams this node holds |
//! | `mcp_sessions_subscriptions` | gauge | subscriptions (modern era) this node serves |
//! | `mcp_sessions_lease_left_seconds` | gauge | how long this node's lease is good for |
//! | `mcp_sessions_operation_seconds` | histogram | how long the backend took, by `operation` and `outcome` (`ok`, or an error's code) |
//!
//! The embedded backend takes events at once: its `streams.send` is not measured.
//! Gauges are told whenever the lease is renewed (every two seconds), and at the shutdown.
//! An `operation` is named like the call it serves (`streams.open`, `info.get`, `registry.sweep`, …);
//! `streams.send` is one batch of events, however many senders it answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::ErrorKind;
use crate::runtime::Runtime;

/// Hears of everything an engine counts and measures.
///
/// # Behavior
///
/// Called wherever something happens, on any thread, maybe with a lock held: it returns at once, does not
/// panic and does not call the engine.
pub trait Recorder: Send + Sync + 'static {
    /// A counter went up.
    fn count(&self, counter: Counter, by: u64);

    /// A gauge stands here now.
    fn gauge(&self, gauge: Gauge, value: f64);

    /// An operation on the backend came to its end; `failed` says how, if it did.
    fn operation(&self, operation: &'static str, took: Duration, failed: Option<ErrorKind>);
}

/// The shared [`Recorder`] of an engine's options; the same only as itself.
#[derive(Clone)]
pub struct SharedRecorder(Arc<dyn Recorder>);

impl SharedRecorder {
    /// Shares a recorder.
    pub fn new(recorder: impl Recorder) -> Self {
        SharedRecorder(Arc::new(recorder))
    }
}

impl fmt::Debug for SharedRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedRecorder(…)")
    }
}

impl PartialEq for SharedRecorder {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedRecorder {}

impl std::ops::Deref for SharedRecorder {
    type Target = dyn Recorder;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

macro_rules! names {
    ($(#[$doc:meta])* $kind:ident: $($(#[$one:meta])* $name:ident = $text:literal,)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $kind {
            $($(#[$one])* $name,)*
        }

        impl $kind {
            /// All there are.
            pub const ALL: &'static [$kind] = &[$($kind::$name),*];

            /// Its name, as the list in the [module](crate::metrics) has it.
            pub fn name(self) -> &'static str {
                match self {
                    $($kind::$name => $text,)*
                }
            }
        }
    };
}

names! {
    /// What is counted.
    Counter:
    /// Events accepted, counted in sessions; a broadcast counts once.
    Accepted = "mcp_sessions_accepted_total",
    /// Events dropped because their session is unknown (G4).
    Dropped = "mcp_sessions_dropped_total",
    /// Events that an idempotency key showed to be accepted before (G5).
    Duplicates = "mcp_sessions_duplicates_total",
    /// Streams opened.
    Opened = "mcp_sessions_opened_total",
    /// Streams opened with a gap (G3).
    Gaps = "mcp_sessions_gaps_total",
    /// Streams ended because a newer one took over (G6).
    Replaced = "mcp_sessions_replaced_total",
    /// Streams ended because their reader was too slow (G10).
    Overflows = "mcp_sessions_overflows_total",
    /// Streams ended because this node's lease ran out.
    Fenced = "mcp_sessions_fenced_total",
    /// Times a missed signal was read from a log.
    Repairs = "mcp_sessions_repairs_total",
    /// Subscriptions ended because their reader was too slow.
    SubscriptionOverflows = "mcp_sessions_subscription_overflows_total",
}

names! {
    /// What stands somewhere.
    Gauge:
    /// Streams this node holds.
    Streams = "mcp_sessions_streams",
    /// Subscriptions (modern era) this node serves.
    Subscriptions = "mcp_sessions_subscriptions",
    /// Seconds this node's lease is good for.
    LeaseLeft = "mcp_sessions_lease_left_seconds",
}

/// The histogram of the backend's operations.
pub const OPERATION_SECONDS: &str = "mcp_sessions_operation_seconds";

/// Measures one operation, if anybody wants to know.
pub(crate) struct Stopwatch<'a> {
    recorder: Option<&'a SharedRecorder>,
    runtime: &'a Runtime,
    began_us: u64,
}

impl<'a> Stopwatch<'a> {
    pub(crate) fn start(recorder: Option<&'a SharedRecorder>, runtime: &'a Runtime) -> Self {
        let began_us = recorder.map_or(0, |_| runtime.now_us());
        Stopwatch { recorder, runtime, began_us }
    }

    pub(crate) fn stop(self, operation: &'static str, failed: Option<ErrorKind>) {
        let Some(recorder) = self.recorder else { return };
        let took = self.runtime.now_us().saturating_sub(self.began_us);
        recorder.operation(operation, Duration::from_micros(took), failed);
    }
}

/// Hands everything to the [`metrics`](https://docs.rs/metrics) crate, under the names of this module.
#[cfg(feature = "metrics")]
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct MetricsFacade;

#[cfg(feature = "metrics")]
impl Recorder for MetricsFacade {
    fn count(&self, counter: Counter, by: u64) {
        metrics::counter!(counter.name()).increment(by);
    }

    fn gauge(&self, gauge: Gauge, value: f64) {
        metrics::gauge!(gauge.name()).set(value);
    }

    fn operation(&self, operation: &'static str, took: Duration, failed: Option<ErrorKind>) {
        let outcome = failed.map_or("ok", ErrorKind::code);
        metrics::histogram!(OPERATION_SECONDS, "operation" => operation, "outcome" => outcome).record(took);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The list at the top of this module, as users read it.
    fn documented() -> Vec<&'static str> {
        let rows = include_str!("metrics.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        rows.filter_map(|row| row.split('`').next()).collect()
    }

    #[test]
    fn the_list_in_the_docs_is_complete() {
        let counters = Counter::ALL.iter().map(|counter| counter.name());
        let gauges = Gauge::ALL.iter().map(|gauge| gauge.name());
        let all: Vec<_> = counters.chain(gauges).chain([OPERATION_SECONDS]).collect();
        assert_eq!(documented(), all);
    }
}
