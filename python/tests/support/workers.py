"""Servers of the official SDK and of FastMCP, in this process or in one of their own."""

import asyncio
import contextlib
import json
import socket
import sys
from typing import get_args

import uvicorn
from mcp.server import MCPServer
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.streamable_http import GET_STREAM_KEY
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    EmptyResult,
    ListRootsRequest,
    ListRootsResult,
    LoggingLevel,
    SamplingMessage,
    SetLevelRequestParams,
    TextContent,
)
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import Route

import mcp_sessions
from mcp_sessions.mcp import KeyValue, SubscriptionBus, http_app, streamable_http_app

LEVELS = get_args(LoggingLevel)


class Answer(BaseModel):
    text: str


def official(engine, **options):
    """A server of the SDK on an engine."""
    cancelled = []
    released = asyncio.Event()
    server = MCPServer("worker", subscriptions=SubscriptionBus(engine), log_level="CRITICAL")

    @server.tool()
    async def whoami(ctx: Context) -> str:
        return engine.node_id

    @server.tool()
    async def announce(ctx: Context, text: str) -> str:
        """Tells the session's GET stream."""
        await ctx.session.send_resource_updated(f"note:{text}")
        return "announced"

    @server.tool()
    async def change(ctx: Context, uri: str) -> str:
        """Tells everybody that a resource changed."""
        await ctx.notify_resource_updated(uri)
        await ctx.notify_tools_changed()
        return "changed"

    @server.tool()
    async def elicit(ctx: Context, question: str) -> str:
        """Asks the client, on the response of this call."""
        answer = await ctx.elicit(question, Answer)
        return f"{answer.action}: {answer.data.text}"

    @server.tool()
    async def sample(ctx: Context, question: str) -> str:
        """Asks the client, which may tell how far it is."""
        told = []

        async def progress(done, total, message):
            told.append(message)

        content = SamplingMessage(role="user", content=TextContent(type="text", text=question))
        params = CreateMessageRequestParams(messages=[content], max_tokens=9)
        related = ServerMessageMetadata(related_request_id=ctx.request_id)
        got = await ctx.session.send_request(
            CreateMessageRequest(params=params),
            CreateMessageResult,
            metadata=related,
            progress_callback=progress,
        )
        return json.dumps([*told, got.content.text])

    @server.tool()
    async def roots(ctx: Context) -> str:
        """Asks the client, on its GET stream."""
        got = await ctx.session.send_request(ListRootsRequest(), ListRootsResult)
        return str(got.roots[0].uri)

    @server.tool()
    async def hang(ctx: Context, name: str) -> str:
        """Ends when it is cancelled."""
        await ctx.report_progress(0, message="begun")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(name)
        return "never"

    @server.tool()
    async def hung(ctx: Context) -> str:
        return json.dumps(cancelled)

    @server.tool()
    async def later(ctx: Context, text: str) -> str:
        """Tells the session's GET stream once it is released."""
        await ctx.report_progress(0, message="begun")
        await released.wait()
        released.clear()
        await ctx.session.send_resource_updated(f"note:{text}")
        return "announced"

    @server.tool()
    async def large(ctx: Context, size: int) -> str:
        return "x" * size

    async def release(_):
        released.set()
        return Response(status_code=204)

    app = streamable_http_app(server, engine, **options)
    of_the_legacy_era(server, engine)
    # Beside the protocol: it needs no backend.
    app.router.routes.append(Route("/release", release, methods=["POST"]))
    return app


def of_the_legacy_era(server, engine):
    """What such a server does itself: it tells all sessions, and keeps to their log levels."""

    @server.tool()
    async def change_lists(ctx: Context) -> str:
        """Tells every session, whoever serves it, that the lists changed."""
        for what in ("tools", "prompts", "resources"):
            await tell_all(engine, f"notifications/{what}/list_changed")
        return "changed"

    @server.tool()
    async def log(ctx: Context, levels: list[LoggingLevel]) -> str:
        """Says a line at each level that the client asked for."""
        try:
            least = await engine.info.get_log_level(ctx.headers["mcp-session-id"])
        except mcp_sessions.NotFoundError:
            least = "info"
        for level in levels:
            if LEVELS.index(level) >= LEVELS.index(least):
                await ctx.session.send_log_message(level=level, data=f"{level} on {engine.node_id}")
        return f"{least} on {engine.node_id}"

    async def set_level(ctx: ServerRequestContext, params: SetLevelRequestParams) -> EmptyResult:
        await engine.info.set_log_level(ctx.request.headers["mcp-session-id"], params.level)
        return EmptyResult()

    lowlevel = server.session_manager.app
    lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)


async def tell_all(engine, method):
    """Tells all sessions of the fleet, as any process can."""
    message = json.dumps({"jsonrpc": "2.0", "method": method})
    after = None
    while True:
        page = await engine.registry.list(state="active", after=after)
        logs = [engine.events(session.id) for session in page.sessions]
        await asyncio.gather(*(log.append(GET_STREAM_KEY, message) for log in logs))
        if (after := page.next) is None:
            return


def fast(engine, **options):
    """A server of FastMCP on an engine."""
    from fastmcp import Context as FastContext
    from fastmcp import FastMCP

    server = FastMCP("worker", session_state_store=KeyValue(engine))

    @server.tool
    async def whoami() -> str:
        return engine.node_id

    @server.tool
    async def remember(ctx: FastContext, value: str) -> str:
        await ctx.set_state("value", value)
        return "remembered"

    @server.tool
    async def recall(ctx: FastContext) -> str:
        return str(await ctx.get_state("value"))

    return http_app(server, engine, **options)


@contextlib.asynccontextmanager
async def served(app):
    """Serves an application on a free port of this process; its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="on", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
            if serving.done():
                serving.result()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        await serving
        listener.close()


async def main(kind, url, options):
    """One worker, in a process of its own; the first line of its output is its URL."""
    engine = await mcp_sessions.connect(url, **json.loads(options))
    make = {"official": official, "fast": fast}[kind]
    async with engine, served(make(engine)) as address:
        print(address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
