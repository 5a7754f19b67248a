//! The event log under the SDKs' event stores.

use std::sync::Arc;

use mcp_sessions::{EventLog, EventTail, LoggedEvent, Replay};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::engine::Engine;
use crate::failure::{Failure, guarded};
use crate::port::Port;
use crate::reply::Reply;
use crate::runtime::Native;
use crate::text::{session, text};

type Later<'py> = PyResult<Bound<'py, PyAny>>;

/// The events of one session's streams.
#[pyclass(frozen, module = "mcp_sessions._native")]
pub(crate) struct Events {
    core: Native<EventLog>,
}

impl Events {
    pub(crate) fn of(engine: &mcp_sessions::Engine, scope: &Bound<'_, PyAny>) -> Result<Self, Failure> {
        Ok(Events { core: Native::new(engine.events(&session(scope, "events")?)) })
    }

    fn core(&self) -> Result<EventLog, Failure> {
        self.core.get("events").cloned()
    }
}

const STREAM: &str = "a stream's name";
const ID: &str = "an event id";

impl Events {
    /// A call about one stream, by its name or by an id of its events.
    fn about<'py, F: Future<Output = Result<Reply, Failure>> + Send + 'static>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        port: &Port,
        operation: &'static str,
        (what, name): (&str, &Bound<'py, PyAny>),
        work: impl FnOnce(EventLog, String) -> F,
    ) -> Later<'py> {
        let (log, name) = (self.core()?, text(name, what, operation)?.to_owned());
        port.start(event_loop, operation, work(log, name))
    }
}

#[pymethods]
impl Events {
    /// Appends `m` (a message), `p` (a priming event) or `e` (the end of the stream): its id.
    fn append<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        port: &Port,
        stream: &Bound<'py, PyAny>,
        kind: char,
        payload: &Bound<'py, PyAny>,
    ) -> Later<'py> {
        let payload = text(payload, "a payload", "events.append")?.to_owned();
        self.about(event_loop, port, "events.append", (STREAM, stream), |log, stream| async move {
            let id = match kind {
                'm' => log.append(&stream, &payload).await?,
                'p' => log.prime(&stream).await?,
                _ => log.end(&stream).await?,
            };
            Ok(Reply::Text(id.as_str().to_owned()))
        })
    }

    /// The stream an id belongs to.
    fn stream_of(&self, id: &Bound<'_, PyAny>) -> PyResult<String> {
        let log = self.core()?;
        let id = text(id, ID, "events.stream_of")?;
        Ok(guarded("events.stream_of", || Ok(log.stream_of(id)?))?)
    }

    /// `[stream, [id, payload, …], gap, ended]`.
    fn replay<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        port: &Port,
        after: &Bound<'py, PyAny>,
    ) -> Later<'py> {
        self.about(event_loop, port, "events.replay", (ID, after), |log, after| async move {
            let replay = log.replay(&after).await?;
            Ok(Reply::made(move |py| replayed(py, &replay)))
        })
    }

    /// All that is kept of a stream, as by `replay`.
    fn read<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        port: &Port,
        stream: &Bound<'py, PyAny>,
    ) -> Later<'py> {
        self.about(event_loop, port, "events.read", (STREAM, stream), |log, stream| async move {
            let replay = log.read(&stream).await?;
            Ok(Reply::made(move |py| replayed(py, &replay)))
        })
    }

    /// A `Tail`.
    fn tail<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        port: &Port,
        after: &Bound<'py, PyAny>,
    ) -> Later<'py> {
        self.about(event_loop, port, "events.tail", (ID, after), |log, after| async move {
            Ok(Tail::made(log.tail(&after).await?))
        })
    }

    /// A `Tail` that begins where the last one stopped.
    fn follow<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        port: &Port,
        stream: &Bound<'py, PyAny>,
    ) -> Later<'py> {
        self.about(event_loop, port, "events.follow", (STREAM, stream), |log, stream| async move {
            Ok(Tail::made(log.follow(&stream).await?))
        })
    }

    /// Forgets a stream.
    fn forget<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        port: &Port,
        stream: &Bound<'py, PyAny>,
    ) -> Later<'py> {
        self.about(event_loop, port, "events.forget", (STREAM, stream), |log, stream| async move {
            Ok(Reply::Flag(log.forget(&stream).await?))
        })
    }

    /// Forgets all streams; how many there were.
    fn forget_all<'py>(&self, event_loop: &Bound<'py, PyAny>, port: &Port) -> Later<'py> {
        let log = self.core()?;
        let work = async move { Ok(Reply::Count(log.forget_all().await?)) };
        port.start(event_loop, "events.forget", work)
    }
}

#[pymethods]
impl Engine {
    /// The events of one session's streams.
    fn events(&self, scope: &Bound<'_, PyAny>) -> PyResult<Events> {
        Ok(Events::of(self.core("events")?, scope)?)
    }
}

fn pair<'py>(py: Python<'py>, event: &LoggedEvent) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, [event.id().as_str(), event.payload()])
}

fn replayed<'py>(py: Python<'py>, replay: &Replay) -> PyResult<Bound<'py, PyAny>> {
    let events = PyList::empty(py);
    for event in &replay.events {
        events.append(pair(py, event)?)?;
    }
    let parts = [
        PyString::new(py, &replay.stream).into_any(),
        events.into_any(),
        replay.gap.into_pyobject(py)?.to_owned().into_any(),
        replay.ended.into_pyobject(py)?.to_owned().into_any(),
    ];
    Ok(PyList::new(py, parts)?.into_any())
}

/// A stream of events as it grows. Giving it up leaves the stream as it is.
#[pyclass(frozen, weakref, module = "mcp_sessions._native")]
pub(crate) struct Tail {
    core: Native<Arc<EventTail>>,
}

impl Tail {
    fn made(tail: EventTail) -> Reply {
        let tail = Arc::new(tail);
        Reply::made(move |py| Ok(Bound::new(py, Tail { core: Native::new(tail) })?.into_any()))
    }

    fn core(&self) -> Result<&Arc<EventTail>, Failure> {
        self.core.get("events")
    }
}

#[pymethods]
impl Tail {
    /// The stream.
    fn stream(&self) -> PyResult<String> {
        Ok(self.core()?.stream().to_owned())
    }

    /// Whether something before the first event is lost.
    fn gap(&self) -> PyResult<bool> {
        Ok(self.core()?.gap())
    }

    /// Why it ended, if it has.
    fn end(&self) -> PyResult<Option<&'static str>> {
        Ok(self.core()?.end().map(mcp_sessions::EndReason::as_str))
    }

    /// `[id, payload]`; `None` at the end; or `(number, future)` for `resume`.
    fn next<'py>(&self, event_loop: &Bound<'py, PyAny>, port: &Port) -> Later<'py> {
        let tail = self.core()?.clone();
        port.take(event_loop, "events.next", async move {
            let event = tail.next().await;
            Reply::made(move |py| {
                let event = event.map(|event| pair(py, &event)).transpose()?;
                Ok(event.into_pyobject(py)?.into_any())
            })
        })
    }

    /// Ends it; the stream stays as it is.
    fn close<'py>(&self, event_loop: &Bound<'py, PyAny>, port: &Port) -> Later<'py> {
        let tail = self.core()?.clone();
        let work = async move {
            tail.close().await;
            Ok(Reply::Nothing)
        };
        port.start(event_loop, "events.close", work)
    }
}
