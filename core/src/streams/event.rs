//! What a stream delivers: payloads with positions.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::streams::cursor::{Cursor, CursorKey};

/// An opaque UTF-8 payload; cloning shares it.
#[derive(Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "sync-layer", derive(serde::Serialize, serde::Deserialize))]
pub struct Payload(Arc<str>);

impl Payload {
    /// The payload as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both are the same allocation: one event sent to many.
    pub fn is_same(&self, other: &Payload) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for Payload {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for Payload {
    fn from(text: T) -> Self {
        Payload(text.into())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payloads are the users' data: only their size is shown.
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl PartialEq<str> for Payload {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Payload {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

/// A place in a log: offsets are contiguous from 1 inside an epoch; an epoch is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "sync-layer", derive(serde::Serialize, serde::Deserialize))]
pub struct Position {
    /// The life of the log this offset belongs to; 0 names no log.
    pub epoch: u64,
    /// The number of the event in its epoch; 0 stands before the first.
    pub offset: u64,
}

impl Position {
    pub(crate) fn at(self, offset: u64) -> Self {
        Position { offset, ..self }
    }
}

/// Where a session's reader stands: in its own log and in the broadcast log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "sync-layer", derive(serde::Serialize, serde::Deserialize))]
pub struct Positions {
    /// The position in the session's own log.
    pub session: Position,
    /// The position in the broadcast log.
    pub broadcast: Position,
}

/// Whether an event was sent to its session or to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Sent to this session (or to a list with it).
    Directed,
    /// Sent to all sessions.
    Broadcast,
}

/// One event as a stream hands it over.
#[derive(Clone)]
pub struct Event {
    payload: Payload,
    kind: EventKind,
    positions: Positions,
    key: CursorKey,
}

impl Event {
    pub(crate) fn new(payload: Payload, kind: EventKind, positions: Positions, key: CursorKey) -> Self {
        Event { payload, kind, positions, key }
    }

    /// The payload as it was sent.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Whether it was sent to this session or to all.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The cursor to resume after this event (G2); encoded on demand.
    pub fn cursor(&self) -> Cursor {
        Cursor::encode(self.positions, self.key)
    }

    /// The positions the cursor names.
    pub fn positions(&self) -> Positions {
        self.positions
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("payload", &self.payload)
            .field("kind", &self.kind)
            .field("cursor", &self.cursor().as_str())
            .finish()
    }
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "sync-layer", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum EndReason {
    /// Somebody closed it, here or on another node; its session can be resumed.
    Closed,
    /// A newer stream of the session took over (G6).
    Replaced,
    /// Its reader was too slow (G10); resume with the cursor.
    Overflow,
    /// An event was lost before it could be delivered (G3); reopen with the cursor to be told.
    Gap,
    /// This node's lease ran out, so it may not deliver any more (G6, G7).
    Fenced,
    /// The session was terminated.
    Terminated,
    /// The engine was shut down.
    Shutdown,
}

impl EndReason {
    /// The name of the reason, the same in every language.
    pub const fn as_str(self) -> &'static str {
        match self {
            EndReason::Closed => "closed",
            EndReason::Replaced => "replaced",
            EndReason::Overflow => "overflow",
            EndReason::Gap => "gap",
            EndReason::Fenced => "fenced",
            EndReason::Terminated => "terminated",
            EndReason::Shutdown => "shutdown",
        }
    }

    /// Whether a newer owner epoch holds the session, or nobody does: there is nothing to give back.
    pub(crate) fn is_taken(self) -> bool {
        matches!(self, EndReason::Replaced | EndReason::Terminated | EndReason::Fenced)
    }

    /// Whether what is queued must not be delivered any more: somebody else delivers now.
    pub(crate) fn drops_queue(self) -> bool {
        matches!(self, EndReason::Replaced | EndReason::Fenced)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
