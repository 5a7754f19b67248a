"""Applications of the SDK and of FastMCP on an engine, and one that connects its engine itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from mcp_sessions._engine import connect
from mcp_sessions._errors import ConfigError

from ._sessions import SessionManager

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server import MCPServer
    from mcp.server.lowlevel import Server
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

    from mcp_sessions import Engine

_log = logging.getLogger("mcp_sessions")


def streamable_http_app(server: MCPServer[Any] | Server[Any], engine: Engine, **options: Any) -> Starlette:
    """`server.streamable_http_app(**options)` with its sessions and their events on the engine.

    >>> server = MCPServer("demo", subscriptions=SubscriptionBus(engine))
    >>> app = streamable_http_app(server, engine, host="0.0.0.0")
    """
    app = server.streamable_http_app(**options)
    SessionManager.take_over(server.session_manager, engine)
    return app


def http_app(server: Any, engine: Engine, **options: Any) -> Any:
    """`server.http_app(**options)` of a FastMCP server, with its sessions and their events on the engine."""
    from fastmcp.server.http import StreamableHTTPASGIApp

    class Endpoint(StreamableHTTPASGIApp):
        """Its manager is made when the application starts."""

        @property
        def session_manager(self) -> Any:
            return self.__dict__.get("session_manager")

        @session_manager.setter
        def session_manager(self, manager: Any) -> None:
            if manager is not None:
                SessionManager.take_over(manager, engine)
            self.__dict__["session_manager"] = manager

    app = server.http_app(**options)
    found = 0
    for route in app.routes:
        endpoint = getattr(route, "endpoint", None)
        while endpoint is not None and not isinstance(endpoint, StreamableHTTPASGIApp):
            endpoint = getattr(endpoint, "app", None)
        if endpoint is not None:
            endpoint.__class__ = Endpoint
            found += 1
    if found != 1:
        raise ConfigError(
            "this version of FastMCP is not supported: no endpoint was found", "session manager"
        )
    return app


class application:  # noqa: N801
    """An ASGI application that connects its engine when it starts, and shuts it down when it ends.

    Nothing is connected before the server runs the application, so it can be a module's global for any
    number of workers, forked or not: `uvicorn server:app --workers 4`, `gunicorn --preload …`. `build` is
    called once in each, with the engine, and returns the application to serve; `options` are those of
    `mcp_sessions.connect`. A backend that can't be reached, or a `build` that fails, ends the start.

    >>> app = application("redis://localhost", build)
    """

    def __init__(self, url: str, build: Callable[[Engine], ASGIApp], **options: Any) -> None:
        self._url = url
        self._build = build
        self._options = options
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif self._app is None:
            raise ConfigError(
                "the application was not started: serve it with its lifespan (uvicorn: --lifespan on)",
                "application",
            )
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            engine = await connect(self._url, **self._options)
        except Exception as problem:
            await _failed(problem, receive, send)
            return
        async with engine:
            try:
                app = self._build(engine)
            except Exception as problem:
                await _failed(problem, receive, send)
                return
            self._app = app
            try:
                await app(scope, receive, send)
            finally:
                self._app = None


async def _failed(problem: Exception, receive: Receive, send: Send) -> None:
    _log.error("the application does not start", exc_info=problem)
    await receive()
    await send({"type": "lifespan.startup.failed", "message": f"{type(problem).__name__}: {problem}"})
