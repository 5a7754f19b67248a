//! What went wrong, in the engine's words.

use redis::{RedisError, ServerError, ServerErrorKind};

use crate::error::{Error, ErrorKind};

/// The connection is down, and nothing was sent.
pub(super) fn down(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "Redis can't be reached just now; it is tried again")
}

/// Whether the script has to be sent along.
pub(super) fn is_no_script(error: &ServerError) -> bool {
    error.kind() == Some(ServerErrorKind::NoScript)
}

/// An error that the server answered with: what was asked for did not happen.
pub(super) fn refused(operation: &'static str, error: &ServerError) -> Error {
    let detail = error.details().unwrap_or_default();
    let kind = match error.code() {
        "NOAUTH" | "WRONGPASS" | "NOPERM" => ErrorKind::Unauthorized,
        "WRONGTYPE" => ErrorKind::Corrupt,
        // Before Redis 7 a script's error has another one in front.
        _ if detail.contains("WRONGTYPE") => ErrorKind::Corrupt,
        "ERR" if detail.contains("user_script") => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    let message = match kind {
        ErrorKind::Unauthorized => "Redis refused the user or the command",
        ErrorKind::Corrupt => "a key of this prefix holds something else; is another program using it?",
        _ => "Redis refused the command for now",
    };
    Error::new(kind, operation, message).with_source(error.to_string())
}

/// An answer that is not of the form it should have.
pub(super) fn unreadable(operation: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, operation, "Redis gave an answer this version can't read")
}

/// A command that got no answer, after it was handed to the connection.
pub(super) fn lost(operation: &'static str, error: RedisError) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "the connection to Redis was lost before the answer came")
        .with_source(error.to_string())
        .with_unknown_outcome()
}

/// A connection that could not be made.
pub(super) fn not_connected(error: &RedisError) -> Error {
    let denied = matches!(error.kind(), redis::ErrorKind::AuthenticationFailed)
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    match denied {
        true => Error::new(ErrorKind::Unauthorized, "connect", "Redis refused the user or the password"),
        false => Error::new(ErrorKind::Unavailable, "connect", "Redis can't be reached")
            .with_source(error.to_string()),
    }
}
