//! The extension module under the Python package `mcp_sessions`.
//!
//! It moves text and numbers; types, errors and documentation are Python's. An event loop has a
//! *port*; a call takes the loop and its port, is polled where it is made, and comes back either as
//! its result or as `(number, future)`. What could go on since is told to the loop once a batch, and
//! goes on there: no thread of the engine takes the interpreter's lock.

mod bell;
mod engine;
mod events;
mod failure;
mod port;
mod registry;
mod reply;
mod runtime;
mod streams;
mod subscriptions;
mod text;

/// The extension module of mcp_sessions.
#[pyo3::pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::engine::{Engine, connect};
    #[pymodule_export]
    use crate::events::{Events, Tail};
    #[pymodule_export]
    use crate::port::{Doorbell, Port};
    #[pymodule_export]
    use crate::registry::{Closings, Registry, Request};
    #[pymodule_export]
    use crate::streams::{Event, Receipt, Stream};
    #[pymodule_export]
    use crate::subscriptions::Subscription;

    /// The version of the engine.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// How it was built: `release` or `debug`.
    #[pymodule_export]
    const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

    /// The backends it has.
    #[pyfunction]
    fn backends() -> Vec<&'static str> {
        vec!["cloudflare", "memory", "postgres", "redis"]
    }

    /// Called in the child of a fork.
    #[pyfunction]
    fn forked() {
        crate::runtime::forked();
    }

    /// Panics, for the test that no panic gets out.
    #[pyfunction]
    fn panic_for_test() -> PyResult<()> {
        Ok(crate::failure::guarded("panic", || panic!("on purpose"))?)
    }
}
