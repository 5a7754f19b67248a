//! Subscriptions of the modern era.

use std::sync::Arc;

use mcp_sessions::{Engine, RequestId, SubscriptionEnd, SubscriptionFilter, SubscriptionKey};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::failure::{Failure, guarded};
use crate::port::Port;
use crate::reply::Reply;
use crate::runtime::Native;
use crate::text::text;

/// Registers a subscription; `id` and `filters` are JSON.
pub(crate) fn listen(
    engine: &Engine,
    id: &Bound<'_, PyAny>,
    origin: &Bound<'_, PyAny>,
    filters: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Subscription>> {
    let operation = "subscriptions.create";
    let key = key(id, origin, operation)?;
    let filter = match filters {
        Some(filters) => SubscriptionFilter::from_json(text(filters, "a filter", operation)?),
        None => Ok(SubscriptionFilter::everything()),
    };
    let filter = filter.map_err(Failure::from)?;
    let created = guarded(operation, || Ok(engine.subscriptions().create(key, filter)?))?;
    Ok(created.map(|live| Subscription { core: Native::new(Arc::new(live)) }))
}

pub(crate) fn end(
    engine: &Engine,
    id: &Bound<'_, PyAny>,
    origin: &Bound<'_, PyAny>,
    reason: &str,
) -> PyResult<bool> {
    let operation = "subscriptions.close";
    let (key, reason) = (key(id, origin, operation)?, reason_of(reason)?);
    Ok(guarded(operation, || Ok(engine.subscriptions().close(&key, reason)))?)
}

pub(crate) fn end_all(engine: &Engine, origin: Option<&Bound<'_, PyAny>>, reason: &str) -> PyResult<usize> {
    let operation = "subscriptions.close";
    let origin = origin.map(|origin| text(origin, "an origin", operation)).transpose()?;
    let reason = reason_of(reason)?;
    Ok(guarded(operation, || Ok(engine.subscriptions().close_all(origin, reason)))?)
}

fn key(
    id: &Bound<'_, PyAny>,
    origin: &Bound<'_, PyAny>,
    operation: &'static str,
) -> Result<SubscriptionKey, Failure> {
    let id = RequestId::from_json(text(id, "a JSON-RPC id", operation)?)?;
    Ok(SubscriptionKey::new(id, text(origin, "an origin", operation)?))
}

fn reason_of(reason: &str) -> Result<SubscriptionEnd, Failure> {
    match reason {
        "closed" => Ok(SubscriptionEnd::Closed),
        "cancelled" => Ok(SubscriptionEnd::Cancelled),
        _ => Err(Failure::invalid("subscriptions.close", "a subscription is closed or cancelled")),
    }
}

/// One subscription of this node. Giving it up cancels it.
#[pyclass(frozen, weakref, module = "mcp_sessions._native")]
pub(crate) struct Subscription {
    core: Native<Arc<mcp_sessions::Subscription>>,
}

impl Subscription {
    fn core(&self) -> Result<&Arc<mcp_sessions::Subscription>, Failure> {
        self.core.get("subscriptions")
    }
}

#[pymethods]
impl Subscription {
    /// The acknowledgement was written.
    fn acknowledge(&self) -> PyResult<()> {
        self.core()?.acknowledge();
        Ok(())
    }

    /// Why it ended, if it has.
    fn end(&self) -> PyResult<Option<&'static str>> {
        Ok(self.core()?.end().map(SubscriptionEnd::as_str))
    }

    /// The next notification as JSON; `None` at the end; or `(number, future)` for `resume`.
    fn next<'py>(&self, event_loop: &Bound<'py, PyAny>, port: &Port) -> PyResult<Bound<'py, PyAny>> {
        let subscription = self.core()?.clone();
        port.take(event_loop, "subscriptions.next", async move {
            let notification = subscription.next().await;
            Reply::made(move |py| {
                let json = notification.map(|notification| PyString::new(py, &notification));
                Ok(json.into_pyobject(py)?.into_any())
            })
        })
    }

    /// Why it ended.
    fn ended<'py>(&self, event_loop: &Bound<'py, PyAny>, port: &Port) -> PyResult<Bound<'py, PyAny>> {
        let subscription = self.core()?.clone();
        let work = async move { Ok(Reply::Text(subscription.ended().await.as_str().to_owned())) };
        port.start(event_loop, "subscriptions.ended", work)
    }

    /// Cancels it.
    fn close(&self) -> PyResult<()> {
        self.core()?.close();
        Ok(())
    }
}
