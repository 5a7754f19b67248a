//! Engines: connect, health, shutdown, and the calls of their managers.

use std::time::Duration;

use mcp_sessions::{InfoPatch, Json, Options, Stats};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::failure::{Failure, guarded};
use crate::port::Port;
use crate::reply::{Reply, record};
use crate::runtime::{self, Native};
use crate::streams;
use crate::subscriptions::{self, Subscription};
use crate::text::{optional, session, text};

/// Connects as a node of its own: an `Engine`, or `(number, future)` of one.
#[pyfunction]
pub(crate) fn connect<'py>(
    event_loop: &Bound<'py, PyAny>,
    port: &Port,
    url: &Bound<'py, PyAny>,
    options: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let config = |failure: Failure| failure.coded("config");
    let url = text(url, "a backend URL", "connect").map_err(config)?.to_owned();
    let url = runtime::of_this_process(url);
    let options = Options::from_json(options).map_err(Failure::from)?;
    let work = async move { Ok(Reply::Engine(mcp_sessions::Engine::connect(&url, options).await?)) };
    port.start(event_loop, "connect", work)
}

/// One node of a session engine.
#[pyclass(frozen, weakref, module = "mcp_sessions._native")]
pub(crate) struct Engine {
    core: Native<mcp_sessions::Engine>,
}

impl Engine {
    pub(crate) fn new(core: mcp_sessions::Engine) -> Self {
        Engine { core: Native::new(core) }
    }

    pub(crate) fn core(&self, operation: &'static str) -> Result<&mcp_sessions::Engine, Failure> {
        self.core.get(operation)
    }
}

/// A call: `|engine| async move { … }`.
macro_rules! call {
    ($self:ident, $event_loop:ident, $port:ident, $operation:literal, |$engine:ident| $work:expr) => {{
        let $engine = $self.core($operation)?.clone();
        $port.start($event_loop, $operation, async move { Ok($work) })
    }};
}

type Later<'py> = PyResult<Bound<'py, PyAny>>;
type Loop<'a, 'py> = &'a Bound<'py, PyAny>;

