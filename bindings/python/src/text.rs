//! Text from Python: what is none, or no Unicode, is `invalid_input`, and nothing was done.

use mcp_sessions::SessionId;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::failure::Failure;

/// Text that Python lends for the length of a call.
pub(crate) fn text<'a>(
    value: &'a Bound<'_, PyAny>,
    what: &str,
    operation: &'static str,
) -> Result<&'a str, Failure> {
    let Ok(value) = value.cast::<PyString>() else {
        let kind = value.get_type().name().map_or_else(|_| "something else".into(), |name| name.to_string());
        return Err(Failure::invalid(operation, format!("{what} is a str, not {kind}")));
    };
    value.to_str().map_err(|_| {
        Failure::invalid(operation, format!("{what} has a lone surrogate, which is not valid Unicode"))
    })
}

pub(crate) fn optional<'a>(
    value: Option<&'a Bound<'_, PyAny>>,
    what: &str,
    operation: &'static str,
) -> Result<Option<&'a str>, Failure> {
    value.map(|value| text(value, what, operation)).transpose()
}

/// A session id.
pub(crate) fn session(value: &Bound<'_, PyAny>, operation: &'static str) -> Result<SessionId, Failure> {
    SessionId::new(text(value, "a session id", operation)?)
        .map_err(|error| Failure::invalid(operation, error.message().to_owned()))
}
