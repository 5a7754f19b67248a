//! What went wrong, in the engine's words.

use tokio_postgres::error::{DbError, SqlState};

use crate::error::{Error, ErrorKind};

/// The connection is down, and nothing was sent.
pub(super) fn down(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "Postgres can't be reached just now; it is tried again")
}

/// Another node may hold what this one held; nothing was done.
pub(super) fn no_lease(operation: &'static str) -> Error {
    let message = "this node's lease has run out; it is renewed shortly";
    Error::new(ErrorKind::Unavailable, operation, message)
}

/// An answer that is not of the form it should have.
pub(super) fn unreadable(operation: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, operation, "Postgres gave an answer this version can't read")
}

/// The connection should not be used any more: the server goes down, or takes no writes.
pub(super) fn ends_connection(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        None => error.is_closed() || has_io(error),
        Some(error) => {
            let code = error.code().code();
            code.starts_with("08")
                || code.starts_with("57P")
                || *error.code() == SqlState::READ_ONLY_SQL_TRANSACTION
                // Somebody between has given the connection to others.
                || *error.code() == SqlState::INVALID_SQL_STATEMENT_NAME
        }
    }
}

fn has_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

/// Whether the server has no room for another notification.
pub(super) fn is_full_queue(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::PROGRAM_LIMIT_EXCEEDED)
}

/// Whether the same can be asked again at once: nothing happened.
pub(super) fn is_collision(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE))
}

/// A statement that failed.
pub(super) fn failed(operation: &'static str, error: &tokio_postgres::Error) -> Error {
    let Some(db) = error.as_db_error() else {
        let lost = "the connection to Postgres was lost before the answer came";
        return Error::new(ErrorKind::Unavailable, operation, lost)
            .with_source(error.to_string())
            .with_unknown_outcome();
    };
    let (kind, message) = meaning(db);
    let failed = Error::new(kind, operation, message).with_source(source(db));
    // The server was on its way down; it may have committed.
    if db.code().code().starts_with("57P") { failed.with_unknown_outcome() } else { failed }
}

/// A detail may show what was stored.
fn source(db: &DbError) -> String {
    format!("{} ({})", db.message(), db.code().code())
}

fn meaning(db: &DbError) -> (ErrorKind, &'static str) {
    let code = db.code().code();
    match code {
        "TM404" => {
            (ErrorKind::NotFound, "the session has been closed; answer 404, and the client starts a new one")
        }
        "42501" => (ErrorKind::Unauthorized, "Postgres does not let this user do that"),
        "25006" => {
            (ErrorKind::Unavailable, "Postgres takes no writes just now: it is a standby or read-only")
        }
        "55P03" => (ErrorKind::Unavailable, "another program holds a lock on this session for too long"),
        "42P01" | "42883" | "42703" | "3F000" => (
            ErrorKind::Corrupt,
            "a table or function of this schema is missing or was changed; was it dropped?",
        ),
        "22021" | "22P05" => {
            (ErrorKind::InvalidInput, "this database can't store that text; its encoding has to be UTF8")
        }
        "54000" => (
            ErrorKind::Unavailable,
            "the server has no room for another notification; is a client that listens in a transaction for long?",
        ),
        "53100" => (ErrorKind::Unavailable, "the disk of the Postgres server is full"),
        _ if code.starts_with("28") => (ErrorKind::Unauthorized, "Postgres refused the user or the password"),
        _ if ["08", "25", "40", "53", "54", "55", "57", "58"].iter().any(|class| code.starts_with(class)) => {
            (ErrorKind::Unavailable, "Postgres refused the statement for now")
        }
        _ => (ErrorKind::Corrupt, "what is stored in this schema is not as it should be"),
    }
}

/// A connection that could not be made.
pub(super) fn not_connected(error: &tokio_postgres::Error) -> Error {
    let refuse = |kind, message| Error::new(kind, "connect", message);
    match error.code().map(SqlState::code) {
        Some(code) if code.starts_with("28") => {
            refuse(ErrorKind::Unauthorized, "Postgres refused the user or the password")
        }
        Some("3D000") => refuse(ErrorKind::Config, "the database of this URL does not exist"),
        Some("53300") => {
            refuse(ErrorKind::Unavailable, "Postgres has no connection left; raise max_connections")
        }
        _ => refuse(ErrorKind::Unavailable, "Postgres can't be reached").with_source(chain(error)),
    }
}

/// All that is said of why; the first alone says little.
fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}
