//! The engine for Kotlin and Swift.
//!
//! Thin by design: types and errors. What is asynchronous in the core is a `suspend` function in
//! Kotlin and `async throws` in Swift; nothing here blocks the caller's thread. Comments of public
//! items become KDoc and DocC.

uniffi::setup_scaffolding!("mcp_sessions");

mod cancel;
mod engine;
mod error;
mod events;
mod info;
mod log;
mod metrics;
mod registry;
mod runtime;
mod streams;
mod subscriptions;

pub use cancel::Cancellation;
pub use engine::{Engine, Health, Stats};
pub use error::SessionsError;
pub use events::{EventLog, EventTail, LoggedEvent, Replay};
pub use info::{InfoManager, InfoPatch, LogLevel, SessionInfo};
pub use log::{LogSink, Severity, set_log_sink};
pub use metrics::MetricsSink;
pub use registry::{
    Closing, Closings, RegistryStats, RequestGuard, SessionFilter, SessionPage, SessionRecord,
    SessionRegistry, SessionState, ShutdownReport,
};
pub use streams::{
    Conflict, EndReason, Event, EventKind, EventStream, Listening, OpenOptions, Receipt, StreamListener,
    StreamManager,
};
pub use subscriptions::{RequestId, Subscription, SubscriptionEnd, SubscriptionFilter, SubscriptionManager};
