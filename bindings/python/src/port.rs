//! What one event loop waits for: calls are polled where they are awaited, on the loop's own thread.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use tokio::runtime::Handle;

use crate::bell::Signals;
use crate::failure::{Failure, guarded};
use crate::reply::Reply;
use crate::runtime::{self, Native};

/// A call on its way.
type Work = Pin<Box<dyn Future<Output = Result<Reply, Failure>> + Send>>;

/// What becomes of a call that is woken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// It goes on at once, for its future.
    GoesOn,
    /// It takes something out of a source: only whoever waits goes on with it, so that a wait that is
    /// cancelled at that moment has taken nothing.
    IsTold,
}

struct Waiting {
    operation: &'static str,
    work: Work,
    woken: Woken,
    future: Py<PyAny>,
}

/// The calls that one event loop waits for.
#[pyclass(frozen, weakref, module = "mcp_sessions._native")]
pub(crate) struct Port {
    inner: Native<Inner>,
}

struct Inner {
    signals: Arc<Signals>,
    runtime: Handle,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, operation: &'static str, work: &mut Work, call: u64) -> Poll<Result<Reply, Failure>> {
        let _entered = self.runtime.enter();
        let waker = self.signals.waker(call);
        let polled = guarded(operation, || match work.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => result.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        });
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(reply)) => Poll::Ready(Ok(reply)),
            Err(failure) => Poll::Ready(Err(failure)),
        }
    }

    /// Runs a call until it has to wait: its result, or `(number, future)`.
    fn run<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        call: u64,
        operation: &'static str,
        mut work: Work,
        woken: Woken,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        if let Poll::Ready(outcome) = self.poll(operation, &mut work, call) {
            return outcome?.into_python(py);
        }
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        let waiting = Waiting { operation, work, woken, future: future.clone().unbind() };
        self.waiting().insert(call, waiting);
        Ok((call, future).into_pyobject(py)?.into_any())
    }

    /// One call was woken.
    fn go_on(&self, py: Python<'_>, call: u64) -> PyResult<()> {
        let known = self.waiting().get(&call).map(|it| (it.woken, it.future.clone_ref(py).into_bound(py)));
        let Some((woken, future)) = known else { return Ok(()) };
        let done = future.call_method0(intern!(py, "done"))?.is_truthy()?;
        if woken == Woken::IsTold {
            if !done {
                future.call_method1(intern!(py, "set_result"), (py.None(),))?;
            }
            return Ok(());
        }
        let Some(mut waiting) = self.waiting().remove(&call) else { return Ok(()) };
        if done {
            // It was cancelled, and its call with it.
            return Ok(());
        }
        let Poll::Ready(outcome) = self.poll(waiting.operation, &mut waiting.work, call) else {
            self.waiting().insert(call, waiting);
            return Ok(());
        };
        match outcome.map_err(PyErr::from).and_then(|reply| reply.into_python(py)) {
            Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
            Err(error) => future.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?,
        };
        Ok(())
    }
}

impl Port {
    fn inner(&self, operation: &'static str) -> Result<&Inner, Failure> {
        self.inner.get(operation)
    }

    /// Runs a call until it has to wait: its result, or `(number, future)`.
    pub(crate) fn start<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        operation: &'static str,
        work: impl Future<Output = Result<Reply, Failure>> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.begin(event_loop, operation, Box::pin(work), Woken::GoesOn)
    }

    /// The same of one that takes something out of a source: when it has to wait, it is gone on with by
    /// `resume`.
    pub(crate) fn take<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        operation: &'static str,
        next: impl Future<Output = Reply> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.begin(event_loop, operation, Box::pin(async move { Ok(next.await) }), Woken::IsTold)
    }

    fn begin<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        operation: &'static str,
        work: Work,
        woken: Woken,
    ) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner(operation)?;
        let call = inner.next.fetch_add(1, Ordering::Relaxed);
        inner.run(event_loop, call, operation, work, woken)
    }
}

#[pymethods]
impl Port {
    /// A port without anything to wait for.
    #[new]
    fn new() -> PyResult<Self> {
        let fail =
            |cause| Failure::new("unavailable", "connect", format!("no socket could be made: {cause}"));
        let inner = Inner {
            signals: Signals::new().map_err(fail)?,
            runtime: runtime::handle()?,
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
        };
        Ok(Port { inner: Native::new(inner) })
    }

    /// The descriptor that becomes readable when `drain` has something to do.
    fn fileno(&self) -> PyResult<i64> {
        Ok(self.inner("port")?.signals.descriptor())
    }

    /// Whether it was made in this process, and not before a fork.
    fn is_usable(&self) -> bool {
        self.inner("port").is_ok()
    }

    /// Goes on with every call that can; their futures are done afterwards.
    fn drain(&self, py: Python<'_>) {
        let Ok(inner) = self.inner("port") else { return };
        for call in inner.signals.take() {
            // One that fails, on a loop that was closed, does not keep the others.
            if let Err(error) = inner.go_on(py, call) {
                error.write_unraisable(py, None);
            }
        }
    }

    /// Goes on with a call that takes something, once it was woken: its result, or `(number, future)`.
    fn resume<'py>(&self, event_loop: &Bound<'py, PyAny>, call: u64) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner("port")?;
        let waiting = inner.waiting().remove(&call);
        let Some(Waiting { operation, work, woken, .. }) = waiting else {
            return Err(Failure::new("closed", "port", "this call was dropped").into());
        };
        inner.run(event_loop, call, operation, work, woken)
    }

    /// Drops a call that nobody waits for any more.
    fn cancel(&self, call: u64) {
        let Ok(inner) = self.inner("port") else { return };
        let waiting = inner.waiting().remove(&call);
        let _entered = inner.runtime.enter();
        drop(waiting);
    }

    /// How many calls are waited for.
    fn waiting(&self) -> usize {
        self.inner("port").map_or(0, |inner| inner.waiting().len())
    }

    /// What a thread can wait for where a loop cannot watch a descriptor.
    fn doorbell(&self) -> PyResult<Doorbell> {
        let signals = self.inner("port")?.signals.clone();
        Ok(Doorbell { signals: Native::new(signals) })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(inner) = self.inner("port")
            && let Ok(waiting) = inner.waiting.try_lock()
        {
            for one in waiting.values() {
                visit.call(&one.future)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        if let Ok(inner) = self.inner("port") {
            let dropped = std::mem::take(&mut *inner.waiting());
            drop(dropped);
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Ok(inner) = self.inner("port") {
            inner.signals.stop();
        }
    }
}

/// For loops that watch no descriptors: a thread of Python's waits here.
#[pyclass(frozen, module = "mcp_sessions._native")]
pub(crate) struct Doorbell {
    signals: Native<Arc<Signals>>,
}

#[pymethods]
impl Doorbell {
    /// Waits until the port has something to drain; false once there is no port any more.
    fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        let signals = self.signals.get("port")?.clone();
        Ok(py.detach(|| signals.wait()))
    }
}
