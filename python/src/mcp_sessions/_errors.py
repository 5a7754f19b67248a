"""Errors: one base, a class for each stable code."""

from __future__ import annotations

import builtins
from typing import ClassVar, Literal, TypeAlias

ErrorCode: TypeAlias = Literal[
    "invalid_input",
    "not_found",
    "conflict",
    "too_large",
    "unauthorized",
    "unavailable",
    "timeout",
    "closed",
    "corrupt",
    "config",
    "internal",
]
"""The stable code of an error, the same in every language."""


class McpSessionsError(Exception):
    """A failed operation of the engine. Catch a subclass, or look at `code`."""

    code: ClassVar[ErrorCode]
    """What kind of failure this is."""
    retryable: ClassVar[bool] = False
    """Whether the same call can succeed later without a change by the caller."""
    message: str
    """What went wrong, for people."""
    operation: str
    """The operation that failed, such as `streams.send`."""
    outcome_unknown: bool
    """Whether the operation may have happened although it failed; retry with the same idempotency key."""

    def __init__(self, message: str, operation: str = "", outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.outcome_unknown = outcome_unknown

    def __str__(self) -> str:
        """`operation: message`."""
        return f"{self.operation}: {self.message}" if self.operation else self.message

    def __reduce__(self) -> tuple[type[McpSessionsError], tuple[str, str, bool]]:
        """Errors cross processes whole."""
        return (type(self), (self.message, self.operation, self.outcome_unknown))


class InvalidInputError(McpSessionsError, ValueError):
    """An argument breaks a rule; nothing was done."""

    code = "invalid_input"


class NotFoundError(McpSessionsError, LookupError):
    """What was asked for does not exist (any more)."""

    code = "not_found"


class ConflictError(McpSessionsError):
    """Somebody else holds what was asked for."""

    code = "conflict"


class TooLargeError(McpSessionsError, ValueError):
    """A payload, URI or document is over its limit; nothing was done."""

    code = "too_large"


class UnauthorizedError(McpSessionsError):
    """The backend or the owner check refused the caller."""

    code = "unauthorized"


class UnavailableError(McpSessionsError, ConnectionError):
    """The backend can't be reached just now."""

    code = "unavailable"
    retryable = True


class TimeoutError(McpSessionsError, builtins.TimeoutError):
    """A deadline passed first."""

    code = "timeout"
    retryable = True


class ClosedError(McpSessionsError):
    """The engine was shut down, or belongs to the parent of a forked process."""

    code = "closed"


class CorruptError(McpSessionsError):
    """The backend holds data this engine can't read."""

    code = "corrupt"


class ConfigError(McpSessionsError, ValueError):
    """A URL, an option or the event loop makes no sense."""

    code = "config"


class InternalError(McpSessionsError):
    """A bug in the engine: please report it."""

    code = "internal"


_CLASSES: dict[str, type[McpSessionsError]] = {
    one.code: one
    for one in (
        InvalidInputError,
        NotFoundError,
        ConflictError,
        TooLargeError,
        UnauthorizedError,
        UnavailableError,
        TimeoutError,
        ClosedError,
        CorruptError,
        ConfigError,
        InternalError,
    )
}


def make(code: str, message: str, operation: str, outcome_unknown: bool) -> McpSessionsError:
    """Make the exception of a failure that the extension tells."""
    return _CLASSES.get(code, InternalError)(message, operation, outcome_unknown)
