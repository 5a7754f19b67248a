//! One session engine for every MCP server.
//!
//! MCP servers speak to clients over HTTP with long-lived streams. This crate owns the hard part of
//! running one on more than one process: who holds which stream, how a message reaches it, what a
//! client missed while it was away, what the client said at `initialize`, and when a session dies.
//!
//! Start with [`Engine`]: [`Engine::memory`] for one process, [`Engine::connect`] for a shared
//! backend. It hands out the managers: [`StreamManager`], [`InfoManager`], [`SubscriptionManager`].
#![warn(rust_2018_idioms)]

pub mod backend;
mod engine;
mod error;
#[cfg(all(test, not(loom)))]
mod fault_tests;
mod info;
mod options;
mod runtime;
mod session;
mod stats;
mod streams;
mod subscriptions;
mod sync;

pub use engine::{Engine, Health};
pub use error::{Error, ErrorKind, Result};
pub use info::{InfoManager, InfoPatch, Json, LogLevel, SessionInfo};
pub use options::{Lease, Options, QueueLimits, Retention};
pub use runtime::{BoxFuture, Clock, MaybeSend, Runtime, Spawner};
pub use session::{NodeId, SessionId};
pub use stats::Stats;
pub use streams::{
    Conflict, Cursor, EndReason, Event, EventKind, EventStream, MailItem, Mailbox, OpenOptions, Payload,
    Position, Positions, Receipt, SendOptions, StreamManager, Target, frame_prefix, is_frame,
};
pub use subscriptions::{
    RequestId, Subscription, SubscriptionEnd, SubscriptionFilter, SubscriptionKey, SubscriptionManager,
};
