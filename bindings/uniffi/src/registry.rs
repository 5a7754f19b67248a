//! A session's life, on every node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_sessions as core;
use mcp_sessions::{Caller, Json, NodeId, SessionId};

use crate::cancel::{Cancellation, unless};
use crate::error::Result;
use crate::info::SessionInfo;
use crate::runtime::on_runtime;

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
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

impl From<core::SessionState> for SessionState {
    fn from(state: core::SessionState) -> Self {
        match state {
            core::SessionState::Active => SessionState::Active,
            core::SessionState::Stale => SessionState::Stale,
            core::SessionState::Closing => SessionState::Closing,
            _ => SessionState::Closed,
        }
    }
}

impl From<SessionState> for core::SessionState {
    fn from(state: SessionState) -> Self {
        match state {
            SessionState::Active => core::SessionState::Active,
            SessionState::Stale => core::SessionState::Stale,
            SessionState::Closing => core::SessionState::Closing,
            SessionState::Closed => core::SessionState::Closed,
        }
    }
}

/// A registered session. Times are milliseconds on the backend's clock, the same for all nodes.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct SessionRecord {
    /// The session.
    pub id: String,
    /// Whose it is, as a keyed hash in hexadecimal.
    pub owner: Option<String>,
    /// The node that registered or last adopted it.
    pub node: String,
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
    pub reason: Option<String>,
    /// What the application keeps with it, as JSON.
    pub metadata: Option<String>,
    /// What the client said at `initialize` and since, where it was asked for.
    pub info: Option<SessionInfo>,
}

impl From<core::SessionRecord> for SessionRecord {
    fn from(record: core::SessionRecord) -> Self {
        SessionRecord {
            id: record.id.to_string(),
            owner: record.owner.map(core::OwnerHash::to_hex),
            node: record.node.to_string(),
            created_ms: record.created_ms,
            last_access_ms: record.last_access_ms,
            now_ms: record.now_ms,
            active_requests: record.active_requests,
            state: record.state.into(),
            reason: record.reason.map(|reason| reason.to_string()),
            metadata: record.metadata.map(|json| json.as_str().to_owned()),
            info: record.info.map(|info| SessionInfo::from(&*info)),
        }
    }
}

/// Which sessions to list; what is left out is not asked for.
#[derive(Debug, Clone, uniffi::Record)]
pub struct SessionFilter {
    /// Only those of the owner of this token.
    #[uniffi(default = None)]
    pub owner: Option<String>,
    /// Only those this node answers for.
    #[uniffi(default = None)]
    pub node: Option<String>,
    /// Only those in this state.
    #[uniffi(default = None)]
    pub state: Option<SessionState>,
}

/// A page of a list. It may be shorter than its limit, even empty, and still have a next one.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct SessionPage {
    /// The sessions.
    pub sessions: Vec<SessionRecord>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// How many sessions there are, on all nodes.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
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
    pub by_node: HashMap<String, u64>,
}

/// A session of this process that is closing.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Closing {
    /// The session.
    pub session: String,
    /// Why: what was given to `close`, else `stale`, `shutdown`, or `lost` if its record has gone.
    pub reason: String,
}

impl From<core::Closing> for Closing {
    fn from(closing: core::Closing) -> Self {
        Closing { session: closing.session.to_string(), reason: closing.reason.to_string() }
    }
}

/// What a shutdown of the registry came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct ShutdownReport {
    /// Sessions this node closed.
    pub closed: u64,
    /// Requests that had not ended when the time was over.
    pub requests_left: u64,
}

/// A session's life, on every node: who owns it, when it was last used, when it dies.
///
/// Closing is one act seen everywhere: the session answers no more, its stream ends with `terminated`,
/// what was kept of it is removed, and every node that created or adopted it reads a closing.
#[derive(uniffi::Object)]
pub struct SessionRegistry {
    inner: core::SessionRegistry,
}

