//! What went wrong, in the engine's words.

use redis::{RedisError, ServerError, ServerErrorKind};

use crate::error::{Error, ErrorKind};
use crate::session::SessionId;

/// The connection is down, and nothing was sent.
pub(super) fn down(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "Redis can't be reached just now; it is tried again")
}

/// Another node may hold what this one held; nothing was done.
pub(super) fn no_lease(operation: &'static str) -> Error {
    let message = "this node's lease has run out; it is renewed shortly";
    Error::new(ErrorKind::Unavailable, operation, message)
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
        ErrorKind::Corrupt => "a key of this prefix holds something else",
        _ => "Redis refused the command for now",
    };
    Error::new(kind, operation, message).with_source(error.to_string())
}

/// The session was closed, and its tombstone stands.
pub(super) fn session_closed(operation: &'static str, session: &SessionId) -> Error {
    Error::new(
        ErrorKind::NotFound,
        operation,
        format!("session {session} has been closed; answer 404, and the client starts a new one"),
    )
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
    if denied {
        return Error::new(ErrorKind::Unauthorized, "connect", "Redis refused the user or the password");
    }
    let text = error.to_string();
    let message = match text.as_str() {
        _ if text.contains("NotValidForName") || text.contains("not valid for name") => {
            "the certificate that Redis showed is for another host: use a host name that it names"
        }
        _ if text.contains("invalid peer certificate") => {
            "the certificate that Redis showed can't be verified: name its authority with ca=/path.pem"
        }
        _ if text.contains("CertificateRequired") || text.contains("received fatal alert") => {
            "Redis ended the TLS handshake: if it asks for a client certificate, set cert=/path and key=/path"
        }
        _ if text.contains("corrupt message") => "Redis did not answer in TLS: is this a redis:// port?",
        _ if error.is_timeout() => {
            "Redis did not answer in time; a port with TLS is a rediss:// URL, and one without is not"
        }
        _ => "Redis can't be reached",
    };
    Error::new(ErrorKind::Unavailable, "connect", message).with_source(text)
}
