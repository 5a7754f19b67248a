"""The event log under the event stores of the SDKs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._loop import here, result, taken

if TYPE_CHECKING:
    from types import TracebackType

    from . import _native
    from ._streams import EndReason


@dataclass(frozen=True)
class LoggedEvent:
    """An event of a stream."""

    id: str
    """Its id: unique, URL-safe, and checkable."""
    payload: str
    """What was appended."""


@dataclass(frozen=True)
class Replay:
    """What a stream holds after an id."""

    stream: str
    """The stream."""
    events: list[LoggedEvent]
    """The events, in order; after a gap, those that are left."""
    gap: bool
    """Something between the id and the first event is lost, or may be."""
    ended: bool
    """The stream has ended: nothing comes after these."""


class EventLog:
    """The events of one session's streams: what is appended on one node is replayed on any.

    The streams are named by the application; names are apart from those of every other session.

    >>> events = engine.events("session-1")
    >>> first = await events.append("_GET_stream", "one")
    >>> await events.append("_GET_stream", "two")
    >>> [event.payload for event in (await events.replay(first)).events]
    ['two']
    """

    __slots__ = ("_native", "_scope")

    def __init__(self, native: _native.Events, scope: str) -> None:
        self._native = native
        self._scope = scope

    @property
    def scope(self) -> str:
        """The session."""
        return self._scope

    async def append(self, stream: str, payload: str) -> str:
        """Append an event and return its id; it is committed by then. A stream's name has 1 to 128 bytes.

        Appends that are under way at the same time are in no order; one that is awaited is before the next.
        When it is cancelled its outcome is unknown. Raises `too_large`, `unavailable` or `timeout`.
        """
        # Not by `_append`: this one is called for every message.
        loop, port = here()
        got = self._native.append(loop, port, stream, "m", payload)
        return await result(got, "events.append") if isinstance(got, tuple) else got

    async def prime(self, stream: str) -> str:
        """Return an id that stands before everything that is appended from now on, and has no payload."""
        return await self._append(stream, "p", "")

    async def end(self, stream: str) -> str:
        """Mark the end of a stream: its tails end, and replay says that it has ended."""
        return await self._append(stream, "e", "")

    def stream_of(self, id: str) -> str:
        """Return the stream an id belongs to.

        Raises `invalid_input` for anything that is no event id of this session.
        """
        return self._native.stream_of(id)

    async def replay(self, after: str) -> Replay:
        """Return the events of an id's stream after it: exactly those, or what is left and a gap.

        Raises `invalid_input` for an id that is not of this session.
        """
        loop, port = here()
        got = self._native.replay(loop, port, after)
        return _replay(await result(got) if isinstance(got, tuple) else got)

    async def read(self, stream: str) -> Replay:
        """Return all events of a stream that are kept."""
        loop, port = here()
        got = self._native.read(loop, port, stream)
        return _replay(await result(got) if isinstance(got, tuple) else got)

    async def tail(self, after: str) -> EventTail:
        """`replay`, and from there on live, whichever node appends.

        One tail a stream reads at a time: a newer one takes over from it, on any node.
        """
        loop, port = here()
        got = self._native.tail(loop, port, after)
        return EventTail(await result(got) if isinstance(got, tuple) else got)

    async def follow(self, stream: str) -> EventTail:
        """A `tail` that begins where the last one of the stream stopped reading, on whatever node.

        The first one begins with all that is kept.
        """
        loop, port = here()
        got = self._native.follow(loop, port, stream)
        return EventTail(await result(got) if isinstance(got, tuple) else got)

    async def forget(self, stream: str) -> bool:
        """Forget a stream; its tails end with `terminated`. False when there was nothing of it."""
        loop, port = here()
        got = self._native.forget(loop, port, stream)
        return await result(got, "events.forget") if isinstance(got, tuple) else got

    async def forget_all(self) -> int:
        """Forget all streams of the session; return how many there were."""
        loop, port = here()
        got = self._native.forget_all(loop, port)
        return await result(got, "events.forget") if isinstance(got, tuple) else got

    async def _append(self, stream: str, kind: str, payload: str) -> str:
        loop, port = here()
        got = self._native.append(loop, port, stream, kind, payload)
        return await result(got, "events.append") if isinstance(got, tuple) else got

    def __repr__(self) -> str:
        return f"<EventLog of {self._scope!r}>"


class EventTail:
    """A stream of events as it grows; iterate over it. It ends when the stream does."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _native.Tail) -> None:
        self._native = native

    @property
    def stream(self) -> str:
        """The stream."""
        return self._native.stream()

    @property
    def gap(self) -> bool:
        """Whether something between the id and the first event is lost, or may be."""
        return self._native.gap()

    @property
    def end_reason(self) -> EndReason | None:
        """Why it ended, if it has: `closed` at the end of its stream, `replaced` by a newer tail."""
        return self._native.end()

    async def next(self) -> LoggedEvent | None:
        """Return the next event, in order; None once it has ended. Cancelling it loses nothing."""
        loop, port = here()
        got = self._native.next(loop, port)
        if isinstance(got, tuple):
            got = await taken(got, loop, port)
        return None if got is None else LoggedEvent(*got)

    async def close(self) -> None:
        """End the tail; the stream stays as it is."""
        loop, port = here()
        got = self._native.close(loop, port)
        if isinstance(got, tuple):
            await result(got)

    def __aiter__(self) -> EventTail:
        """Iterate over the events until it ends."""
        return self

    async def __anext__(self) -> LoggedEvent:
        """Return the next event."""
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> EventTail:
        """Close the tail at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the tail."""
        await self.close()


def _replay(parts: list[Any]) -> Replay:
    stream, events, gap, ended = parts
    return Replay(stream, [LoggedEvent(*event) for event in events], gap, ended)
