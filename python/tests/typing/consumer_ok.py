"""What a user writes; type checkers in their strictest mode find nothing wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp.server import MCPServer

import mcp_sessions
from mcp_sessions import ALL, EventStream, McpSessionsError, SessionInfo, SubscriptionFilters
from mcp_sessions.mcp import SubscriptionBus, application, streamable_http_app

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from mcp_sessions import Event, Receipt


async def stream(engine: mcp_sessions.Engine) -> list[str]:
    opened: EventStream = await engine.streams.open("s", after=None, conflict="reject")
    receipt: Receipt = await engine.streams.send("s", "x", idempotency_key="k")
    await engine.streams.send(["s", "t"], "x")
    await engine.streams.send(ALL, "x")
    first: Event | None = await opened.next()
    texts = [] if first is None else [first.payload, first.cursor, first.kind]
    async with opened as it:
        async for event in it:
            texts.append(event.payload)
    if opened.end == "overflow":
        texts.append(opened.cursor)
    return texts if receipt.accepted else []


async def info(engine: mcp_sessions.Engine) -> SessionInfo | None:
    await engine.info.put("s", client_info={"name": "i"}, log_level="debug")
    level: str = await engine.info.get_log_level("s")
    return engine.info.cached("s") if level == "debug" else await engine.info.get("s")


async def listen(engine: mcp_sessions.Engine) -> None:
    filters: SubscriptionFilters = {"toolsListChanged": True, "resourceSubscriptions": ["file:///a"]}
    subscription = await engine.subscriptions.listen(1, "o", filters)
    if subscription is not None:
        subscription.acknowledge()
        async for notification in subscription:
            print(notification["method"])


def build(engine: mcp_sessions.Engine) -> Starlette:
    server = MCPServer("typed", subscriptions=SubscriptionBus(engine))
    return streamable_http_app(server, engine, host="0.0.0.0")


app = application("memory://", build, retention={"events": 10})


async def main() -> None:
    try:
        async with await mcp_sessions.connect(
            "memory://", retention={"events": 10}, lease={"ttl_ms": 900, "renew_ms": 300}
        ) as engine:
            print(
                await stream(engine),
                await info(engine),
                (await engine.health()).ready,
                engine.stats().streams,
            )
    except McpSessionsError as error:
        print(error.code, error.retryable, error.outcome_unknown, error.operation)
