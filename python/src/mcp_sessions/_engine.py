"""The engine: connect, health, shutdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _native
from ._errors import ConfigError, McpSessionsError
from ._events import EventLog
from ._info import Info
from ._loop import here, result
from ._options import Lease, Queue, RegistryOptions, Retention, as_json
from ._registry import SessionRegistry
from ._streams import Streams
from ._subscriptions import Subscriptions

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True)
class Capability:
    """What a backend can do."""

    immediate: bool
    """Operations are answered at once."""
    merged_order: bool
    """Replay merges a session's events and broadcasts by order of acceptance."""
    processes: bool
    """Nodes may live in different processes."""
    manual_clock: bool
    """Time can be moved with `advance_clock`."""


@dataclass(frozen=True)
class Health:
    """How an engine is."""

    ready: bool
    """Open, with a valid lease and a backend that answers."""
    open: bool
    """Not shut down."""
    backend: bool
    """The backend answers."""
    problem: str | None
    """What the backend said instead, if it does not."""
    node: str
    """This node's name."""
    lease_left_ms: int
    """Milliseconds this node's lease is good for."""


@dataclass(frozen=True)
class Stats:
    """What an engine counted since it was made, and what it holds now."""

    streams: int
    """Streams this node holds."""
    subscriptions: int
    """Subscriptions (modern era) this node serves."""
    accepted: int
    """Events accepted, counted in sessions; a broadcast counts once."""
    dropped: int
    """Events dropped because their session is unknown."""
    duplicates: int
    """Events that an idempotency key showed to be accepted before."""
    opened: int
    """Streams opened."""
    gaps: int
    """Streams opened with a gap."""
    replaced: int
    """Streams ended because a newer one took over."""
    overflows: int
    """Streams ended because their reader was too slow."""
    fenced: int
    """Streams ended because this node's lease ran out."""
    repairs: int
    """Times a missed signal was read from a log."""
    subscription_overflows: int
    """Subscriptions ended because their reader was too slow."""


class Engine:
    """One node of a session engine: who holds which stream, what a client missed, what it said.

    Made by `connect`. It can be used from any number of asyncio event loops, each in its own thread; it
    never keeps the process alive by itself. It belongs to the process that connected it: in the child of
    a fork its calls raise `closed`, and the child connects an engine of its own.
    """

    def __init__(self, native: _native.Engine) -> None:
        if not isinstance(native, _native.Engine):
            raise ConfigError("an engine is made by mcp_sessions.connect", "connect")
        self._native = native
        described = native.describe()
        self._node_id: str = described["node_id"]
        self._capability = Capability(
            **{name: described[name] for name in ("immediate", "merged_order", "processes", "manual_clock")}
        )
        self._streams = Streams(native)
        self._info = Info(native, described["max_info_bytes"])
        self._subscriptions = Subscriptions(native)
        self._registry = SessionRegistry(native.registry())

    @property
    def streams(self) -> Streams:
        """Streams: open, send, has, close."""
        return self._streams

    @property
    def info(self) -> Info:
        """What clients said at `initialize` and since."""
        return self._info

    @property
    def subscriptions(self) -> Subscriptions:
        """Subscriptions of the modern era."""
        return self._subscriptions

    @property
    def registry(self) -> SessionRegistry:
        """The session registry: a session's life, on every node."""
        return self._registry

    def events(self, scope: str) -> EventLog:
        """Return the events of one session's streams, for an SDK's event store."""
        return EventLog(self._native.events(scope), scope)

    @property
    def node_id(self) -> str:
        """This node's name, new with each engine."""
        return self._node_id

    @property
    def capability(self) -> Capability:
        """What the backend can do."""
        return self._capability

    @property
    def is_closed(self) -> bool:
        """Whether it was shut down, or belongs to the parent of a forked process."""
        return self._native.is_closed()

    async def health(self) -> Health:
        """How this engine is; asks the backend."""
        loop, port = here()
        got = self._native.health(loop, port)
        return Health(*(await result(got) if isinstance(got, tuple) else got))

    def stats(self) -> Stats:
        """What this engine counted, and what it holds now."""
        return Stats(**self._native.stats())

    async def shutdown(self, deadline_ms: float = 5_000) -> None:
        """End every stream and subscription with `shutdown`, give the sessions back and leave.

        All later calls raise `closed`. Shutting down twice is fine. Raises `timeout` when the backend
        could not be told within `deadline_ms`; it finds out when the lease ends.
        """
        loop, port = here()
        got = self._native.shutdown(loop, port, _milliseconds(deadline_ms, "shutdown"))
        if isinstance(got, tuple):
            await result(got, "shutdown")

    def abandon(self) -> None:
        """Stop as `kill -9` would: the other nodes notice when the lease ends. For tests of that."""
        self._native.abandon()

    def set_outage(self, on: bool) -> None:
        """Take the embedded hub away from this node, or give it back, as an outage of a server would.

        For tests of what happens then. Raises `config` on other backends, which have real outages.
        """
        self._native.set_outage(on)

    async def advance_clock(self, ms: float) -> None:
        """Move the time of a `memory://name?clock=manual` hub. Raises `config` on another clock."""
        loop, port = here()
        got = self._native.advance_clock(loop, port, _milliseconds(ms, "advance_clock"))
        if isinstance(got, tuple):
            await result(got)

    async def __aenter__(self) -> Engine:
        """Shut down at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down."""
        try:
            await self.shutdown()
        except McpSessionsError:
            # What went wrong in the block matters more.
            if error is None:
                raise

    def __repr__(self) -> str:
        return f"<Engine {self._node_id}{', closed' if self.is_closed else ''}>"


