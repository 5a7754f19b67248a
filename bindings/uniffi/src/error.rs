//! The one error, as both languages show it.

use std::fmt;

use mcp_sessions::{Error, ErrorKind};

macro_rules! sessions_error {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// A failed operation. Every variant says what failed (`operation`), what is wrong with it and
        /// what to do (`reason`), whether the same call can succeed later (`retryable`), and whether it
        /// may have happened all the same (`outcome_unknown`: retry with the same idempotency key).
        #[derive(Debug, Clone, PartialEq, Eq, uniffi::Error)]
        pub enum SessionsError {
            $(
                $(#[$doc])*
                $name {
                    /// The operation that failed, such as `streams.send`.
                    operation: String,
                    /// What is wrong, and what to do.
                    reason: String,
                    /// The same call can succeed later.
                    retryable: bool,
                    /// It may have happened although it failed.
                    outcome_unknown: bool,
                },
            )*
        }

        impl fmt::Display for SessionsError {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(SessionsError::$name { operation, reason, .. } => {
                        write!(f, "{}: {operation}: {reason}", $code)
                    })*
                }
            }
        }

        impl std::error::Error for SessionsError {}

        impl From<Error> for SessionsError {
            fn from(error: Error) -> Self {
                let (operation, reason) = (error.operation().to_owned(), error.message().to_owned());
                let (retryable, outcome_unknown) = (error.retryable(), error.outcome_unknown());
                match error.kind() {
                    $(ErrorKind::$name => SessionsError::$name { operation, reason, retryable, outcome_unknown },)*
                    // A kind that is newer than this binding still says all it has to say.
                    _ => SessionsError::Corrupt { operation, reason, retryable, outcome_unknown },
                }
            }
        }

        /// The stable code of an error, the same in every language: `invalid_input`, `timeout`, …
        #[uniffi::export]
        pub fn error_code(error: &SessionsError) -> String {
            match error {
                $(SessionsError::$name { .. } => $code.to_owned(),)*
            }
        }
    };
}

sessions_error! {
    /// An argument breaks a rule; nothing was done.
    InvalidInput = "invalid_input",
    /// What was asked for does not exist (any more).
    NotFound = "not_found",
    /// Somebody else holds what was asked for.
    Conflict = "conflict",
    /// A payload, URI or document is over its limit; nothing was done.
    TooLarge = "too_large",
    /// The backend or the owner check refused the caller.
    Unauthorized = "unauthorized",
    /// The backend can't be reached just now.
    Unavailable = "unavailable",
    /// A deadline passed first.
    Timeout = "timeout",
    /// The engine was shut down.
    Closed = "closed",
    /// The backend holds data this engine can't read.
    Corrupt = "corrupt",
    /// A URL or an option makes no sense.
    Config = "config",
}

/// The result of a call.
pub(crate) type Result<T> = std::result::Result<T, SessionsError>;
