"""What clients said at `initialize` and since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from ._errors import InvalidInputError, NotFoundError
from ._json import read_object, write_object
from ._loop import here, result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from . import _native

LogLevel: TypeAlias = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
"""The severities of RFC 5424 as MCP names them."""

# What errors call the fields; tmcp's managers use the first three.
_NAMES = ("Client info", "Client capabilities", "Log Level", "Protocol version", "Initialize params")
_CLIENT_INFO, _CAPABILITIES, _LOG_LEVEL, _VERSION, _PARAMS = range(5)


@dataclass(frozen=True)
class SessionInfo:
    """All info of one session; what was never set is None."""

    client_info: dict[str, Any] | None = None
    """`clientInfo` of `initialize`."""
    client_capabilities: dict[str, Any] | None = None
    """`capabilities` of `initialize`."""
    log_level: LogLevel | None = None
    """The level set by `logging/setLevel`."""
    protocol_version: str | None = None
    """The negotiated protocol version."""
    initialize_params: dict[str, Any] | None = None
    """All `params` of `initialize`."""


class Info:
    """Keeps what a client said at `initialize` and since, for every node to read.

    >>> await engine.info.set_client_info("session-1", {"name": "inspector", "version": "1.0.0"})
    >>> await engine.info.add_subscription("session-1", "file:///notes.md")
    True
    >>> await engine.info.subscribers("file:///notes.md")
    ['session-1']
    """

    __slots__ = ("_limit", "_native")

    def __init__(self, native: _native.Engine, max_info_bytes: int) -> None:
        self._native = native
        self._limit = max_info_bytes

    async def get(self, session_id: str) -> SessionInfo | None:
        """All info of a session in one read; None when there is none."""
        return record_of(await self._fields(session_id))

    def cached(self, session_id: str) -> SessionInfo | None:
        """All info of a session, if it can be had without waiting."""
        return record_of(self._native.info_cached(session_id))

    async def put(
        self,
        session_id: str,
        *,
        client_info: Mapping[str, Any] | None = None,
        client_capabilities: Mapping[str, Any] | None = None,
        log_level: LogLevel | None = None,
        protocol_version: str | None = None,
        initialize_params: Mapping[str, Any] | None = None,
    ) -> None:
        """Change some fields at once; the session is known from here on."""
        if protocol_version == "":
            raise InvalidInputError("a protocol version is not empty", "info.put")
        fields = [
            self._json(_CLIENT_INFO, client_info),
            self._json(_CAPABILITIES, client_capabilities),
            log_level,
            protocol_version,
            self._json(_PARAMS, initialize_params),
        ]
        loop, port = here()
        got = self._native.info_put(loop, port, session_id, fields)
        if isinstance(got, tuple):
            await result(got, "info.put")

    async def set_client_info(self, session_id: str, client_info: Mapping[str, Any]) -> None:
        """Set `clientInfo`. Raises `invalid_input` when it is not a JSON object."""
        await self._set(session_id, _CLIENT_INFO, self._written(_CLIENT_INFO, client_info))

    async def get_client_info(self, session_id: str) -> dict[str, Any]:
        """`clientInfo`; raises `not_found` when it was never set."""
        return read_object(await self._get(session_id, _CLIENT_INFO))

    async def set_client_capabilities(self, session_id: str, capabilities: Mapping[str, Any]) -> None:
        """Set `capabilities`. Raises `invalid_input` when they are not a JSON object."""
        await self._set(session_id, _CAPABILITIES, self._written(_CAPABILITIES, capabilities))

    async def get_client_capabilities(self, session_id: str) -> dict[str, Any]:
        """`capabilities`; raises `not_found` when they were never set."""
        return read_object(await self._get(session_id, _CAPABILITIES))

    async def set_log_level(self, session_id: str, level: LogLevel) -> None:
        """Set the log level. Raises `invalid_input` when it is none of the eight."""
        if not isinstance(level, str):
            raise InvalidInputError(f"a log level is a str, not {type(level).__name__}", "info.put")
        await self._set(session_id, _LOG_LEVEL, level)

    async def get_log_level(self, session_id: str) -> LogLevel:
        """Return the log level; raises `not_found` when it was never set."""
        return cast("LogLevel", await self._get(session_id, _LOG_LEVEL))

    async def set_protocol_version(self, session_id: str, version: str) -> None:
        """Set the negotiated protocol version."""
        if not isinstance(version, str) or version == "":
            raise InvalidInputError("a protocol version is a str, and not empty", "info.put")
        await self._set(session_id, _VERSION, version)

    async def get_protocol_version(self, session_id: str) -> str:
        """Return the protocol version; raises `not_found` when it was never set."""
        return await self._get(session_id, _VERSION)

    async def set_initialize_params(self, session_id: str, params: Mapping[str, Any]) -> None:
        """Set all `params` of `initialize`."""
        await self._set(session_id, _PARAMS, self._written(_PARAMS, params))

    async def get_initialize_params(self, session_id: str) -> dict[str, Any]:
        """All `params` of `initialize`; raises `not_found` when they were never set."""
        return read_object(await self._get(session_id, _PARAMS))

    async def add_subscription(self, session_id: str, uri: str) -> bool:
        """Subscribe a session to a resource; False when it was already."""
        loop, port = here()
        got = self._native.add_subscription(loop, port, session_id, uri)
        return await result(got, "info.add_subscription") if isinstance(got, tuple) else got

    async def remove_subscription(self, session_id: str, uri: str) -> bool:
        """End a subscription; False when there was none."""
        loop, port = here()
        got = self._native.remove_subscription(loop, port, session_id, uri)
        return await result(got, "info.remove_subscription") if isinstance(got, tuple) else got

    async def subscribers(self, uri: str) -> list[str]:
        """Return the sessions subscribed to a resource, in no particular order."""
        loop, port = here()
        got = self._native.subscribers(loop, port, uri)
        return await result(got) if isinstance(got, tuple) else got

    async def subscriptions(self, session_id: str) -> list[str]:
        """Return the resources a session is subscribed to, sorted."""
        loop, port = here()
        got = self._native.subscriptions(loop, port, session_id)
        return await result(got) if isinstance(got, tuple) else got

    async def delete(self, session_id: str) -> bool:
        """Delete a session's info and its resource subscriptions; False when there was none."""
        loop, port = here()
        got = self._native.info_delete(loop, port, session_id)
        return await result(got, "info.delete") if isinstance(got, tuple) else got

    def _json(self, field: int, value: Mapping[str, Any] | None) -> str | None:
        return None if value is None else self._written(field, value)

    def _written(self, field: int, value: Mapping[str, Any]) -> str:
        return write_object(value, _NAMES[field].lower(), self._limit, "info.put")

    async def _set(self, session_id: str, field: int, value: str) -> None:
        fields: list[str | None] = [None] * 5
        fields[field] = value
        loop, port = here()
        got = self._native.info_put(loop, port, session_id, fields)
        if isinstance(got, tuple):
            await result(got, "info.put")

    async def _fields(self, session_id: str) -> list[str | None] | None:
        loop, port = here()
        got = self._native.info_get(loop, port, session_id)
        return await result(got) if isinstance(got, tuple) else got

    async def _get(self, session_id: str, field: int) -> str:
        fields = await self._fields(session_id)
        value = None if fields is None else fields[field]
        if value is None:
            raise NotFoundError(f"{_NAMES[field]} not found for session {session_id}", "info.get")
        return value


def record_of(fields: list[str | None] | None) -> SessionInfo | None:
    if fields is None:
        return None
    client_info, capabilities, log_level, version, params = fields
    return SessionInfo(
        client_info=None if client_info is None else read_object(client_info),
        client_capabilities=None if capabilities is None else read_object(capabilities),
        log_level=cast("LogLevel | None", log_level),
        protocol_version=version,
        initialize_params=None if params is None else read_object(params),
    )
