"""The SDK's session manager on the registry: a session lives on every worker, and dies on all of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any, cast

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, authorization_context
from mcp.server.connection import Connection
from mcp.server.runner import serve_connection
from mcp.server.streamable_http import (
    GET_STREAM_KEY,
    LAST_EVENT_ID_HEADER,
    MCP_SESSION_ID_HEADER,
    StreamableHTTPServerTransport,
)
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, InitializeRequestParams
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response

from mcp_sessions._errors import (
    ConfigError,
    InvalidInputError,
    McpSessionsError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from mcp_sessions._loop import here

from ._event_store import EventStore
from ._routing import Letter, Mail, Transport, asker_of, is_cancellation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup, TaskStatus
    from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
    from mcp.server.lowlevel import Server
    from starlette.types import Message, Receive, Scope, Send

    from mcp_sessions import Engine, SessionRecord, SessionRequest

_log = logging.getLogger("mcp_sessions")

# Among the resources a session is subscribed to, once it has had a GET stream.
_HAS_LISTENED = "mcp-sessions://listened"


class _Registered(StreamableHTTPSessionManager):
    """What the SDK's manager, or one that derives from it, learns of the registry."""

    _engine: Engine
    _own_store: EventStore
    _mail: Mail

    def _join(self, engine: Engine, store: EventStore) -> None:
        self._own_store = store
        if self.stateless:
            raise ConfigError("stateless servers have no sessions to share", "session manager")
        self._engine = engine
        self._mail = Mail(engine)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the manager; sessions that are closed on another worker end here, too."""
        # Elsewhere than on asyncio that is said now, and not by every request.
        here()
        async with super().run():
            group = self._task_group
            if group is None:
                raise ConfigError(
                    "this version of the SDK is not supported: no task group", "session manager"
                )
            group.start_soon(self._follow_closings)
            await group.start(self._mail.follow, self._deliver)
            yield

    async def _deliver(self, letter: Letter) -> None:
        """Take in what another worker passes on; a session that is slow to take it holds up no other."""
        transport = self._server_instances.get(letter.session_id)
        if transport is not None and self._task_group is not None:
            self._task_group.start_soon(_hand_over, letter, transport)

    async def _follow_closings(self) -> None:
        async for closing in self._engine.registry.closings():
            transport = self._server_instances.get(closing.session_id)
            if transport is not None:
                _log.info("session %s was closed: %s", closing.session_id, closing.reason)
                await self._discard_session(closing.session_id, transport)

    async def _handle_stateful_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        session_id = Headers(scope=scope).get(MCP_SESSION_ID_HEADER)
        if session_id is None:
            await super()._handle_stateful_request(scope, receive, send)
            return
        said: dict[str, Any] | None = None
        try:
            if scope["method"] == "POST":
                messages, said = await _read(receive)
                receive = _again(messages, receive)
                asker = asker_of(said)
                if said is not None and asker is not None and asker != self._mail.worker:
                    answer = await self._pass_on(asker, Letter.of(session_id, scope, said), scope)
                    await answer(scope, receive, send)
                    return
            request = await self._begin(session_id, scope)
        except McpSessionsError as problem:
            await _refusal(problem)(scope, receive, send)
            return
        try:
            if scope["method"] == "DELETE":
                send = self._closing(session_id, send)
            await super()._handle_stateful_request(await self._live(session_id, scope), receive, send)
            if said is not None and is_cancellation(said):
                await self._mail.send_others(Letter.of(session_id, scope, said))
        except McpSessionsError as problem:
            _log.warning("a cancellation was not passed on: %s", problem)
        finally:
            with anyio.CancelScope(shield=True), contextlib.suppress(McpSessionsError):
                await request.end()

    async def _pass_on(self, asker: str, letter: Letter, scope: Scope) -> Response:
        """Pass an answer on to the worker that waits for it, if it is the session's client that gives it."""
        if await self._engine.registry.get(letter.session_id, owner=_token(_requestor(scope))) is None:
            raise NotFoundError("Session not found", "session")
        if await self._mail.send(asker, letter):
            return Response(status_code=202, headers={MCP_SESSION_ID_HEADER: letter.session_id})
        return _error(
            400, INVALID_REQUEST, "The worker that asked for this is gone: nobody waits for the answer"
        )

    async def _begin(self, session_id: str, scope: Scope) -> SessionRequest:
        """Count the request; a session of another worker is taken in first."""
        registry = self._engine.registry
        if session_id not in self._server_instances:
            requestor = _requestor(scope)
            record = await registry.get(session_id, owner=_token(requestor))
            if record is None:
                raise NotFoundError("Session not found", "session")
            await self._adopt(record, requestor)
        return await registry.begin_request(session_id)

    async def _live(self, session_id: str, scope: Scope) -> Scope:
        """Have a new GET stream read the log: its messages may come from any worker.

        The first one begins where the session did, any other where it is opened itself.
        """
        headers = Headers(scope=scope)
        if scope["method"] != "GET" or LAST_EVENT_ID_HEADER in headers or not self._own_store.live:
            return scope
        first = await self._engine.info.add_subscription(session_id, _HAS_LISTENED)
        record = await self._engine.registry.peek(session_id) if first else None
        begin = record.metadata.get(GET_STREAM_KEY) if record is not None and record.metadata else None
        if begin is None:
            begin = await self._engine.events(session_id).prime(GET_STREAM_KEY)
        added = (LAST_EVENT_ID_HEADER.encode("ascii"), begin.encode("ascii"))
        return {**scope, "headers": [*scope["headers"], added]}

    def _closing(self, session_id: str, send: Send) -> Send:
        """Close the session before the client is told that it is closed."""

        async def closed(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:  # noqa: PLR2004
                await self._engine.registry.close(session_id, "deleted")
            await send(message)

        return closed

    async def _serve_opening_request(
        self, http_transport: StreamableHTTPServerTransport, scope: Scope, receive: Receive, send: Send
    ) -> None:
        session_id = cast("str", http_transport.mcp_session_id)
        messages, request = await _read(receive)
        params = _params_of_initialize(request)
        if params is None:
            # No `initialize`: the SDK says so.
            await super()._serve_opening_request(http_transport, scope, _again(messages, receive), send)
            return
        try:
            await self._register(session_id, _requestor(scope), params)
        except McpSessionsError as problem:
            await self._discard_session(session_id, http_transport)
            await _refusal(problem)(scope, receive, send)
            return
        Transport.take_over(http_transport, self._mail.worker)
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await super()._serve_opening_request(http_transport, scope, _again(messages, receive), watched)
        finally:
            if not 0 < status < 400:  # noqa: PLR2004
                with anyio.CancelScope(shield=True), contextlib.suppress(McpSessionsError):
                    await self._engine.registry.close(session_id, "refused")

    async def _register(
        self, session_id: str, requestor: AuthorizationContext | None, params: dict[str, Any]
    ) -> None:
        """Register a session before its client knows it, with what the client said: for every worker."""
        begin = await self._engine.events(session_id).prime(GET_STREAM_KEY)
        metadata = {GET_STREAM_KEY: begin}
        await self._engine.registry.register(session_id, owner=_token(requestor), metadata=metadata)
        try:
            handshake = InitializeRequestParams.model_validate(params, by_name=False)
        except ValidationError:
            # The SDK answers that.
            return
        # At once: one round trip.
        await asyncio.gather(
            self._engine.info.put(
                session_id,
                client_info=params["clientInfo"],
                client_capabilities=params["capabilities"],
                protocol_version=_negotiated(handshake),
                initialize_params=params,
            ),
            self._mail.join(session_id),
        )

    async def _adopt(self, record: SessionRecord, requestor: AuthorizationContext | None) -> None:
        """Serve a session that another worker created, from where its client is: initialized."""
        async with self._session_creation_lock:
            if record.id in self._server_instances:
                return
            if self.max_sessions is not None and len(self._server_instances) >= self.max_sessions:
                raise UnavailableError("Too many open sessions", "session")
            if not await self._engine.registry.adopt(record.id):
                raise NotFoundError("Session not found", "session")
            await self._mail.join(record.id)
            transport = StreamableHTTPServerTransport(
                mcp_session_id=record.id,
                is_json_response_enabled=self.json_response,
                event_store=self.event_store,
                security_settings=self.security_settings,
                retry_interval=self.retry_interval,
                idle_timeout=self.session_idle_timeout,
            )
            Transport.take_over(transport, self._mail.worker)
            if requestor is not None:
                self._session_owners[record.id] = requestor
            self._server_instances[record.id] = transport
            await cast("TaskGroup", self._task_group).start(self._serve_adopted, transport, record)

    async def _serve_adopted(
        self,
        transport: StreamableHTTPServerTransport,
        record: SessionRecord,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        try:
            async with transport.connect() as (read_stream, write_stream):
                task_status.started()
                with transport.idle_scope or anyio.CancelScope():
                    dispatcher: JSONRPCDispatcher[Any] = JSONRPCDispatcher(
                        read_stream, write_stream, inline_methods=frozenset({"initialize"})
                    )
                    connection = Connection.for_loop(dispatcher, session_id=record.id)
                    params = record.info.initialize_params if record.info is not None else None
                    if params is not None:
                        handshake = InitializeRequestParams.model_validate(params, by_name=False)
                        connection.client_params = handshake
                        connection.protocol_version = _negotiated(handshake)
                        connection.initialized.set()
                    await serve_connection(
                        self.app, dispatcher, connection=connection, lifespan_state=self._lifespan_state
                    )
        except Exception:
            _log.exception("session %s failed", record.id)
        finally:
            await self._discard_session(record.id, transport)


class SessionManager(_Registered):
    """The SDK's `StreamableHTTPSessionManager` with its sessions in the engine's registry.

    A session is known on every worker: one that another worker created is taken in by the first request
    for it, with what its client said at `initialize`; a request of another credential than its own is
    answered as if there was no such session; one that is closed (a DELETE, `engine.registry.close`, or
    idle for `registry.stale_ms` on all workers) answers 404 everywhere. The stand-alone GET stream carries
    the session's messages of whatever worker, those before it was first opened too; a newer one takes over
    from it. The SDK's own idle timeout only frees what a worker holds.

    What a worker asks the client (sampling, elicitation, roots) bears its name: an answer, or progress, that
    reaches another worker is passed on to it, and a cancellation to every worker of the session. An answer
    to a worker that died meanwhile is refused with 400, in words.
    """

    def __init__(self, app: Server[Any], engine: Engine, **options: Any) -> None:
        store = EventStore(engine, live=True)
        super().__init__(app, **{"event_store": store, **options})
        self._join(engine, store)

    @staticmethod
    def take_over(manager: StreamableHTTPSessionManager, engine: Engine) -> StreamableHTTPSessionManager:
        """Put a manager that was made elsewhere, and does not run yet, on the registry; returns it."""
        store = EventStore(engine, live=True)
        kind = type(manager)
        members = {"event_store": property(lambda _: store, lambda _, __: None)}
        manager.__class__ = type("SessionManager", (_Registered, kind), members)
        cast("_Registered", manager)._join(engine, store)  # noqa: SLF001
        return manager


def _requestor(scope: Scope) -> AuthorizationContext | None:
    user = scope.get("user")
    return authorization_context(user) if isinstance(user, AuthenticatedUser) else None


def _token(requestor: AuthorizationContext | None) -> str | None:
    """Return what the registry keeps a keyed hash of."""
    return None if requestor is None else json.dumps(requestor, sort_keys=True)


def _negotiated(handshake: InitializeRequestParams) -> str:
    asked = str(handshake.protocol_version)
    return asked if asked in HANDSHAKE_PROTOCOL_VERSIONS else LATEST_HANDSHAKE_VERSION


async def _read(receive: Receive) -> tuple[list[Message], dict[str, Any] | None]:
    """Read a request to its end: its messages, and its body if that is a JSON object."""
    messages: list[Message] = []
    body = b""
    more = True
    while more:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
    try:
        said = json.loads(body.decode())
    except ValueError:
        return messages, None
    return messages, said if isinstance(said, dict) else None


def _params_of_initialize(request: dict[str, Any] | None) -> dict[str, Any] | None:
    if request is None or request.get("method") != "initialize" or "id" not in request:
        return None
    params = request.get("params")
    return params if isinstance(params, dict) else None


async def _hand_over(letter: Letter, transport: StreamableHTTPServerTransport) -> None:
    try:
        await letter.hand_to(transport)
    except Exception:
        # The session may be ending just now.
        _log.exception("what another worker passed on for session %s was not taken", letter.session_id)


def _again(messages: list[Message], receive: Receive) -> Receive:
    """Receive what was read already, then what follows."""
    left = list(messages)

    async def received() -> Message:
        return left.pop(0) if left else await receive()

    return received


def _refusal(problem: McpSessionsError) -> Response:
    """The SDK's answers, in its words; an outage is none of the session's ends."""
    if isinstance(problem, (NotFoundError, InvalidInputError)):
        return _error(404, INVALID_REQUEST, "Session not found")
    if isinstance(problem, TooLargeError):
        return _error(413, INVALID_REQUEST, str(problem))
    _log.warning("a request can't be served: %s", problem)
    answer = _error(503, INTERNAL_ERROR, "Sessions can't be reached now; try again")
    answer.headers["Retry-After"] = "1"
    return answer


def _error(status: int, code: int, message: str) -> Response:
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}, status)