impl SessionRegistry {
    pub(crate) fn new(inner: core::SessionRegistry) -> Arc<Self> {
        Arc::new(SessionRegistry { inner })
    }
}

#[uniffi::export]
impl SessionRegistry {
    /// Registers a new session under an unguessable id. Of the owner's token only a keyed hash is kept;
    /// the metadata is JSON of the application's.
    ///
    /// Fails with `invalid_input` for an empty token or what is not JSON, `too_large`, `closed` once
    /// this node drains.
    #[uniffi::method(default(owner = None, metadata = None))]
    pub async fn create(&self, owner: Option<String>, metadata: Option<String>) -> Result<String> {
        let metadata = metadata.map(|json| Json::parse(&json)).transpose()?;
        Ok(on_runtime(self.inner.create(owner.as_deref(), metadata)).await?.to_string())
    }

    /// Registers a session under an id that was made elsewhere. It has to be unguessable.
    ///
    /// Fails as `create`, and with `conflict` when the id is registered, or was closed a short while ago.
    #[uniffi::method(default(owner = None, metadata = None))]
    pub async fn register(
        &self,
        session: String,
        owner: Option<String>,
        metadata: Option<String>,
    ) -> Result<()> {
        let id = SessionId::new(session)?;
        let metadata = metadata.map(|json| Json::parse(&json)).transpose()?;
        Ok(on_runtime(self.inner.register(&id, owner.as_deref(), metadata)).await?)
    }

