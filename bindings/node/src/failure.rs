//! Errors on their way to JavaScript: tagged values, because asynchronous napi errors lose their codes.

use mcp_sessions::{Error, ErrorKind};
use serde::Serialize;

/// What TypeScript makes an error object of.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failure {
    code: &'static str,
    message: String,
    operation: String,
    retryable: bool,
    outcome_unknown: bool,
}

impl Failure {
    pub(crate) fn json(&self) -> String {
        // Strings and booleans always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// An argument that TypeScript should not have let through.
    pub(crate) fn invalid(operation: &'static str, message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidInput, operation, message.into()).into()
    }

    pub(crate) fn closed(operation: &'static str) -> Self {
        Error::new(ErrorKind::Closed, operation, "the engine was closed").into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure {
            code: error.code(),
            message: error.message().to_owned(),
            operation: error.operation().to_owned(),
            retryable: error.retryable(),
            outcome_unknown: error.outcome_unknown(),
        }
    }
}
