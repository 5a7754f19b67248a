//! One session engine for every MCP server.
//!
//! MCP servers speak to clients over HTTP with long-lived streams. This crate owns the hard part of
//! running one on more than one process: who holds which stream, how a message reaches it, what a
//! client missed while it was away, what the client said at `initialize`, and when a session dies.
//!
//! Start with [`Engine`]: [`Engine::memory`] for one process, [`Engine::connect`] for a shared
//! backend. It hands out the managers: [`StreamManager`], [`InfoManager`], [`SubscriptionManager`],
//! [`SessionRegistry`], and the [`EventLog`] of each session.
//!
//! ```sh
//! cargo add mcp-sessions --features redis
//! ```
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `native` (default) | the embedded backend on tokio: threads, a clock, sockets; off for wasm32 |
//! | `redis` | `redis://`, `rediss://`, `redis+unix://`, `redis+sentinel://`, `redis+cluster://` |
//! | `postgres` | `postgresql://`, `postgres://` |
//! | `cloudflare` | `cloudflare://`, a Worker's Durable Objects through its gateway |
//! | `sync-layer` | what runs in such an object |
//! | `metrics` | a [`metrics::Recorder`] for the `metrics` crate |
//!
//! TLS is rustls with ring, in all of them. The oldest Rust is 1.88; a newer one is asked for in a minor
//! version only.
//!
//! # Errors
//!
//! Every call fails with an [`Error`], whose [`kind`](Error::kind) has a code that is the same in every language:
//!
//! | code | what it says | can a retry help |
//! |---|---|---|
//! | `invalid_input` | an argument breaks a rule; nothing was done | no |
//! | `not_found` | what was asked for does not exist (any more) | no |
//! | `conflict` | somebody else holds what was asked for | no |
//! | `too_large` | a payload, URI or document is over its limit; nothing was done | no |
//! | `unauthorized` | the backend or the owner check refused the caller | no |
//! | `unavailable` | the backend can't be reached just now | yes |
//! | `timeout` | a deadline passed first | yes |
//! | `closed` | the engine was shut down | no |
//! | `corrupt` | the backend holds data this engine can't read | no |
//! | `config` | a URL or an option makes no sense | no |
//!
//! [`outcome_unknown`](Error::outcome_unknown) says whether it may have happened although it failed: then the
//! same call with the same idempotency key is safe.
//!
//! # What it says while it works
//!
//! Events and spans of `tracing`: a span `operation` (debug) for each operation on the backend, with its name
//! and the node's. Counters, gauges and durations are listed in [`metrics`].
#![warn(rust_2018_idioms)]
// docs.rs says of each item which feature it needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
mod engine;
mod error;
mod events;
#[cfg(all(test, not(loom)))]
mod fault_tests;
mod info;
pub mod metrics;
mod options;
mod registry;
mod runtime;
mod session;
mod stats;
mod streams;
mod subscriptions;
mod sync;
mod wakers;

pub use backend::RegistryStats;
#[cfg(feature = "postgres")]
pub use backend::postgres::postgres_ddl;
pub use engine::{Engine, Health};
pub use error::{Error, ErrorKind, Result};
pub use events::{EventId, EventLog, EventTail, LoggedEvent, Replay};
pub use info::{InfoManager, InfoPatch, Json, LogLevel, SessionInfo};
pub use options::{Lease, Options, OwnerKey, QueueLimits, RegistryOptions, Retention};
pub use registry::{
    Caller, Closing, Closings, OwnerHash, PageRequest, RequestGuard, SessionFilter, SessionPage,
    SessionRecord, SessionRegistry, SessionState, ShutdownReport,
};
pub use runtime::{BoxFuture, Clock, MaybeSend, Runtime, Spawner};
pub use session::{NodeId, SessionId};
pub use stats::Stats;
pub use streams::{
    Conflict, Cursor, EndReason, Event, EventKind, EventStream, MailItem, Mailbox, OpenOptions, Outgoing,
    Payload, Position, Positions, Receipt, SendOptions, StreamManager, Target, frame_prefix, is_frame,
};
pub use subscriptions::{
    RequestId, Subscription, SubscriptionEnd, SubscriptionFilter, SubscriptionKey, SubscriptionManager,
};
