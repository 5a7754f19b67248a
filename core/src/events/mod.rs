//! The event log under the SDKs' event stores.
//!
//! A stream of events is a log of the streams' own kind under a name that no session id can have, so
//! that order, retention, gaps, live tails and takeover are the one mechanism the streams have.

mod id;
mod log;
mod tail;

pub use id::EventId;
pub use log::{EventLog, LoggedEvent, Replay};
pub use tail::EventTail;

pub(crate) use log::{Notes, forget_scope};
