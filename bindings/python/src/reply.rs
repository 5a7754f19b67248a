//! What a call comes to, and the Python objects for it.

use std::sync::Arc;

use mcp_sessions::{Health, SessionInfo};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyNone};

use crate::engine::Engine;
use crate::streams::{Event, Receipt, Stream};

/// Makes an object, with the interpreter's lock held.
type Make = Box<dyn for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>> + Send>;

/// The result of a call.
pub(crate) enum Reply {
    Nothing,
    Flag(bool),
    Count(u64),
    Text(String),
    Made(Make),
    Receipt(mcp_sessions::Receipt),
    Texts(Vec<String>),
    Info(Option<Arc<SessionInfo>>),
    Health(Health),
    Engine(mcp_sessions::Engine),
    Stream(mcp_sessions::EventStream),
    Event(Option<mcp_sessions::Event>),
    Events(Vec<mcp_sessions::Event>),
}

impl Reply {
    /// A result that knows how to become an object.
    pub(crate) fn made(
        make: impl for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>> + Send + 'static,
    ) -> Self {
        Reply::Made(Box::new(make))
    }

    /// Makes the object, while the interpreter's lock is held anyway.
    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(match self {
            Reply::Nothing => PyNone::get(py).to_owned().into_any(),
            Reply::Flag(flag) => flag.into_pyobject(py)?.to_owned().into_any(),
            Reply::Count(count) => count.into_pyobject(py)?.into_any(),
            Reply::Text(text) => text.into_pyobject(py)?.into_any(),
            Reply::Made(make) => return make(py),
            Reply::Receipt(receipt) => Bound::new(py, Receipt::from(receipt))?.into_any(),
            Reply::Texts(texts) => PyList::new(py, texts)?.into_any(),
            Reply::Info(info) => return record(py, info.as_deref()),
            Reply::Health(health) => PyList::new(
                py,
                [
                    health.ready.into_pyobject(py)?.to_owned().into_any(),
                    health.open.into_pyobject(py)?.to_owned().into_any(),
                    health.backend.into_pyobject(py)?.to_owned().into_any(),
                    health.problem.into_pyobject(py)?.into_any(),
                    health.node.into_pyobject(py)?.into_any(),
                    health.lease_left_ms.into_pyobject(py)?.into_any(),
                ],
            )?
            .into_any(),
            Reply::Engine(engine) => Bound::new(py, Engine::new(engine))?.into_any(),
            Reply::Stream(stream) => Bound::new(py, Stream::new(stream))?.into_any(),
            Reply::Event(event) => event.map(Event).into_pyobject(py)?.into_any(),
            Reply::Events(events) => {
                let list = PyList::empty(py);
                for event in events {
                    list.append(Bound::new(py, Event(event))?)?;
                }
                list.into_any()
            }
        })
    }
}

/// A session's info: its fields as JSON or text, in the order of Python's `SessionInfo`.
pub(crate) fn record<'py>(py: Python<'py>, info: Option<&SessionInfo>) -> PyResult<Bound<'py, PyAny>> {
    let Some(info) = info else { return Ok(PyNone::get(py).to_owned().into_any()) };
    let json = |json: &Option<mcp_sessions::Json>| json.as_ref().map(|json| json.as_str().to_owned());
    let fields = [
        json(&info.client_info),
        json(&info.client_capabilities),
        info.log_level.map(|level| level.as_str().to_owned()),
        info.protocol_version.clone(),
        json(&info.initialize_params),
    ];
    Ok(PyList::new(py, fields)?.into_any())
}
