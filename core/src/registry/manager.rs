//! The registry: create, get, count requests, close, list, sweep.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::closings::Closings;
use super::owner::{Caller, OwnerHash, hashed};
use super::record::{PageRequest, SessionFilter, SessionPage, SessionRecord, SessionState};
use super::requests::RequestGuard;
use super::{life, requests};
use crate::backend::{ListQuery, NewSession, Reason, RegistryStats, Touch};
use crate::error::{Error, ErrorKind, Result};
use crate::info::Json;
use crate::session::SessionId;
use crate::streams::hub::Hub;

const MAX_REASON_BYTES: usize = 64;
const MAX_PAGE: usize = 1_000;
/// Sessions that are closed, or whose info is read, at once.
const AT_ONCE: usize = 64;

/// What a shutdown came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Sessions this node closed.
    pub closed: u64,
    /// Requests that had not ended when the time was over.
    pub requests_left: u64,
}

/// A session's life, on every node: who owns it, when it was last used, when it dies.
///
/// Closing is one act seen everywhere: the session answers no more; its stream ends with `terminated`
/// and what was kept of it is removed; every node that created or adopted it reads a [`Closing`]
/// (`closings`) and ends its local objects; a tombstone keeps the id from being used again for a
/// while; then nothing is left. If the closing node dies or the backend goes away in between, the
/// session stays closed for everybody, and the next sweep of any node finishes it.
///
/// [`Closing`]: crate::Closing
///
/// ```
/// use mcp_sessions::{Engine, Json};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let registry = Engine::memory().registry().clone();
/// let id = registry.create(Some("token-of-ada"), Some(Json::parse(r#"{"plan":"pro"}"#)?)).await?;
/// assert!(registry.get(&id, "token-of-ada").await?.is_some());
/// assert!(registry.get(&id, "token-of-bob").await?.is_none());
/// let request = registry.begin_request(&id).await?;
/// assert_eq!(registry.peek(&id).await?.unwrap().active_requests, 1);
/// drop(request);
/// assert!(registry.close(&id, "deleted").await?);
/// assert!(!registry.has(&id).await?);
/// # Ok::<(), mcp_sessions::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct SessionRegistry {
    hub: Arc<Hub>,
}

