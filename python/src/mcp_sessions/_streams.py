"""Streams: open, send, has, close."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

from ._errors import InvalidInputError
from ._loop import here, result, taken

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from . import _native
    from ._native import Event, Receipt

EndReason: TypeAlias = Literal["closed", "replaced", "overflow", "gap", "fenced", "terminated", "shutdown"]
"""Why a stream ended."""


class _All(enum.Enum):
    ALL = "all"

    def __repr__(self) -> str:
        return "mcp_sessions.ALL"


ALL: Final = _All.ALL
"""In place of a session id: every session that is known."""


class EventStream:
    """The one stream of a session, held by this node until it ends or is closed.

    Iterate over it, or call `next`; several readers are served in the order in which they asked. What is
    not read waits, within the bounds of the options; a stream whose reader is too slow ends with
    `overflow`. One that nobody refers to any more is given back.

    >>> async with await engine.streams.open("session-1") as stream:
    ...     async for event in stream:
    ...         print(event.payload)
    """

    __slots__ = ("__weakref__", "_native", "_session_id")

    def __init__(self, native: _native.Stream, session_id: str) -> None:
        self._native = native
        self._session_id = session_id

    @property
    def session_id(self) -> str:
        """The session."""
        return self._session_id

    @property
    def gap(self) -> bool:
        """Whether something between the cursor (or the last stream) and the first event is lost."""
        return self._native.gap()

    @property
    def cursor(self) -> str:
        """The cursor after the last event read, or of the start."""
        return self._native.cursor()

    @property
    def end(self) -> EndReason | None:
        """Why the stream ended, if it has; events that were queued can still be read then."""
        return self._native.end()

    async def ended(self) -> EndReason:
        """Wait until the stream ends."""
        loop, port = here()
        got = self._native.ended(loop, port)
        return await result(got) if isinstance(got, tuple) else got

    async def next(self) -> Event | None:
        """Return the next event, in order; None once the stream has ended and what was queued is read.

        Cancelling it loses nothing.
        """
        loop, port = here()
        got = self._native.next(loop, port)
        if isinstance(got, tuple):
            got = cast("Event | None", await taken(got, loop, port))
        return got

    def try_next(self) -> Event | None:
        """Return the next event if there is one already, and nobody waits for it."""
        return self._native.try_next()

    async def next_batch(self, limit: int = 256) -> list[Event]:
        """Return the next events, as many as there are but no more than `limit`; waits for the first.

        An empty list once the stream has ended and what was queued is read. Cancelling it loses nothing.
        """
        loop, port = here()
        got = self._native.next_batch(loop, port, max(1, limit))
        if isinstance(got, tuple):
            got = cast("list[Event]", await taken(got, loop, port))
        return got

    async def close(self) -> None:
        """End the stream; what was not read waits for the next one. Closing it twice is fine."""
        loop, port = here()
        got = self._native.close(loop, port)
        if isinstance(got, tuple):
            await result(got)

    def __aiter__(self) -> EventStream:
        """Iterate over the events until the stream ends."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event."""
        loop, port = here()
        got = self._native.next(loop, port)
        if isinstance(got, tuple):
            got = cast("Event | None", await taken(got, loop, port))
        if got is None:
            raise StopAsyncIteration
        return got

    async def __aenter__(self) -> EventStream:
        """Close the stream at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stream."""
        await self.close()

    def __repr__(self) -> str:
        return f"<EventStream of {self._session_id!r}, {self.end or 'open'}>"


class Streams:
    """Opens streams, and sends events to them wherever they are held.

    >>> stream = await engine.streams.open("session-1")
    >>> receipt = await engine.streams.send("session-1", "hello")
    >>> receipt.accepted
    1
    """

    __slots__ = ("_native",)

    def __init__(self, native: _native.Engine) -> None:
        self._native = native

    async def open(
        self, session_id: str, *, after: str | None = None, conflict: Literal["replace", "reject"] = "replace"
    ) -> EventStream:
        """Open the stream of a session on this node, and take it over from any other.

        With `after`, the client's last cursor (`Last-Event-ID`), everything after it is delivered exactly
        once. Without one, what was accepted since the session's last stream was given back, or since the
        session became known.

        Raises `invalid_input` for a cursor that is not this session's, `conflict` with
        `conflict="reject"` when a live node holds the stream, `unavailable` or `timeout`.
        """
        if conflict not in ("replace", "reject"):
            raise InvalidInputError("conflict is replace or reject", "streams.open")
        loop, port = here()
        got = self._native.open(loop, port, session_id, after, conflict == "reject")
        return EventStream(await result(got) if isinstance(got, tuple) else got, session_id)

    async def send(
        self,
        to: str | Iterable[str] | Literal[_All.ALL],
        payload: str,
        *,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Send an event to a session, to several, or to `ALL`; return once the backend has accepted it.

        An event for an unknown session is dropped, which the receipt tells. A retry with the same
        idempotency key (1 to 128 bytes) is not delivered twice. When it is cancelled its outcome is
        unknown.

        Raises `too_large` or `invalid_input` (nothing happened), `timeout` or `unavailable`
        (`outcome_unknown` says whether it may have happened).
        """
        loop, port = here()
        target = to if isinstance(to, str) else _targets(to)
        got = self._native.send(loop, port, target, payload, idempotency_key)
        return await result(got, "streams.send") if isinstance(got, tuple) else got

    async def has(self, session_id: str) -> bool:
        """Whether a live node holds a stream of the session."""
        loop, port = here()
        got = self._native.has(loop, port, session_id)
        return await result(got) if isinstance(got, tuple) else got

    async def close(self, session_id: str) -> bool:
        """End the session's stream, wherever it is held; False when there was none."""
        loop, port = here()
        got = self._native.close(loop, port, session_id)
        return await result(got, "streams.close") if isinstance(got, tuple) else got

    async def forget(self, session_id: str) -> bool:
        """Terminate the session: its stream ends with `terminated` and its log is gone."""
        loop, port = here()
        got = self._native.forget(loop, port, session_id)
        return await result(got, "streams.forget") if isinstance(got, tuple) else got

    async def known(self, session_id: str) -> bool:
        """Whether the session is known: it has info, or a stream, or had one within retention."""
        loop, port = here()
        got = self._native.known(loop, port, session_id)
        return await result(got) if isinstance(got, tuple) else got


def _targets(to: object) -> list[str] | None:
    if to is ALL:
        return None
    if isinstance(to, (list, tuple, set, frozenset)):
        return list(to)
    if to is None or isinstance(to, (bytes, dict)) or not hasattr(to, "__iter__"):
        raise InvalidInputError("an event goes to a session id, several, or mcp_sessions.ALL", "streams.send")
    return list(to)
