"""One session engine for every MCP server: streams, session info and subscriptions across processes.

>>> async with await mcp_sessions.connect("redis://localhost") as engine:
...     stream = await engine.streams.open("session-1")
...     await engine.streams.send("session-1", "hello")
...     print((await stream.next()).payload)
hello
"""

from ._engine import Capability, Engine, Health, Stats, connect
from ._errors import (
    ClosedError,
    ConfigError,
    ConflictError,
    CorruptError,
    ErrorCode,
    InternalError,
    InvalidInputError,
    McpSessionsError,
    NotFoundError,
    TimeoutError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from ._events import EventLog, EventTail, LoggedEvent, Replay
from ._info import Info, LogLevel, SessionInfo
from ._native import VERSION as __version__
from ._native import Event, Receipt
from ._options import Lease, Queue, RegistryOptions, Retention
from ._registry import (
    Closing,
    Closings,
    RegistryStats,
    SessionPage,
    SessionRecord,
    SessionRegistry,
    SessionRequest,
    SessionState,
    ShutdownReport,
)
from ._streams import ALL, EndReason, EventStream, Streams
from ._subscriptions import Notification, Subscription, SubscriptionEnd, SubscriptionFilters, Subscriptions

__all__ = [
    "ALL",
    "Capability",
    "ClosedError",
    "Closing",
    "Closings",
    "ConfigError",
    "ConflictError",
    "CorruptError",
    "EndReason",
    "Engine",
    "ErrorCode",
    "Event",
    "EventLog",
    "EventStream",
    "EventTail",
    "Health",
    "Info",
    "InternalError",
    "InvalidInputError",
    "Lease",
    "LogLevel",
    "LoggedEvent",
    "McpSessionsError",
    "NotFoundError",
    "Notification",
    "Queue",
    "Receipt",
    "RegistryOptions",
    "RegistryStats",
    "Replay",
    "Retention",
    "SessionInfo",
    "SessionPage",
    "SessionRecord",
    "SessionRegistry",
    "SessionRequest",
    "SessionState",
    "ShutdownReport",
    "Stats",
    "Streams",
    "Subscription",
    "SubscriptionEnd",
    "SubscriptionFilters",
    "Subscriptions",
    "TimeoutError",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "__version__",
    "connect",
]
