//! What the registry and the event log ask of a backend, beside [`Backend`](super::Backend)'s own types.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::info::Json;
use crate::registry::OwnerHash;
use crate::session::{NodeId, SessionId};
use crate::streams::Payload;

/// A session to register.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Whose it is.
    pub owner: Option<OwnerHash>,
    /// The node that registers it.
    pub node: NodeId,
    /// What the application keeps with it.
    pub metadata: Option<Json>,
}

/// Whether reading a record counts as access to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// It does not.
    No,
    /// It does.
    Yes,
    /// It does, if this is its owner; with `None`, if it has none.
    IfOwner(Option<OwnerHash>),
}

/// How many requests of a session a node serves now. It is the number and not a change of it, so that
/// reporting twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveRequests {
    /// The session.
    pub session: SessionId,
    /// How many.
    pub count: u32,
}

/// What became of asking to close a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseStart {
    /// It is closing from now on; whoever asked finishes it.
    Begun,
    /// It was closing already.
    Underway,
    /// There is no such session, or no more.
    Gone,
}

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only this owner's.
    pub owner: Option<OwnerHash>,
    /// Only this node's.
    pub node: Option<NodeId>,
    /// Where the page before ended, as the backend said.
    pub after: Option<String>,
    /// The most to list.
    pub limit: usize,
}

/// A page of sessions.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// The sessions; some may be gone by now.
    pub sessions: Vec<SessionId>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// What is registered, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RegistryStats {
    /// All sessions, those that are closing included.
    pub total: u64,
    /// Accessed lately, or with a request under way.
    pub active: u64,
    /// Not accessed for so long that the next sweep closes them.
    pub stale: u64,
    /// Closing.
    pub closing: u64,
    /// How many each node answers for.
    pub by_node: BTreeMap<NodeId, u64>,
}

/// What one sweep of the registry took on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Stale sessions that are closing from now on; the caller finishes them.
    pub stale: Vec<SessionId>,
    /// Sessions whose closing somebody began and did not finish; the caller does.
    pub unfinished: Vec<SessionId>,
    /// Whether more is due.
    pub more: bool,
}

/// An event for a log of its own.
#[derive(Debug, Clone)]
pub struct Append {
    /// The session whose log it is; [`Backend::logs`](super::Backend::logs) finds it there.
    pub scope: SessionId,
    /// The log.
    pub log: SessionId,
    /// What the event carries.
    pub payload: Payload,
    /// Whether the log is to be noted in its scope; the caller asks for it once every half of the
    /// retention's age, so that an append costs no second write.
    pub note: bool,
}

/// Why a session was closed, as a short word.
pub type Reason = Arc<str>;