    /// A session that answers requests, for its owner; this counts as access. Nothing for everybody
    /// else, exactly as for a session that is closing, closed, or was never there. Without an owner it
    /// is asked for on behalf of nobody, whose are only the sessions without one.
    #[uniffi::method(default(owner = None))]
    pub async fn get(&self, session: String, owner: Option<String>) -> Result<Option<SessionRecord>> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.get(&id, owner.as_deref())).await?.map(SessionRecord::from))
    }

    /// `get` for the server itself, which has checked the owner already, or need not.
    pub async fn get_trusted(&self, session: String) -> Result<Option<SessionRecord>> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.get(&id, Caller::Trusted)).await?.map(SessionRecord::from))
    }

    /// All that is known of a session, whoever owns it and also while it is closing or was closed a
    /// short while ago. This is no access.
    pub async fn peek(&self, session: String) -> Result<Option<SessionRecord>> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.peek(&id)).await?.map(SessionRecord::from))
    }

    /// The oldest session of an owner that answers requests; this counts as access.
    pub async fn get_by_owner(&self, owner: String) -> Result<Option<SessionRecord>> {
        Ok(on_runtime(self.inner.get_by_owner(&owner)).await?.map(SessionRecord::from))
    }

    /// Whether a session answers requests. This is no access.
    pub async fn has(&self, session: String) -> Result<bool> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.has(&id)).await?)
    }

    /// Notes that a request of the session begins; it ends with the guard, or with this process.
    /// Meanwhile the session is not stale.
    ///
    /// Fails with `not_found` for a session that does not answer requests, `closed` once this node
    /// drains.
    pub async fn begin_request(&self, session: String) -> Result<Arc<RequestGuard>> {
        let id = SessionId::new(session)?;
        let guard = on_runtime(self.inner.begin_request(&id)).await?;
        Ok(Arc::new(RequestGuard { inner: Mutex::new(Some(guard)) }))
    }

    /// Makes this node answer for a session that another one created; its closing is told here from now
    /// on. False when there is no such session.
    pub async fn adopt(&self, session: String) -> Result<bool> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.adopt(&id)).await?)
    }

    /// Ends a session, wherever it is held, with a reason of 1 to 64 visible characters. True for the
    /// one call that closed it. When this returns, no node answers for the session any more.
    pub async fn end(&self, session: String, reason: String) -> Result<bool> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.close(&id, &reason)).await?)
    }

    /// Ends all sessions of an owner, wherever they are held; how many this call closed.
    pub async fn end_by_owner(&self, owner: String, reason: String) -> Result<u64> {
        Ok(on_runtime(self.inner.close_by_owner(&owner, &reason)).await?)
    }

    /// Lists registered sessions, page by page. Listing is no access.
    ///
    /// Fails with `invalid_input` for a limit outside 1 to 1,000 or a page that was never given.
    #[uniffi::method(default(after = None, limit = 100, with_info = false))]
    pub async fn list(
        &self,
        filter: SessionFilter,
        after: Option<String>,
        limit: u32,
        with_info: bool,
    ) -> Result<SessionPage> {
        let mut wanted = core::SessionFilter::default();
        wanted.owner = filter.owner;
        wanted.node = filter.node.map(|node| node.parse::<NodeId>()).transpose()?;
        wanted.state = filter.state.map(Into::into);
        let mut page = core::PageRequest::default().limit(limit as usize);
        page.after = after;
        page.info = with_info;
        let found = on_runtime(self.inner.list(wanted, page)).await?;
        Ok(SessionPage {
            sessions: found.sessions.into_iter().map(SessionRecord::from).collect(),
            next: found.next,
        })
    }

    /// How many sessions there are, on all nodes.
    pub async fn stats(&self) -> Result<RegistryStats> {
        let stats = on_runtime(self.inner.stats()).await?;
        Ok(RegistryStats {
            total: stats.total,
            active: stats.active,
            stale: stats.stale,
            closing: stats.closing,
            by_node: stats.by_node.into_iter().map(|(node, count)| (node.to_string(), count)).collect(),
        })
    }

    /// Closes stale sessions now instead of at the next turn; how many this call closed.
    pub async fn sweep_stale(&self) -> Result<u64> {
        Ok(on_runtime(self.inner.sweep_stale()).await?)
    }

    /// The closings of sessions this node created or adopts, from now on.
    pub fn closings(&self) -> Arc<Closings> {
        Arc::new(Closings { inner: self.inner.closings() })
    }

    /// Takes no more sessions and requests on this node, and waits until the requests under way have
    /// ended; how many had not at the deadline.
    pub async fn drain(&self, deadline: Duration) -> u64 {
        on_runtime(self.inner.drain(deadline)).await
    }

    /// Drains, then closes the sessions this node created or adopted, with the reason `shutdown`. The
    /// engine is shut down by itself, later.
    pub async fn shutdown(&self, deadline: Duration) -> Result<ShutdownReport> {
        let report = on_runtime(self.inner.shutdown(deadline)).await?;
        Ok(ShutdownReport { closed: report.closed, requests_left: report.requests_left })
    }
}

/// A request under way; dropping it ends it.
#[derive(uniffi::Object)]
pub struct RequestGuard {
    inner: Mutex<Option<core::RequestGuard>>,
}

#[uniffi::export]
impl RequestGuard {
    /// Ends the request, and returns once the backend knows. Ending it twice is fine.
    pub async fn finish(&self) -> Result<()> {
        let guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        match guard {
            Some(guard) => Ok(on_runtime(guard.end()).await?),
            None => Ok(()),
        }
    }
}

/// The closings of this node's sessions, whoever closes them and wherever.
#[derive(uniffi::Object)]
pub struct Closings {
    inner: core::Closings,
}

#[uniffi::export]
impl Closings {
    /// The next closing; nothing once the engine is shut down and all were read, or when `until` was
    /// cancelled. Cancelling the call loses none.
    #[uniffi::method(default(until = None))]
    pub async fn next(&self, until: Option<Arc<Cancellation>>) -> Option<Closing> {
        unless(until, on_runtime(self.inner.next())).await.map(Closing::from)
    }

    /// The next closing if there is one already.
    pub fn try_next(&self) -> Option<Closing> {
        self.inner.try_next().map(Closing::from)
    }
}
