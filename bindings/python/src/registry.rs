//! The session registry.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_sessions::{
    Caller, Json, NodeId, PageRequest, RegistryStats, RequestGuard, SessionFilter, SessionPage,
    SessionRecord, SessionState,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::engine::Engine;
use crate::failure::Failure;
use crate::port::Port;
use crate::reply::{Reply, record};
use crate::runtime::Native;
use crate::text::{optional, session, text};

type Later<'py> = PyResult<Bound<'py, PyAny>>;
type Given<'a, 'py> = &'a Bound<'py, PyAny>;
type Maybe<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

/// A session's life, on every node.
#[pyclass(frozen, module = "mcp_sessions._native")]
pub(crate) struct Registry {
    core: Native<mcp_sessions::SessionRegistry>,
}

impl Registry {
    fn core(&self) -> Result<mcp_sessions::SessionRegistry, Failure> {
        self.core.get("registry").cloned()
    }
}

#[pymethods]
impl Engine {
    /// The session registry.
    fn registry(&self) -> PyResult<Registry> {
        Ok(Registry { core: Native::new(self.core("registry")?.registry().clone()) })
    }
}

#[pymethods]
impl Registry {
    /// Registers a new session: its id. With an id, under that one.
    fn create<'py>(
        &self,
        event_loop: Given<'_, 'py>,
        port: &Port,
        id: Maybe<'_, 'py>,
        owner: Maybe<'_, 'py>,
        metadata: Maybe<'_, 'py>,
    ) -> Later<'py> {
        let operation = "registry.create";
        let registry = self.core()?;
        let id = id.map(|id| session(id, operation)).transpose()?;
        let owner = owned(owner, operation)?;
        let metadata = optional(metadata, "metadata", operation)?;
        let metadata = metadata.map(Json::parse).transpose().map_err(Failure::from)?;
        let work = async move {
            let id = match id {
                Some(id) => {
                    registry.register(&id, owner.as_deref(), metadata).await?;
                    id
                }
                None => registry.create(owner.as_deref(), metadata).await?,
            };
            Ok(Reply::Text(id.as_str().to_owned()))
        };
        port.start(event_loop, operation, work)
    }

    /// A session that answers requests, for its owner (`trusted`: for the server itself).
    fn get<'py>(
        &self,
        event_loop: Given<'_, 'py>,
        port: &Port,
        id: Given<'_, 'py>,
        owner: Maybe<'_, 'py>,
        trusted: bool,
    ) -> Later<'py> {
        let operation = "registry.get";
        let (registry, id, owner) = (self.core()?, session(id, operation)?, owned(owner, operation)?);
        let work = async move {
            let caller = match (&owner, trusted) {
                (_, true) => Caller::Trusted,
                (Some(owner), _) => Caller::Owner(owner),
                (None, _) => Caller::Nobody,
            };
            let found = registry.get(&id, caller).await?;
            Ok(Reply::made(move |py| session_record(py, found.as_ref())))
        };
        port.start(event_loop, operation, work)
    }

    /// All that is known of a session.
    fn peek<'py>(&self, event_loop: Given<'_, 'py>, port: &Port, id: Given<'_, 'py>) -> Later<'py> {
        let (registry, id) = (self.core()?, session(id, "registry.peek")?);
        let work = async move {
            let found = registry.peek(&id).await?;
            Ok(Reply::made(move |py| session_record(py, found.as_ref())))
        };
        port.start(event_loop, "registry.peek", work)
    }

    /// The oldest session of an owner.
    fn get_by_owner<'py>(
        &self,
        event_loop: Given<'_, 'py>,
        port: &Port,
        owner: Given<'_, 'py>,
    ) -> Later<'py> {
        let operation = "registry.get_by_owner";
        let (registry, owner) = (self.core()?, text(owner, "an owner's token", operation)?.to_owned());
        let work = async move {
            let found = registry.get_by_owner(&owner).await?;
            Ok(Reply::made(move |py| session_record(py, found.as_ref())))
        };
        port.start(event_loop, operation, work)
    }

    /// Whether a session answers requests.
    fn has<'py>(&self, event_loop: Given<'_, 'py>, port: &Port, id: Given<'_, 'py>) -> Later<'py> {
        let (registry, id) = (self.core()?, session(id, "registry.has")?);
        let work = async move { Ok(Reply::Flag(registry.has(&id).await?)) };
        port.start(event_loop, "registry.has", work)
    }

    /// Notes that a request begins: a `Request`.
    fn begin_request<'py>(&self, event_loop: Given<'_, 'py>, port: &Port, id: Given<'_, 'py>) -> Later<'py> {
        let (registry, id) = (self.core()?, session(id, "registry.begin_request")?);
        let work = async move {
            let guard = registry.begin_request(&id).await?;
            Ok(Reply::made(move |py| {
                let request = Request { guard: Native::new(Mutex::new(Some(guard))) };
                Ok(Bound::new(py, request)?.into_any())
            }))
        };
        port.start(event_loop, "registry.begin_request", work)
    }

    /// Makes this node answer for a session that another one created.
    fn adopt<'py>(&self, event_loop: Given<'_, 'py>, port: &Port, id: Given<'_, 'py>) -> Later<'py> {
        let (registry, id) = (self.core()?, session(id, "registry.adopt")?);
        let work = async move { Ok(Reply::Flag(registry.adopt(&id).await?)) };
        port.start(event_loop, "registry.adopt", work)
    }

    /// Closes a session, wherever it is held.
    fn close<'py>(
        &self,
        event_loop: Given<'_, 'py>,
        port: &Port,
        id: Given<'_, 'py>,
        reason: Given<'_, 'py>,
    ) -> Later<'py> {
        let operation = "registry.close";
        let (registry, id) = (self.core()?, session(id, operation)?);
        let reason = text(reason, "a reason", operation)?.to_owned();
        let work = async move { Ok(Reply::Flag(registry.close(&id, &reason).await?)) };
        port.start(event_loop, operation, work)
    }

    /// Closes all sessions of an owner; how many.
    fn close_by_owner<'py>(
        &self,
        event_loop: Given<'_, 'py>,
        port: &Port,
        owner: Given<'_, 'py>,
        reason: Given<'_, 'py>,
    ) -> Later<'py> {
        let operation = "registry.close_by_owner";
        let (registry, owner) = (self.core()?, text(owner, "an owner's token", operation)?.to_owned());
        let reason = text(reason, "a reason", operation)?.to_owned();
        let work = async move { Ok(Reply::Count(registry.close_by_owner(&owner, &reason).await?)) };
        port.start(event_loop, operation, work)
    }

    /// A page of sessions: `[records, next]`.
    #[allow(clippy::too_many_arguments)]
    fn list<'py>(
        &self,
        event_loop: Given<'_, 'py>,
        port: &Port,
        owner: Maybe<'_, 'py>,
        node: Option<&str>,
        state: Option<&str>,
        after: Maybe<'_, 'py>,
        limit: usize,
        info: bool,
    ) -> Later<'py> {
        let operation = "registry.list";
        let registry = self.core()?;
        let mut filter = SessionFilter::default();
        filter.owner = owned(owner, operation)?;
        filter.state = state.map(state_of).transpose()?;
        if let Some(node) = node {
            filter = filter.node(&node.parse::<NodeId>().map_err(Failure::from)?);
        }
        let mut page = PageRequest::default().limit(limit);
        page.after = owned(after, operation)?;
        page.info = info;
        let work = async move {
            let listed = registry.list(filter, page).await?;
            Ok(Reply::made(move |py| page_of(py, &listed)))
        };
        port.start(event_loop, operation, work)
    }

    /// How many sessions there are, on all nodes: `[total, active, stale, closing, by_node]`.
    fn stats<'py>(&self, event_loop: Given<'_, 'py>, port: &Port) -> Later<'py> {
        let registry = self.core()?;
        let work = async move {
            let stats = registry.stats().await?;
            Ok(Reply::made(move |py| counted(py, &stats)))
        };
        port.start(event_loop, "registry.stats", work)
    }

    /// Closes stale sessions now; how many.
    fn sweep_stale<'py>(&self, event_loop: Given<'_, 'py>, port: &Port) -> Later<'py> {
        let registry = self.core()?;
        let work = async move { Ok(Reply::Count(registry.sweep_stale().await?)) };
        port.start(event_loop, "registry.sweep", work)
    }

    /// The closings of this node's sessions, from now on.
    fn closings(&self) -> PyResult<Closings> {
        Ok(Closings { core: Native::new(Arc::new(self.core()?.closings())) })
    }

    /// Takes no more sessions and requests; how many requests had not ended at the deadline.
    fn drain<'py>(&self, event_loop: Given<'_, 'py>, port: &Port, deadline_ms: u64) -> Later<'py> {
        let registry = self.core()?;
        let deadline = Duration::from_millis(deadline_ms);
        let work = async move { Ok(Reply::Count(registry.drain(deadline).await)) };
        port.start(event_loop, "registry.drain", work)
    }

    /// Drains, then closes this node's sessions: `[closed, requests left]`.
    fn shutdown<'py>(&self, event_loop: Given<'_, 'py>, port: &Port, deadline_ms: u64) -> Later<'py> {
        let registry = self.core()?;
        let deadline = Duration::from_millis(deadline_ms);
        let work = async move {
            let report = registry.shutdown(deadline).await?;
            Ok(Reply::made(move |py| Ok(PyList::new(py, [report.closed, report.requests_left])?.into_any())))
        };
        port.start(event_loop, "registry.shutdown", work)
    }
}

