//! Errors on their way to Python, where their classes are.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mcp_sessions::Error;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// What Python makes an exception of.
#[derive(Debug)]
pub(crate) struct Failure {
    code: &'static str,
    operation: &'static str,
    message: Cow<'static, str>,
    outcome_unknown: bool,
}

impl Failure {
    pub(crate) fn new(
        code: &'static str,
        operation: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Failure { code, operation, message: message.into(), outcome_unknown: false }
    }

    pub(crate) fn invalid(operation: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Failure::new("invalid_input", operation, message)
    }

    /// What is left of a panic: nobody knows what was done.
    fn panicked(operation: &'static str, panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Failure {
            code: "internal",
            operation,
            message: format!("a bug in the engine, please report it: {text}").into(),
            outcome_unknown: true,
        }
    }

    /// The same failure under another code.
    pub(crate) fn coded(self, code: &'static str) -> Self {
        Failure { code, ..self }
    }

    /// The exception.
    pub(crate) fn exception<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let make = MAKE.import(py, "mcp_sessions._errors", "make")?;
        make.call1((self.code, &*self.message, self.operation, self.outcome_unknown))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure {
            code: error.code(),
            operation: error.operation(),
            message: error.message().to_owned().into(),
            outcome_unknown: error.outcome_unknown(),
        }
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        Python::attach(|py| failure.exception(py).map_or_else(|error| error, PyErr::from_value))
    }
}

/// Runs what must not panic into Python.
pub(crate) fn guarded<T>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Failure::panicked(operation, &*panic)))
}
