//! Streams: the manager, the hub behind it, cursors and backpressure.

pub(crate) mod answers;
pub(crate) mod cursor;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod gate;
pub(crate) mod hub;
mod lanes;
pub(crate) mod local;
#[cfg(all(test, loom))]
mod loom_tests;
pub(crate) mod mailbox;
pub(crate) mod manager;
pub(crate) mod merge;
pub(crate) mod queue;
pub(crate) mod table;
pub(crate) mod topic;
pub(crate) mod writer;

pub use cursor::Cursor;
pub use event::{EndReason, Event, EventKind, Payload, Position, Positions};
pub use frame::{frame_prefix, is_frame};
pub use mailbox::{MailItem, Mailbox};
pub use manager::{
    Conflict, EventStream, OpenOptions, Outgoing, Receipt, SendOptions, StreamManager, Target,
};
