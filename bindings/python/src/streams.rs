//! Streams and what they hand over.

use std::sync::Arc;

use mcp_sessions::{Conflict, EventKind, EventStream, OpenOptions, SendOptions, Target};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::failure::{Failure, guarded};
use crate::port::Port;
use crate::reply::Reply;
use crate::runtime::Native;
use crate::text::session;

/// What became of an event, counted in sessions (a broadcast counts once).
#[pyclass(frozen, eq, hash, get_all, module = "mcp_sessions")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Receipt {
    /// Accepted: it will be delivered, now or when the session's stream opens.
    accepted: u64,
    /// Dropped, because the session is unknown, or has no stream and history is off.
    dropped: u64,
    /// Accepted before, under the same idempotency key.
    duplicates: u64,
}

impl From<mcp_sessions::Receipt> for Receipt {
    fn from(receipt: mcp_sessions::Receipt) -> Self {
        let mcp_sessions::Receipt { accepted, dropped, duplicates, .. } = receipt;
        Receipt { accepted, dropped, duplicates }
    }
}

#[pymethods]
impl Receipt {
    fn __repr__(&self) -> String {
        let Receipt { accepted, dropped, duplicates } = self;
        format!("Receipt(accepted={accepted}, dropped={dropped}, duplicates={duplicates})")
    }
}

/// One event as a stream hands it over.
#[pyclass(frozen, module = "mcp_sessions")]
pub(crate) struct Event(pub(crate) mcp_sessions::Event);

#[pymethods]
impl Event {
    /// The payload as it was sent.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, self.0.payload())
    }

    /// The cursor to resume after this event.
    #[getter]
    fn cursor<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, self.0.cursor().as_str())
    }

    /// Whether it was sent to this session (or a list with it), or to all.
    #[getter]
    fn kind(&self) -> &'static str {
        match self.0.kind() {
            EventKind::Directed => "directed",
            EventKind::Broadcast => "broadcast",
        }
    }

    // Payloads are the users' data: only their size is shown.
    fn __repr__(&self) -> String {
        format!("<Event {} of {} bytes>", self.kind(), self.0.payload().len())
    }
}

pub(crate) fn open_options(after: Option<&str>, reject: bool) -> OpenOptions {
    let options = OpenOptions::default().conflict(if reject { Conflict::Reject } else { Conflict::Replace });
    match after {
        Some(cursor) => options.after(cursor),
        None => options,
    }
}

pub(crate) fn send_options(key: Option<&str>) -> SendOptions {
    match key {
        Some(key) => SendOptions::default().idempotency_key(key),
        None => SendOptions::default(),
    }
}

/// A session id, a list of them, or all.
pub(crate) fn target(to: Option<&Bound<'_, PyAny>>) -> Result<Target, Failure> {
    let operation = "streams.send";
    let Some(to) = to else { return Ok(Target::All) };
    match to.cast::<PyList>() {
        Ok(list) => {
            let ids: Result<Vec<_>, _> = list.iter().map(|id| session(&id, operation)).collect();
            Ok(Target::Sessions(ids?))
        }
        Err(_) => Ok(Target::Session(session(to, operation)?)),
    }
}

/// The one stream of a session. Giving it up gives the session back.
#[pyclass(frozen, weakref, module = "mcp_sessions._native")]
pub(crate) struct Stream {
    core: Native<Arc<EventStream>>,
}

impl Stream {
    pub(crate) fn new(stream: EventStream) -> Self {
        Stream { core: Native::new(Arc::new(stream)) }
    }

    fn core(&self) -> Result<&Arc<EventStream>, Failure> {
        self.core.get("streams")
    }

    fn next_now(&self) -> Result<Option<Event>, Failure> {
        let stream = self.core()?;
        guarded("streams.next", || Ok(stream.try_next().map(Event)))
    }
}

#[pymethods]
impl Stream {
    /// Whether something before the first event is lost.
    fn gap(&self) -> PyResult<bool> {
        Ok(self.core()?.gap())
    }

    /// The cursor after the last event read, or of the start.
    fn cursor<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        Ok(PyString::new(py, self.core()?.cursor().as_str()))
    }

    /// Why it ended, if it has.
    fn end(&self) -> PyResult<Option<&'static str>> {
        Ok(self.core()?.end().map(mcp_sessions::EndReason::as_str))
    }

    /// The next event if there is one already.
    fn try_next(&self) -> PyResult<Option<Event>> {
        Ok(self.next_now()?)
    }

    /// The next event; `None` at the end; or `(number, future)` for `resume`.
    fn next<'py>(&self, event_loop: &Bound<'py, PyAny>, port: &Port) -> PyResult<Bound<'py, PyAny>> {
        if let Some(event) = self.next_now()? {
            return Ok(Bound::new(event_loop.py(), event)?.into_any());
        }
        let stream = self.core()?.clone();
        port.take(event_loop, "streams.next", async move { Reply::Event(stream.next().await) })
    }

    /// A list of the next events, up to `limit`, empty at the end; or `(number, future)` for `resume`.
    fn next_batch<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        port: &Port,
        limit: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let stream = self.core()?.clone();
        port.take(event_loop, "streams.next", async move { Reply::Events(stream.next_batch(limit).await) })
    }

    /// Why it ended.
    fn ended<'py>(&self, event_loop: &Bound<'py, PyAny>, port: &Port) -> PyResult<Bound<'py, PyAny>> {
        let stream = self.core()?.clone();
        let work = async move { Ok(Reply::Text(stream.ended().await.as_str().to_owned())) };
        port.start(event_loop, "streams.ended", work)
    }

    /// Ends it; what was not read waits for the next one.
    fn close<'py>(&self, event_loop: &Bound<'py, PyAny>, port: &Port) -> PyResult<Bound<'py, PyAny>> {
        let stream = self.core()?.clone();
        let work = async move {
            stream.close().await;
            Ok(Reply::Nothing)
        };
        port.start(event_loop, "streams.close", work)
    }
}
