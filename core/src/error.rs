//! The one error type: what failed, on what, and what to do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// What kind of failure this is; its [code](ErrorKind::code) is the same in every language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument breaks a rule; nothing was done.
    InvalidInput,
    /// What was asked for does not exist (any more).
    NotFound,
    /// Somebody else holds what was asked for.
    Conflict,
    /// A payload, URI or document is over its limit; nothing was done.
    TooLarge,
    /// The backend or the owner check refused the caller.
    Unauthorized,
    /// The backend can't be reached just now.
    Unavailable,
    /// A deadline passed first.
    Timeout,
    /// The engine was shut down.
    Closed,
    /// The backend holds data this engine can't read.
    Corrupt,
    /// A URL or an option makes no sense.
    Config,
}

impl ErrorKind {
    /// All there are.
    pub const ALL: &'static [ErrorKind] = &[
        ErrorKind::InvalidInput,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::TooLarge,
        ErrorKind::Unauthorized,
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::Closed,
        ErrorKind::Corrupt,
        ErrorKind::Config,
    ];

    /// The stable code of this kind, as every language shows it.
    pub const fn code(self) -> &'static str {
        match self {
            ErrorKind::InvalidInput => "invalid_input",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::TooLarge => "too_large",
            ErrorKind::Unauthorized => "unauthorized",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Closed => "closed",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Config => "config",
        }
    }

    /// Whether the same call can succeed later without a change by the caller.
    pub const fn retryable(self) -> bool {
        matches!(self, ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A failed operation of the engine.
///
/// It says what failed ([operation](Error::operation)), whether a retry can help
/// ([retryable](Error::retryable)) and whether the operation may have happened all the same
/// ([outcome_unknown](Error::outcome_unknown); guarantee G5).
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    message: Cow<'static, str>,
    outcome_unknown: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of an engine's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` in `operation`, with a message for people.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner {
            kind,
            operation,
            message: message.into(),
            outcome_unknown: false,
            source: None,
        }))
    }

    /// The same error, noting that the operation may have happened all the same.
    #[must_use]
    pub fn with_unknown_outcome(mut self) -> Self {
        self.0.outcome_unknown = true;
        self
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable code of the kind.
    pub fn code(&self) -> &'static str {
        self.0.kind.code()
    }

    /// Whether the same call can succeed later.
    pub fn retryable(&self) -> bool {
        self.0.kind.retryable()
    }

    /// Whether the operation may have happened although it failed; retry with the same idempotency key.
    pub fn outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// The operation that failed, such as `streams.send`.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The message without the operation in front.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub(crate) fn invalid(operation: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(ErrorKind::InvalidInput, operation, message)
    }

    pub(crate) fn too_large(operation: &'static str, what: &str, size: usize, limit: usize) -> Self {
        Error::new(ErrorKind::TooLarge, operation, format!("{what} is {size} bytes, the limit is {limit}"))
    }

    pub(crate) fn closed(operation: &'static str) -> Self {
        Error::new(ErrorKind::Closed, operation, "the engine was shut down; connect a new one")
    }

    /// A copy for each caller that waited on one shared operation (sources are kept as text).
    pub(crate) fn duplicate(&self) -> Self {
        let copy = Error::new(self.kind(), self.operation(), self.message().to_owned());
        let copy = match &self.0.source {
            Some(source) => copy.with_source(source.to_string()),
            None => copy,
        };
        if self.outcome_unknown() { copy.with_unknown_outcome() } else { copy }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.operation, self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_list_in_the_docs_is_complete() {
        let rows = include_str!("lib.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let told: Vec<_> = rows.filter(|row| row.ends_with("| yes |") || row.ends_with("| no |")).collect();
        assert_eq!(told.len(), ErrorKind::ALL.len());
        for (row, kind) in told.iter().zip(ErrorKind::ALL) {
            assert!(row.starts_with(&format!("{kind}`")), "{row} is not {kind}");
            assert_eq!(row.ends_with("| yes |"), kind.retryable(), "{row}");
        }
    }
}
