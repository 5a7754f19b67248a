"""The session registry: a session's life, on every node."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from ._info import SessionInfo, record_of
from ._json import write
from ._loop import here, result, taken

if TYPE_CHECKING:
    from types import TracebackType

    from . import _native

SessionState: TypeAlias = Literal["active", "stale", "closing", "closed"]
"""Where a session is in its life."""


@dataclass(frozen=True)
class SessionRecord:
    """What is known of a registered session."""

    id: str
    """The session."""
    owner: str | None
    """The keyed hash of its owner's token; the token itself is kept nowhere."""
    node: str
    """The node that answers for it: the one that created or adopted it last."""
    created_ms: int
    """When it was registered, by the backend's clock."""
    last_access_ms: int
    """When it was last accessed, by the backend's clock."""
    now_ms: int
    """When this was read, by the backend's clock."""
    active_requests: int
    """Requests under way, on all nodes."""
    state: SessionState
    """Where it is in its life."""
    reason: str | None
    """Why it was closed, if it was."""
    metadata: Any
    """The application's own: any JSON."""
    info: SessionInfo | None
    """What its client said at `initialize` and since."""


@dataclass(frozen=True)
class SessionPage:
    """A page of a list. It may be shorter than its limit, even empty, and still have a next one."""

    sessions: list[SessionRecord]
    """The sessions."""
    next: str | None
    """Where the next page begins, if there is one."""


@dataclass(frozen=True)
class RegistryStats:
    """How many sessions there are, on all nodes."""

    total: int
    """All sessions, those that are closing included."""
    active: int
    """Accessed lately, or with a request under way."""
    stale: int
    """Not accessed for so long that the next sweep closes them."""
    closing: int
    """Closing."""
    by_node: dict[str, int]
    """How many each node answers for."""


@dataclass(frozen=True)
class ShutdownReport:
    """What a shutdown of the registry came to."""

    closed: int
    """Sessions this node closed."""
    requests_left: int
    """Requests that had not ended when the time was over."""


@dataclass(frozen=True)
class Closing:
    """A session of this node that is closing."""

    session_id: str
    """The session."""
    reason: str
    """Why: what was given to `close`, else `stale`, `shutdown`, or `lost`."""


class SessionRequest:
    """A request under way: meanwhile its session is not stale. Giving it up ends it."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Request) -> None:
        self._native = native

    async def end(self) -> None:
        """End the request; return when the other nodes can know."""
        loop, port = here()
        got = self._native.end(loop, port)
        if isinstance(got, tuple):
            await result(got)

    async def __aenter__(self) -> SessionRequest:
        """End the request at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the request."""
        await self.end()


class Closings:
    """The closings of sessions this node created or adopted, whoever closes them and wherever."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Closings) -> None:
        self._native = native

    async def next(self) -> Closing | None:
        """Return the next closing; None once the engine is shut down and all were read."""
        loop, port = here()
        got = self._native.next(loop, port)
        if isinstance(got, tuple):
            got = await taken(got, loop, port)
        return None if got is None else Closing(*got)

    def __aiter__(self) -> Closings:
        """Iterate over the closings until the engine is shut down."""
        return self

    async def __anext__(self) -> Closing:
        """Return the next closing."""
        closing = await self.next()
        if closing is None:
            raise StopAsyncIteration
        return closing