fn owned(value: Maybe<'_, '_>, operation: &'static str) -> Result<Option<String>, Failure> {
    Ok(optional(value, "an owner's token", operation)?.map(str::to_owned))
}

fn state_of(name: &str) -> Result<SessionState, Failure> {
    let states = [SessionState::Active, SessionState::Stale, SessionState::Closing, SessionState::Closed];
    let found = states.into_iter().find(|state| state.as_str() == name);
    found.ok_or_else(|| Failure::invalid("registry.list", "a state is active, stale, closing or closed"))
}

fn session_record<'py>(py: Python<'py>, found: Option<&SessionRecord>) -> PyResult<Bound<'py, PyAny>> {
    let Some(it) = found else { return Ok(py.None().into_bound(py)) };
    let fields = PyList::empty(py);
    fields.append(it.id.as_str())?;
    fields.append(it.owner.as_ref().map(|owner| owner.to_hex()))?;
    fields.append(it.node.as_str())?;
    fields.append(it.created_ms)?;
    fields.append(it.last_access_ms)?;
    fields.append(it.now_ms)?;
    fields.append(it.active_requests)?;
    fields.append(it.state.as_str())?;
    fields.append(it.reason.as_deref())?;
    fields.append(it.metadata.as_ref().map(Json::as_str))?;
    fields.append(record(py, it.info.as_deref())?)?;
    Ok(fields.into_any())
}