impl SessionRegistry {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        SessionRegistry { hub }
    }

    /// Registers a new session under an unguessable id (256 random bits). It is known from here on,
    /// so events for it wait for its stream (G4).
    ///
    /// `owner` is a token that only a keyed hash is kept of; `metadata` is the application's.
    ///
    /// Fails with `invalid_input` for an empty token, `too_large` for metadata over
    /// `registry.maxMetadataBytes` or a token over 16 KiB, `closed` once this node drains.
    pub async fn create(&self, owner: Option<&str>, metadata: Option<Json>) -> Result<SessionId> {
        let id = SessionId::random();
        self.register(&id, owner, metadata).await?;
        Ok(id)
    }

    /// [`create`](Self::create) under an id that was made elsewhere. It has to be unguessable.
    ///
    /// Fails with `conflict` when the id is registered, or was closed and has its tombstone.
    pub async fn register(&self, id: &SessionId, owner: Option<&str>, metadata: Option<Json>) -> Result<()> {
        const OPERATION: &str = "registry.create";
        self.check_not_draining(OPERATION)?;
        let limit = self.hub.options.registry.max_metadata_bytes;
        if let Some(size) = metadata.as_ref().map(|json| json.as_str().len()).filter(|size| *size > limit) {
            return Err(Error::too_large(OPERATION, "the metadata", size, limit));
        }
        let owner = match owner {
            Some(token) => Some(hashed(&self.hub, OPERATION, token).await?),
            None => None,
        };
        let new = NewSession { owner, node: self.hub.node.clone(), metadata };
        // Tracked before it is there, so that no closing is missed.
        let mut tracked = Tracked::new(&self.hub, id);
        match self.hub.run(OPERATION, self.hub.backend.registry_create(id, new)).await {
            Ok(true) => {
                tracked.keep();
                Ok(())
            }
            Ok(false) => Err(Error::new(
                ErrorKind::Conflict,
                OPERATION,
                format!("session {id} exists, or was closed a short while ago; use another id"),
            )),
            Err(error) => Err(error),
        }
    }

    /// A session that answers requests, for its owner; this counts as access. `None` for everybody
    /// else, exactly as for a session that is closing, closed, or was never there.
    ///
    /// One round trip; a write only once a 20th of the time has passed after which it is stale.
    pub async fn get<'c>(
        &self,
        id: &SessionId,
        caller: impl Into<Caller<'c>>,
    ) -> Result<Option<SessionRecord>> {
        const OPERATION: &str = "registry.get";
        let asked = match caller.into() {
            Caller::Trusted => None,
            Caller::Nobody => Some(None),
            Caller::Owner(token) => Some(Some(hashed(&self.hub, OPERATION, token).await?)),
        };
        let touch = asked.map_or(Touch::Yes, Touch::IfOwner);
        let record = self.read(OPERATION, id, touch).await?;
        let theirs = |record: &SessionRecord| {
            record.state.is_open() && asked.is_none_or(|asked| is_owner(record.owner, asked))
        };
        match record.filter(theirs) {
            Some(record) => life::read_with_info(&self.hub, record).await.map(Some),
            None => Ok(None),
        }
    }

    /// All that is known of a session, whoever owns it and also while it is closing or has its
    /// tombstone. This is no access.
    pub async fn peek(&self, id: &SessionId) -> Result<Option<SessionRecord>> {
        match self.read("registry.peek", id, Touch::No).await? {
            Some(record) if record.state.is_open() => life::read_with_info(&self.hub, record).await.map(Some),
            record => Ok(record),
        }
    }

    /// The oldest session of an owner that answers requests; this counts as access.
    pub async fn get_by_owner(&self, owner: &str) -> Result<Option<SessionRecord>> {
        const OPERATION: &str = "registry.get_by_owner";
        let owner = hashed(&self.hub, OPERATION, owner).await?;
        for id in self.hub.run(OPERATION, self.hub.backend.registry_owned(&owner)).await? {
            let record = self.read(OPERATION, &id, Touch::IfOwner(Some(owner))).await?;
            let theirs =
                |record: &SessionRecord| record.state.is_open() && is_owner(record.owner, Some(owner));
            if let Some(record) = record.filter(theirs) {
                return life::read_with_info(&self.hub, record).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Whether a session answers requests. This is no access.
    pub async fn has(&self, id: &SessionId) -> Result<bool> {
        let record = self.read("registry.has", id, Touch::No).await?;
        Ok(record.is_some_and(|record| record.state.is_open()))
    }

    /// Notes that a request of the session begins; it ends with the guard. Meanwhile the session is
    /// not stale, unless this process dies: its requests die with it. Who may ask is checked by
    /// [`get`](Self::get).
    ///
    /// Fails with `not_found` for a session that does not answer requests, `closed` once this node
    /// drains. A session that is closed meanwhile does not wait for its requests.
    pub async fn begin_request(&self, id: &SessionId) -> Result<RequestGuard> {
        self.check_not_draining("registry.begin_request")?;
        requests::begin(&self.hub, id).await
    }

    /// Makes this node answer for a session that another one created: it has local objects of it now,
    /// and [`closings`](Self::closings) tells when they have to end. False when there is no such
    /// session. The node before is not told; close its stream to let it know.
    pub async fn adopt(&self, id: &SessionId) -> Result<bool> {
        const OPERATION: &str = "registry.adopt";
        self.check_not_draining(OPERATION)?;
        let mut tracked = Tracked::new(&self.hub, id);
        let adopted = self.hub.run(OPERATION, self.hub.backend.registry_adopt(id, &self.hub.node)).await?;
        if adopted {
            tracked.keep();
        }
        Ok(adopted)
    }

    /// Closes a session, wherever it is held, with a reason of 1 to 64 visible characters. True for
    /// the one call that closed it; false when it was closing (this one helps and waits), or is not
    /// there. When this returns, no node answers for the session any more.
    ///
    /// Requests under way go on; their ends change nothing. During an outage this fails with
    /// `unavailable`: the session goes on, or, if the outcome is unknown, is closed by the next sweep
    /// or by calling again.
    pub async fn close(&self, id: &SessionId, reason: &str) -> Result<bool> {
        life::close(&self.hub, id, &checked_reason(reason)?).await
    }

    /// Closes all sessions of an owner, wherever they are held, in O(own); how many this call closed.
    pub async fn close_by_owner(&self, owner: &str, reason: &str) -> Result<u64> {
        const OPERATION: &str = "registry.close_by_owner";
        let reason = checked_reason(reason)?;
        let owner = hashed(&self.hub, OPERATION, owner).await?;
        let own = self.hub.run(OPERATION, self.hub.backend.registry_owned(&owner)).await?;
        let mut theirs = Vec::new();
        for some in own.chunks(MAX_PAGE) {
            // What finds sessions by their owner may be behind; the record is what counts.
            let records = self.read_all(OPERATION, some).await?.into_iter().flatten();
            let records = records.filter(|record| is_owner(record.owner, Some(owner)));
            theirs.extend(records.map(|record| record.id));
        }
        self.close_all(theirs, reason).await
    }

    async fn close_all(&self, sessions: Vec<SessionId>, reason: Reason) -> Result<u64> {
        let close = |id: SessionId| {
            let (hub, reason) = (self.hub.clone(), reason.clone());
            async move { life::close(&hub, &id, &reason).await }
        };
        let closed = stream::iter(sessions).map(close).buffer_unordered(AT_ONCE);
        closed.try_fold(0, |sum, closed| async move { Ok(sum + u64::from(closed)) }).await
    }

    /// Lists registered sessions, page by page; tombstones are left out.
    ///
    /// A session that is there from the first page to the last is listed; one that is accessed
    /// meanwhile may be listed twice. Listing is no access.
    pub async fn list(&self, filter: SessionFilter, page: PageRequest) -> Result<SessionPage> {
        const OPERATION: &str = "registry.list";
        if !(1..=MAX_PAGE).contains(&page.limit) {
            return Err(Error::invalid(OPERATION, format!("a page has a limit of 1 to {MAX_PAGE}")));
        }
        let owner = match &filter.owner {
            Some(token) => Some(hashed(&self.hub, OPERATION, token).await?),
            None => None,
        };
        let query = ListQuery { owner, node: filter.node.clone(), after: page.after, limit: page.limit };
        let listed = self.hub.run(OPERATION, self.hub.backend.registry_list(query)).await?;
        let records = self.read_all(OPERATION, &listed.sessions).await?;
        let wanted = |record: &SessionRecord| {
            record.state != SessionState::Closed
                && filter.state.is_none_or(|state| record.state == state)
                && filter.node.as_ref().is_none_or(|node| record.node == *node)
                && owner.is_none_or(|owner| is_owner(record.owner, Some(owner)))
        };
        let mut sessions: Vec<_> = records.into_iter().flatten().filter(wanted).collect();
        if page.info {
            let read = |record| life::read_with_info(&self.hub, record);
            sessions = stream::iter(sessions).map(read).buffered(AT_ONCE).try_collect().await?;
        }
        Ok(SessionPage { sessions, next: listed.next })
    }

    /// How many sessions there are, on all nodes.
    pub async fn stats(&self) -> Result<RegistryStats> {
        self.hub.run("registry.stats", self.hub.backend.registry_stats()).await
    }

    /// Closes stale sessions now instead of at the next turn; how many this call closed. Nodes that
    /// sweep at once share the work.
    pub async fn sweep_stale(&self) -> Result<u64> {
        self.hub.check_open("registry.sweep")?;
        life::sweep(&self.hub).await
    }

    /// The closings of sessions this node created or adopts, from now on.
    pub fn closings(&self) -> Closings {
        self.hub.registry.locals.follow()
    }

    /// Takes no more sessions and requests on this node, and waits until the requests under way have
    /// ended; how many had not at the deadline. The sessions live on, for other nodes to adopt.
    pub async fn drain(&self, deadline: Duration) -> u64 {
        life::drain(&self.hub, deadline).await
    }

    /// [`drain`](Self::drain)s, then closes the sessions this node created or adopted, with the reason
    /// `shutdown`. Doing it twice is fine. The engine is shut down by itself, later.
    ///
    /// Fails as the backend does: what could not be closed is stale some day, and swept.
    pub async fn shutdown(&self, deadline: Duration) -> Result<ShutdownReport> {
        let requests_left = life::drain(&self.hub, deadline).await;
        let closed = self.close_all(self.hub.registry.locals.all(), "shutdown".into()).await?;
        self.hub.registry.end();
        Ok(ShutdownReport { closed, requests_left })
    }

    fn check_not_draining(&self, operation: &'static str) -> Result<()> {
        match self.hub.registry.draining.load(Ordering::Acquire) {
            true => Err(Error::new(
                ErrorKind::Closed,
                operation,
                "this node's registry is shutting down; send the client to another node",
            )),
            false => Ok(()),
        }
    }

    async fn read(
        &self,
        operation: &'static str,
        id: &SessionId,
        touch: Touch,
    ) -> Result<Option<SessionRecord>> {
        let ids = [id.clone()];
        let mut records = self.hub.run(operation, self.hub.backend.registry_read(&ids, touch)).await?;
        Ok(records.pop().flatten().map(|record| self.settled(record)))
    }

    async fn read_all(
        &self,
        operation: &'static str,
        ids: &[SessionId],
    ) -> Result<Vec<Option<SessionRecord>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let records = self.hub.run(operation, self.hub.backend.registry_read(ids, Touch::No)).await?;
        Ok(records.into_iter().map(|record| record.map(|record| self.settled(record))).collect())
    }

    fn settled(&self, mut record: SessionRecord) -> SessionRecord {
        record.settle_state(self.hub.options.registry.stale_ms);
        record
    }
}

/// The hashes are compared in constant time (see [`OwnerHash`]).
fn is_owner(owner: Option<OwnerHash>, asked: Option<OwnerHash>) -> bool {
    match (owner, asked) {
        (Some(owner), Some(asked)) => owner == asked,
        (None, None) => true,
        _ => false,
    }
}

fn checked_reason(reason: &str) -> Result<Reason> {
    let fine = (1..=MAX_REASON_BYTES).contains(&reason.len())
        && reason.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    match fine {
        true => Ok(reason.into()),
        false => Err(Error::invalid(
            "registry.close",
            format!("a reason has 1 to {MAX_REASON_BYTES} visible ASCII characters"),
        )),
    }
}

/// Tracks a session of this node, unless it turns out not to be one.
struct Tracked<'a> {
    hub: &'a Hub,
    id: &'a SessionId,
    undo: bool,
}

impl<'a> Tracked<'a> {
    fn new(hub: &'a Hub, id: &'a SessionId) -> Self {
        Tracked { undo: hub.registry.locals.track(id), hub, id }
    }

    fn keep(&mut self) {
        self.undo = false;
    }
}

impl Drop for Tracked<'_> {
    fn drop(&mut self) {
        if self.undo {
            self.hub.registry.locals.untrack(self.id);
        }
    }
}

impl fmt::Debug for SessionRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRegistry").field("node", &self.hub.node).finish_non_exhaustive()
    }
}