class SessionRegistry:
    """Who owns a session, when it was last used, when it dies: known on every node.

    Closing is one act seen everywhere: the session answers no more, its stream ends with `terminated`,
    what was kept of it is removed, and a tombstone keeps the id from being used again for a while.

    >>> id = await engine.registry.create(owner="token-of-ada")
    >>> (await engine.registry.get(id, owner="token-of-bob")) is None
    True
    >>> await engine.registry.close(id, "deleted")
    True
    """

    __slots__ = ("_native",)

    def __init__(self, native: _native.Registry) -> None:
        self._native = native

    async def create(self, *, owner: str | None = None, metadata: Any = None) -> str:
        """Register a new session under an unguessable id, and return it.

        `owner` is a token that only a keyed hash is kept of; `metadata` is the application's, any JSON.
        """
        return await self._create(None, owner, metadata)

    async def register(self, session_id: str, *, owner: str | None = None, metadata: Any = None) -> None:
        """`create` under an id that was made elsewhere. It has to be unguessable.

        Raises `conflict` when the id is registered, or was closed and has its tombstone.
        """
        await self._create(session_id, owner, metadata)

    async def get(
        self, session_id: str, *, owner: str | None = None, trusted: bool = False
    ) -> SessionRecord | None:
        """Return a session that answers requests, for its owner; this counts as access.

        None for everybody else, exactly as for a session that is closing, closed, or was never there.
        Without an owner's token only sessions without an owner are found; `trusted` is the server itself,
        which has checked already.
        """
        loop, port = here()
        got = self._native.get(loop, port, session_id, owner, trusted)
        return _record(await result(got) if isinstance(got, tuple) else got)

    async def peek(self, session_id: str) -> SessionRecord | None:
        """Return all that is known of a session, whoever owns it; this is no access."""
        loop, port = here()
        got = self._native.peek(loop, port, session_id)
        return _record(await result(got) if isinstance(got, tuple) else got)

    async def get_by_owner(self, owner: str) -> SessionRecord | None:
        """Return the oldest session of an owner that answers requests; this counts as access."""
        loop, port = here()
        got = self._native.get_by_owner(loop, port, owner)
        return _record(await result(got) if isinstance(got, tuple) else got)

    async def has(self, session_id: str) -> bool:
        """Whether a session answers requests. This is no access."""
        loop, port = here()
        got = self._native.has(loop, port, session_id)
        return await result(got) if isinstance(got, tuple) else got

    async def begin_request(self, session_id: str) -> SessionRequest:
        """Note that a request of the session begins. Meanwhile the session is not stale.

        Raises `not_found` for a session that does not answer requests, `closed` once this node drains.
        """
        loop, port = here()
        got = self._native.begin_request(loop, port, session_id)
        return SessionRequest(await result(got) if isinstance(got, tuple) else got)

    async def adopt(self, session_id: str) -> bool:
        """Make this node answer for a session that another one created; False when there is none."""
        loop, port = here()
        got = self._native.adopt(loop, port, session_id)
        return await result(got, "registry.adopt") if isinstance(got, tuple) else got

    async def close(self, session_id: str, reason: str) -> bool:
        """Close a session, wherever it is held, with a reason of 1 to 64 visible characters.

        True for the one call that closed it. When this returns, no node answers for it any more.
        """
        loop, port = here()
        got = self._native.close(loop, port, session_id, reason)
        return await result(got, "registry.close") if isinstance(got, tuple) else got

    async def close_by_owner(self, owner: str, reason: str) -> int:
        """Close all sessions of an owner, wherever they are held; return how many this call closed."""
        loop, port = here()
        got = self._native.close_by_owner(loop, port, owner, reason)
        return await result(got, "registry.close_by_owner") if isinstance(got, tuple) else got

    async def list(
        self,
        *,
        owner: str | None = None,
        node: str | None = None,
        state: SessionState | None = None,
        after: str | None = None,
        limit: int = 100,
        info: bool = False,
    ) -> SessionPage:
        """List registered sessions, page by page; `after` is the `next` of the page before.

        `info` reads what each client said, too, which costs a read a session.
        """
        loop, port = here()
        got = self._native.list(loop, port, owner, node, state, after, limit, info)
        sessions, next_page = await result(got) if isinstance(got, tuple) else got
        return SessionPage([cast("SessionRecord", _record(one)) for one in sessions], next_page)

    async def stats(self) -> RegistryStats:
        """How many sessions there are, on all nodes."""
        loop, port = here()
        got = self._native.stats(loop, port)
        return RegistryStats(*(await result(got) if isinstance(got, tuple) else got))

    async def sweep_stale(self) -> int:
        """Close stale sessions now instead of at the next turn; return how many this call closed."""
        loop, port = here()
        got = self._native.sweep_stale(loop, port)
        return await result(got) if isinstance(got, tuple) else got

    def closings(self) -> Closings:
        """Return the closings of sessions this node created or adopts, from now on."""
        return Closings(self._native.closings())

    async def drain(self, deadline_ms: int) -> int:
        """Take no more sessions and requests on this node, and wait until those under way have ended.

        Return how many had not at the deadline. The sessions live on, for other nodes to adopt.
        """
        loop, port = here()
        got = self._native.drain(loop, port, deadline_ms)
        return await result(got) if isinstance(got, tuple) else got

    async def shutdown(self, deadline_ms: int) -> ShutdownReport:
        """`drain`, then close the sessions this node created or adopted, with the reason `shutdown`."""
        loop, port = here()
        got = self._native.shutdown(loop, port, deadline_ms)
        return ShutdownReport(*(await result(got) if isinstance(got, tuple) else got))

    async def _create(self, id: str | None, owner: str | None, metadata: Any) -> str:
        written = None if metadata is None else write(metadata, "metadata", "registry.create")
        loop, port = here()
        got = self._native.create(loop, port, id, owner, written)
        return await result(got, "registry.create") if isinstance(got, tuple) else got


def _record(fields: list[Any] | None) -> SessionRecord | None:
    if fields is None:
        return None
    *known, metadata, info = fields
    (id, owner, node, created_ms, last_access_ms, now_ms, active_requests, state, reason) = known
    return SessionRecord(
        id=id,
        owner=owner,
        node=node,
        created_ms=created_ms,
        last_access_ms=last_access_ms,
        now_ms=now_ms,
        active_requests=active_requests,
        state=state,
        reason=reason,
        metadata=None if metadata is None else json.loads(metadata),
        info=record_of(info),
    )