fn page_of<'py>(py: Python<'py>, page: &SessionPage) -> PyResult<Bound<'py, PyAny>> {
    let sessions = PyList::empty(py);
    for one in &page.sessions {
        sessions.append(session_record(py, Some(one))?)?;
    }
    let whole = PyList::empty(py);
    whole.append(sessions)?;
    whole.append(page.next.as_deref())?;
    Ok(whole.into_any())
}

fn counted<'py>(py: Python<'py>, stats: &RegistryStats) -> PyResult<Bound<'py, PyAny>> {
    let by_node = PyDict::new(py);
    for (node, count) in &stats.by_node {
        by_node.set_item(node.as_str(), count)?;
    }
    let whole = PyList::new(py, [stats.total, stats.active, stats.stale, stats.closing])?;
    whole.append(by_node)?;
    Ok(whole.into_any())
}

/// A request under way. Giving it up ends it.
#[pyclass(frozen, module = "mcp_sessions._native")]
pub(crate) struct Request {
    guard: Native<Mutex<Option<RequestGuard>>>,
}

#[pymethods]
impl Request {
    /// Ends it.
    fn end<'py>(&self, event_loop: Given<'_, 'py>, port: &Port) -> Later<'py> {
        let guard = self.guard.get("registry.end_request")?;
        let guard = guard.lock().unwrap_or_else(PoisonError::into_inner).take();
        let work = async move {
            if let Some(guard) = guard {
                guard.end().await?;
            }
            Ok(Reply::Nothing)
        };
        port.start(event_loop, "registry.end_request", work)
    }
}

/// The closings of this node's sessions.
#[pyclass(frozen, module = "mcp_sessions._native")]
pub(crate) struct Closings {
    core: Native<Arc<mcp_sessions::Closings>>,
}

#[pymethods]
impl Closings {
    /// `[session, reason]`; `None` at the end; or `(number, future)` for `resume`.
    fn next<'py>(&self, event_loop: Given<'_, 'py>, port: &Port) -> Later<'py> {
        let closings = self.core.get("registry.closings")?.clone();
        port.take(event_loop, "registry.closings", async move {
            let closing = closings.next().await;
            Reply::made(move |py| match closing {
                Some(closing) => {
                    Ok(PyList::new(py, [closing.session.as_str(), &*closing.reason])?.into_any())
                }
                None => Ok(py.None().into_bound(py)),
            })
        })
    }
}