#[pymethods]
impl Engine {
    /// What does not change: names as in JSON.
    fn describe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let engine = self.core("engine")?;
        let (capability, options) = (engine.capability(), engine.options());
        let described = PyDict::new(py);
        described.set_item("node_id", engine.node_id().as_str())?;
        described.set_item("immediate", capability.immediate)?;
        described.set_item("merged_order", capability.merged_order)?;
        described.set_item("processes", capability.processes)?;
        described.set_item("manual_clock", capability.manual_clock)?;
        described.set_item("max_payload_bytes", options.max_payload_bytes)?;
        described.set_item("max_uri_bytes", options.max_uri_bytes)?;
        described.set_item("max_info_bytes", options.max_info_bytes)?;
        described.set_item("session_ttl_ms", options.session_ttl_ms)?;
        Ok(described)
    }

    /// What was counted, and what is held now.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats: Stats = self.core("stats")?.stats();
        let counted = PyDict::new(py);
        for (name, count) in [
            ("streams", stats.streams),
            ("subscriptions", stats.subscriptions),
            ("accepted", stats.accepted),
            ("dropped", stats.dropped),
            ("duplicates", stats.duplicates),
            ("opened", stats.opened),
            ("gaps", stats.gaps),
            ("replaced", stats.replaced),
            ("overflows", stats.overflows),
            ("fenced", stats.fenced),
            ("repairs", stats.repairs),
            ("subscription_overflows", stats.subscription_overflows),
        ] {
            counted.set_item(name, count)?;
        }
        Ok(counted)
    }

    /// Whether it was shut down.
    fn is_closed(&self) -> bool {
        self.core("engine").map_or(true, mcp_sessions::Engine::is_closed)
    }

    /// How it is.
    fn health<'py>(&self, event_loop: Loop<'_, 'py>, port: &Port) -> Later<'py> {
        call!(self, event_loop, port, "health", |engine| Reply::Health(engine.health().await))
    }

    /// Ends what it holds and leaves.
    fn shutdown<'py>(&self, event_loop: Loop<'_, 'py>, port: &Port, deadline_ms: u64) -> Later<'py> {
        call!(self, event_loop, port, "shutdown", |engine| {
            engine.shutdown(Duration::from_millis(deadline_ms)).await?;
            Reply::Nothing
        })
    }

    /// Stops as `kill -9` would.
    fn abandon(&self) -> PyResult<()> {
        let engine = self.core("abandon")?;
        Ok(guarded("abandon", || {
            engine.abandon();
            Ok(())
        })?)
    }

    /// Takes the embedded hub away from this node, or gives it back.
    fn set_outage(&self, on: bool) -> PyResult<()> {
        let engine = self.core("set_outage")?;
        Ok(guarded("set_outage", || Ok(engine.set_outage(on)?))?)
    }

    /// Moves a manual clock.
    fn advance_clock<'py>(&self, event_loop: Loop<'_, 'py>, port: &Port, ms: u64) -> Later<'py> {
        call!(self, event_loop, port, "advance_clock", |engine| {
            engine.advance_clock(Duration::from_millis(ms)).await?;
            Reply::Nothing
        })
    }

    /// Opens the stream of a session: a `Stream`.
    fn open<'py>(
        &self,
        event_loop: Loop<'_, 'py>,
        port: &Port,
        id: &Bound<'py, PyAny>,
        after: Option<&Bound<'py, PyAny>>,
        reject: bool,
    ) -> Later<'py> {
        let id = session(id, "streams.open")?;
        let options = streams::open_options(optional(after, "a cursor", "streams.open")?, reject);
        call!(self, event_loop, port, "streams.open", |engine| {
            Reply::Stream(engine.streams().open(&id, options).await?)
        })
    }

    /// Sends an event to a session, a list of sessions, or (`None`) to all: a `Receipt`.
    fn send<'py>(
        &self,
        event_loop: Loop<'_, 'py>,
        port: &Port,
        to: Option<&Bound<'py, PyAny>>,
        payload: &Bound<'py, PyAny>,
        key: Option<&Bound<'py, PyAny>>,
    ) -> Later<'py> {
        let target = streams::target(to)?;
        let payload = text(payload, "a payload", "streams.send")?;
        let options = streams::send_options(optional(key, "an idempotency key", "streams.send")?);
        let engine = self.core("streams.send")?;
        // Before anything is copied.
        let limit = engine.options().max_payload_bytes;
        if payload.len() > limit {
            let message = format!("the payload is {} bytes, the limit is {limit}", payload.len());
            return Err(Failure::new("too_large", "streams.send", message).into());
        }
        if engine.capability().immediate {
            let receipt =
                guarded("streams.send", || Ok(engine.streams().send_now(target, payload, options)?))?;
            return Reply::Receipt(receipt).into_python(event_loop.py());
        }
        let payload = mcp_sessions::Payload::from(payload);
        call!(self, event_loop, port, "streams.send", |engine| {
            Reply::Receipt(engine.streams().send(target, payload, options).await?)
        })
    }

    /// Whether a live node holds a stream of the session.
    fn has<'py>(&self, event_loop: Loop<'_, 'py>, port: &Port, id: &Bound<'py, PyAny>) -> Later<'py> {
        let id = session(id, "streams.has")?;
        call!(self, event_loop, port, "streams.has", |engine| {
            Reply::Flag(engine.streams().has(&id).await?)
        })
    }

    /// Whether the session is known.
    fn known<'py>(&self, event_loop: Loop<'_, 'py>, port: &Port, id: &Bound<'py, PyAny>) -> Later<'py> {
        let id = session(id, "streams.known")?;
        call!(self, event_loop, port, "streams.known", |engine| {
            Reply::Flag(engine.streams().known(&id).await?)
        })
    }

    /// Ends the session's stream.
    fn close<'py>(&self, event_loop: Loop<'_, 'py>, port: &Port, id: &Bound<'py, PyAny>) -> Later<'py> {
        let id = session(id, "streams.close")?;
        call!(self, event_loop, port, "streams.close", |engine| {
            Reply::Flag(engine.streams().close(&id).await?)
        })
    }

    /// Terminates the session.
    fn forget<'py>(&self, event_loop: Loop<'_, 'py>, port: &Port, id: &Bound<'py, PyAny>) -> Later<'py> {
        let id = session(id, "streams.forget")?;
        call!(self, event_loop, port, "streams.forget", |engine| {
            Reply::Flag(engine.streams().forget(&id).await?)
        })
    }

    /// All info of a session: a list of its fields, or `None`.
    fn info_get<'py>(&self, event_loop: Loop<'_, 'py>, port: &Port, id: &Bound<'py, PyAny>) -> Later<'py> {
        let id = session(id, "info.get")?;
        call!(self, event_loop, port, "info.get", |engine| Reply::Info(engine.info().get(&id).await?))
    }

    /// All info of a session, if it can be had without waiting.
    fn info_cached<'py>(&self, py: Python<'py>, id: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let id = session(id, "info.cached")?;
        let engine = self.core("info.cached")?;
        let info = guarded("info.cached", || Ok(engine.info().cached(&id)))?;
        record(py, info.as_deref())
    }

    /// Changes fields, given in the order of `SessionInfo`; those that are `None` stay.
    fn info_put<'py>(
        &self,
        event_loop: Loop<'_, 'py>,
        port: &Port,
        id: &Bound<'py, PyAny>,
        fields: [Option<Bound<'py, PyAny>>; 5],
    ) -> Later<'py> {
        let id = session(id, "info.put")?;
        let patch = patch(&fields)?;
        call!(self, event_loop, port, "info.put", |engine| {
            engine.info().put(&id, patch).await?;
            Reply::Nothing
        })
    }

    /// Deletes a session's info.
    fn info_delete<'py>(&self, event_loop: Loop<'_, 'py>, port: &Port, id: &Bound<'py, PyAny>) -> Later<'py> {
        let id = session(id, "info.delete")?;
        call!(self, event_loop, port, "info.delete", |engine| Reply::Flag(engine.info().delete(&id).await?))
    }

    /// Subscribes a session to a resource.
    fn add_subscription<'py>(
        &self,
        event_loop: Loop<'_, 'py>,
        port: &Port,
        id: &Bound<'py, PyAny>,
        uri: &Bound<'py, PyAny>,
    ) -> Later<'py> {
        let id = session(id, "info.add_subscription")?;
        let uri = text(uri, "a resource URI", "info.add_subscription")?.to_owned();
        call!(self, event_loop, port, "info.add_subscription", |engine| {
            Reply::Flag(engine.info().add_subscription(&id, &uri).await?)
        })
    }

    /// Ends a subscription to a resource.
    fn remove_subscription<'py>(
        &self,
        event_loop: Loop<'_, 'py>,
        port: &Port,
        id: &Bound<'py, PyAny>,
        uri: &Bound<'py, PyAny>,
    ) -> Later<'py> {
        let id = session(id, "info.remove_subscription")?;
        let uri = text(uri, "a resource URI", "info.remove_subscription")?.to_owned();
        call!(self, event_loop, port, "info.remove_subscription", |engine| {
            Reply::Flag(engine.info().remove_subscription(&id, &uri).await?)
        })
    }

    /// The sessions subscribed to a resource.
    fn subscribers<'py>(
        &self,
        event_loop: Loop<'_, 'py>,
        port: &Port,
        uri: &Bound<'py, PyAny>,
    ) -> Later<'py> {
        let uri = text(uri, "a resource URI", "info.subscribers")?.to_owned();
        call!(self, event_loop, port, "info.subscribers", |engine| {
            let sessions = engine.info().subscribers(&uri).await?;
            Reply::Texts(sessions.iter().map(|id| id.as_str().to_owned()).collect())
        })
    }

    /// The resources a session is subscribed to.
    fn subscriptions<'py>(
        &self,
        event_loop: Loop<'_, 'py>,
        port: &Port,
        id: &Bound<'py, PyAny>,
    ) -> Later<'py> {
        let id = session(id, "info.subscriptions")?;
        call!(self, event_loop, port, "info.subscriptions", |engine| {
            Reply::Texts(engine.info().subscriptions(&id).await?)
        })
    }

    /// Registers a subscription of the modern era; `None` when its key is taken. Without filters it gets
    /// everything.
    fn listen(
        &self,
        id: &Bound<'_, PyAny>,
        origin: &Bound<'_, PyAny>,
        filters: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Subscription>> {
        subscriptions::listen(self.core("subscriptions.create")?, id, origin, filters)
    }

    /// Sends a notification to the matching subscriptions of every node.
    fn notify<'py>(
        &self,
        event_loop: Loop<'_, 'py>,
        port: &Port,
        notification: &Bound<'py, PyAny>,
    ) -> Later<'py> {
        let json = text(notification, "a notification", "subscriptions.send")?.to_owned();
        call!(self, event_loop, port, "subscriptions.send", |engine| {
            engine.subscriptions().send(&json).await?;
            Reply::Nothing
        })
    }

    /// Ends one subscription of this node.
    fn end_subscription(
        &self,
        id: &Bound<'_, PyAny>,
        origin: &Bound<'_, PyAny>,
        reason: &str,
    ) -> PyResult<bool> {
        subscriptions::end(self.core("subscriptions.close")?, id, origin, reason)
    }

    /// Ends the subscriptions of this node, or those of one origin; how many there were.
    fn end_subscriptions(&self, origin: Option<&Bound<'_, PyAny>>, reason: &str) -> PyResult<usize> {
        subscriptions::end_all(self.core("subscriptions.close")?, origin, reason)
    }
}

fn patch(fields: &[Option<Bound<'_, PyAny>>; 5]) -> Result<InfoPatch, Failure> {
    let operation = "info.put";
    let [client_info, client_capabilities, log_level, protocol_version, initialize_params] = fields;
    let json = |field: &Option<Bound<'_, PyAny>>| {
        let written = optional(field.as_ref(), "info", operation)?;
        Ok::<_, Failure>(written.map(Json::parse).transpose()?)
    };
    let mut patch = InfoPatch::default();
    patch.client_info = json(client_info)?;
    patch.client_capabilities = json(client_capabilities)?;
    let level = optional(log_level.as_ref(), "a log level", operation)?;
    patch.log_level = level.map(str::parse).transpose()?;
    let version = optional(protocol_version.as_ref(), "a protocol version", operation)?;
    patch.protocol_version = version.map(str::to_owned);
    patch.initialize_params = json(initialize_params)?;
    Ok(patch)
}
