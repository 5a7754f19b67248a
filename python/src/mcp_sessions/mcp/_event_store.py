"""The SDK's event store over the engine: streams that survive their worker."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from typing import TYPE_CHECKING

from mcp.server.streamable_http import (
    GET_STREAM_KEY,
    EventCallback,
    EventId,
    EventMessage,
    StreamableHTTPServerTransport,
    StreamId,
)
from mcp.server.streamable_http import EventStore as SDKEventStore
from mcp_types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic_core import from_json

from mcp_sessions._errors import (
    ConfigError,
    InvalidInputError,
    McpSessionsError,
    NotFoundError,
    TooLargeError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

    from mcp_sessions import Engine, EventLog, LoggedEvent

_log = logging.getLogger("mcp_sessions")

# How far up a transport is looked for: adapters may stand in between.
_FRAMES = 12
# Between tries to keep what was said.
_PAUSE_SECONDS, _MOST_SECONDS = 0.05, 1.0


class EventStore(SDKEventStore):
    """`server.streamable_http_app(event_store=EventStore(engine))`: a client resumes on any worker.

    Every session has its own events, though the SDK calls all their streams the same and does not tell a
    store whose they are: the store asks the transport that calls it. An id of another session, or one that
    was tampered with, replays nothing. Retention is that of the engine, for each stream by itself.

    Code that calls a store itself says whose it is: `EventStore(engine).for_session(session_id)`.
    """

    def __init__(self, engine: Engine, *, live: bool = False) -> None:
        """Make a store; with `live`, for sessions of the registry, a replay goes on until its session is closed."""
        self._engine = engine
        self.live = live

    def for_session(self, session_id: str) -> SessionEventStore:
        """Return the store of one session."""
        lives = functools.partial(self._engine.registry.has, session_id) if self.live else None
        return SessionEventStore(self._engine.events(session_id), lives=lives)

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        """Store an event, or with None a priming one; its id is committed when this returns."""
        return await self._caller(sys._getframe(1)).store_event(stream_id, message)  # noqa: SLF001

    async def replay_events_after(
        self, last_event_id: EventId, send_callback: EventCallback
    ) -> StreamId | None:
        """Send what came after an id in its stream; return the stream, or None for an id that is not known."""
        caller = self._caller(sys._getframe(1))  # noqa: SLF001
        return await caller.replay_events_after(last_event_id, send_callback)

    def _caller(self, frame: FrameType | None) -> SessionEventStore:
        """Return the store of the session whose transport called."""
        for _ in range(_FRAMES):
            if frame is None:
                break
            transport = frame.f_locals.get("self")
            if isinstance(transport, StreamableHTTPServerTransport) and transport.mcp_session_id is not None:
                return self.for_session(transport.mcp_session_id)
            frame = frame.f_back
        raise ConfigError(
            "this event store was not called by a session's transport of the SDK, so it can't tell whose "
            "events these are: give each session EventStore(engine).for_session(session_id)",
            "event store",
        )


class SessionEventStore(SDKEventStore):
    """The event store of one session."""

    def __init__(self, events: EventLog, *, lives: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Make a store; with `lives`, a replay goes on with what any worker appends, while the session lives."""
        self._events = events
        self._lives = lives

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        """Store an event, or with None a priming one; its id is committed when this returns."""
        if message is None:
            return await self._events.prime(stream_id)
        payload = message.model_dump_json(by_alias=True, exclude_unset=True)
        try:
            id = await self._events.append(stream_id, payload)
        except TooLargeError as problem:
            id = await self._in_place_of(stream_id, message, problem)
        except McpSessionsError as problem:
            id = await self._insist(stream_id, payload, problem)
        if isinstance(message, _ANSWERS) and not stream_id.endswith(GET_STREAM_KEY):
            # A request's stream ends with its response: a client that resumes it later is told.
            await self._end(stream_id)
        return id

    async def _insist(self, stream: StreamId, payload: str, problem: McpSessionsError) -> EventId:
        """Wait until an outage is over: the SDK serves a session no more once its store has failed.

        What was sent just when the connection broke may be there twice then, but never not at all.
        """
        pause = _PAUSE_SECONDS
        while problem.retryable:
            _log.warning("a message waits to be kept: %s", problem)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MOST_SECONDS)
            try:
                return await self._events.append(stream, payload)
            except McpSessionsError as again:
                problem = again
        raise problem

    async def _in_place_of(
        self, stream: StreamId, message: JSONRPCMessage, problem: TooLargeError
    ) -> EventId:
        """Keep in a large message's place what tells a client that resumes; one that is there gets it all."""
        _log.warning("a message is sent, but not kept for a client that resumes: %s", problem)
        if not isinstance(message, _ANSWERS):
            return await self._events.prime(stream)
        error = ErrorData(code=INTERNAL_ERROR, message="The response was too large to be kept")
        kept = JSONRPCError(jsonrpc="2.0", id=message.id, error=error)
        return await self._events.append(stream, kept.model_dump_json(by_alias=True, exclude_unset=True))

    async def _end(self, stream: StreamId) -> None:
        try:
            await self._events.end(stream)
        except McpSessionsError as problem:
            # Its response is there: whoever resumes gets that.
            _log.warning("the end of a stream was not kept: %s", problem)

    async def replay_events_after(
        self, last_event_id: EventId, send_callback: EventCallback
    ) -> StreamId | None:
        """Send what came after an id in its stream; return the stream, or None for an id that is not known."""
        try:
            if self._lives is None:
                return await self._replay(last_event_id, send_callback)
            await self._follow(last_event_id, send_callback, self._lives)
        except (InvalidInputError, NotFoundError):
            _log.warning("a client resumed with an event id that is not of its session")
        return None

    async def _replay(self, after: EventId, send: EventCallback) -> StreamId | None:
        replay = await self._events.replay(after)
        if replay.gap:
            _log.warning(_GAP)
        for event in replay.events:
            await send(_message(event))
        # Nothing comes any more: the SDK ends the response where it is given no stream.
        return None if replay.ended else replay.stream

    async def _follow(
        self, after: EventId, send: EventCallback, lives: Callable[[], Awaitable[bool]]
    ) -> None:
        async with await self._events.tail(after) as tail:
            # Closing the session ends its tails: those that were there.
            if not await lives():
                return
            if tail.gap:
                _log.warning(_GAP)
            async for event in tail:
                await send(_message(event))


_ANSWERS = (JSONRPCResponse, JSONRPCError)
_GAP = "a client resumed too late: some of its events are gone"


def _message(event: LoggedEvent) -> EventMessage:
    return EventMessage(_read(event.payload), event.id)


def _read(payload: str) -> JSONRPCMessage:
    """Read a message as what it is: a replay is many, and the SDK's union tries one kind after the other."""
    try:
        return _kind(payload).model_validate_json(payload)
    except (TypeError, ValueError):
        return jsonrpc_message_adapter.validate_json(payload)


def _kind(payload: str) -> type[JSONRPCMessage]:
    fields = from_json(payload)
    if "method" in fields:
        return JSONRPCRequest if "id" in fields else JSONRPCNotification
    return JSONRPCResponse if "result" in fields else JSONRPCError
