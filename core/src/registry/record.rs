//! What is known of a registered session.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Reason;
use crate::info::{Json, SessionInfo};
use crate::registry::OwnerHash;
use crate::session::{NodeId, SessionId};

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionState {
    /// Accessed lately, or with a request under way.
    Active,
    /// Not accessed for so long that the next sweep closes it.
    Stale,
    /// Being closed: it answers no more.
    Closing,
    /// Closed; the id can't be used again for a while.
    Closed,
}

impl SessionState {
    /// The name of the state, the same in every language.
    pub const fn as_str(self) -> &'static str {
        match self {
            SessionState::Active => "active",
            SessionState::Stale => "stale",
            SessionState::Closing => "closing",
            SessionState::Closed => "closed",
        }
    }

    /// Whether a session in this state answers requests.
    pub const fn is_open(self) -> bool {
        matches!(self, SessionState::Active | SessionState::Stale)
    }
}

/// A registered session. Times are milliseconds on the backend's clock, the same for all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRecord {
    /// The session.
    pub id: SessionId,
    /// Whose it is, as a keyed hash.
    pub owner: Option<OwnerHash>,
    /// The node that registered or last adopted it.
    pub node: NodeId,
    /// When it was registered.
    pub created_ms: u64,
    /// When it was last accessed, to a 20th of the time after which it is stale.
    pub last_access_ms: u64,
    /// When this was read.
    pub now_ms: u64,
    /// Requests under way on live nodes.
    pub active_requests: u64,
    /// Where it is in its life.
    pub state: SessionState,
    /// Why it is closing or closed.
    pub reason: Option<Reason>,
    /// What the application keeps with it.
    pub metadata: Option<Json>,
    /// What the client said at `initialize` and since, where it was asked for.
    pub info: Option<Arc<SessionInfo>>,
}

impl SessionRecord {
    /// A record as a backend reads it; `Stale` is told by the times.
    pub fn new(id: SessionId, node: NodeId, state: SessionState) -> Self {
        SessionRecord {
            id,
            owner: None,
            node,
            created_ms: 0,
            last_access_ms: 0,
            now_ms: 0,
            active_requests: 0,
            state,
            reason: None,
            metadata: None,
            info: None,
        }
    }

    /// How long ago it was registered.
    pub fn age(&self) -> Duration {
        Duration::from_millis(self.now_ms.saturating_sub(self.created_ms))
    }

    /// How long ago it was last accessed.
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.now_ms.saturating_sub(self.last_access_ms))
    }

    pub(crate) fn settle_state(&mut self, stale_ms: u64) {
        let idle_ms = self.now_ms.saturating_sub(self.last_access_ms);
        if self.state == SessionState::Active && self.active_requests == 0 && idle_ms >= stale_ms {
            self.state = SessionState::Stale;
        }
    }
}

/// Which sessions to list; what is `None` is not asked for.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SessionFilter {
    /// Only those of the owner of this token.
    pub owner: Option<String>,
    /// Only those this node answers for.
    pub node: Option<NodeId>,
    /// Only those in this state.
    pub state: Option<SessionState>,
}

impl SessionFilter {
    /// Only the sessions of the owner of this token.
    #[must_use]
    pub fn owner(mut self, token: impl Into<String>) -> Self {
        self.owner = Some(token.into());
        self
    }

    /// Only the sessions this node answers for.
    #[must_use]
    pub fn node(mut self, node: &NodeId) -> Self {
        self.node = Some(node.clone());
        self
    }

    /// Only the sessions in this state.
    #[must_use]
    pub fn state(mut self, state: SessionState) -> Self {
        self.state = Some(state);
        self
    }
}

impl std::fmt::Debug for SessionFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionFilter")
            .field("owner", &self.owner.as_ref().map(|_| "…"))
            .field("node", &self.node)
            .field("state", &self.state)
            .finish()
    }
}

/// Which page of a list.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PageRequest {
    /// [`SessionPage::next`] of the page before.
    pub after: Option<String>,
    /// The most sessions looked at for this page, 1 to 1,000; 100 if it is not set.
    pub limit: usize,
    /// Whether each record has its [`info`](SessionRecord::info), which costs a read a session.
    pub info: bool,
}

impl Default for PageRequest {
    fn default() -> Self {
        PageRequest { after: None, limit: 100, info: false }
    }
}

impl PageRequest {
    /// The page that follows.
    #[must_use]
    pub fn after(mut self, next: impl Into<String>) -> Self {
        self.after = Some(next.into());
        self
    }

    /// Looks at no more sessions than this.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Reads the info of each session, too.
    #[must_use]
    pub fn with_info(mut self) -> Self {
        self.info = true;
        self
    }
}

/// A page of a list. It may be shorter than its limit, even empty, and still have a next one.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SessionPage {
    /// The sessions.
    pub sessions: Vec<SessionRecord>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}
