"""For the official Python SDK (`mcp` 2.3 and later in 2) and FastMCP 4: the engine behind their seams.

>>> def build(engine):
...     server = MCPServer("demo", subscriptions=mcp_sessions.mcp.SubscriptionBus(engine))
...     return mcp_sessions.mcp.streamable_http_app(server, engine)
>>> app = mcp_sessions.mcp.application("redis://localhost", build)
"""

from ._apps import application, http_app, streamable_http_app
from ._bus import SubscriptionBus
from ._event_store import EventStore
from ._key_value import KeyValue
from ._sessions import SessionManager

__all__ = [
    "EventStore",
    "KeyValue",
    "SessionManager",
    "SubscriptionBus",
    "application",
    "http_app",
    "streamable_http_app",
]