async def connect(
    url: str,
    *,
    retention: Retention | None = None,
    broadcast_retention: Retention | None = None,
    queue: Queue | None = None,
    lease: Lease | None = None,
    registry: RegistryOptions | None = None,
    session_ttl_ms: int | None = None,
    max_payload_bytes: int | None = None,
    max_uri_bytes: int | None = None,
    max_info_bytes: int | None = None,
    max_subscriptions: int | None = None,
    operation_timeout_ms: int | None = None,
    outage_wait_ms: int | None = None,
    max_pending_bytes: int | None = None,
    frame_ids: bool | None = None,
) -> Engine:
    """Connect to a backend as a node of its own.

    `memory://name` is the embedded backend: engines in one process that name the same hub are separate
    nodes of it, and without a name the hub is private. `redis://user:password@host:6379/0?prefix=app:`
    (`rediss://` with TLS, `redis+unix:///path` for a socket) is Redis 6.2 or later, or Valkey.
    `postgresql://user:password@host:5432/database?schema=app` is PostgreSQL 14 or later.
    `cloudflare://host/path?token=…` are Durable Objects, through the gateway of a Worker.

    retention: what is kept of a session's own events (256 events, 1 MiB, 5 minutes).
    broadcast_retention: what is kept of events sent to all (1,024 events, 4 MiB, 5 minutes).
    queue: what may wait for one slow reader before its stream ends with `overflow` (1,024 events, 4 MiB).
    lease: how soon the others notice that this node died (5 s, renewed every 2 s).
    registry: when a session is stale (30 minutes) and swept, and how owners' tokens are hashed.
    session_ttl_ms: milliseconds a session's info is kept without being touched (24 hours).
    max_payload_bytes: the largest payload of one event (4 MiB).
    max_uri_bytes: the longest resource URI (8 KiB).
    max_info_bytes: the largest info value, in bytes of JSON (64 KiB).
    max_subscriptions: the most resource subscriptions of one session (10,000).
    operation_timeout_ms: milliseconds an operation may take before it fails with `timeout` (10 s).
    outage_wait_ms: milliseconds an operation waits in an outage before it fails with `unavailable` (0).
    max_pending_bytes: the most bytes of payload that wait for the backend before `send` waits (64 MiB).
    frame_ids: whether adapters put an `id:` line with the cursor in front of SSE frames (True).

    Raises `config` for a URL or option that makes no sense, `unauthorized`, `unavailable` or `timeout`.
    """
    options: dict[str, Any] = {
        "retention": retention,
        "broadcast_retention": broadcast_retention,
        "queue": queue,
        "lease": lease,
        "registry": registry,
        "session_ttl_ms": session_ttl_ms,
        "max_payload_bytes": max_payload_bytes,
        "max_uri_bytes": max_uri_bytes,
        "max_info_bytes": max_info_bytes,
        "max_subscriptions": max_subscriptions,
        "operation_timeout_ms": operation_timeout_ms,
        "outage_wait_ms": outage_wait_ms,
        "max_pending_bytes": max_pending_bytes,
        "frame_ids": frame_ids,
    }
    loop, port = here()
    got = _native.connect(loop, port, url, as_json(options))
    return Engine(await result(got) if isinstance(got, tuple) else got)


def _milliseconds(ms: float, operation: str) -> int:
    if isinstance(ms, bool) or not isinstance(ms, (int, float)) or not 0 <= ms <= 2**53:
        raise ConfigError(f"{ms!r} is no number of milliseconds", operation)
    return int(-(-ms // 1))
