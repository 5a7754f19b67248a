"""The way of a client's answer to the worker that asked, and of a cancellation to those that may have begun."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import re
import secrets
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from mcp_sessions._errors import McpSessionsError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from types import TracebackType

    from anyio.abc import TaskStatus
    from mcp.shared._stream_protocols import ReadStream, WriteStream
    from mcp.shared.message import SessionMessage
    from mcp_types import JSONRPCMessage
    from starlette.types import Message, Scope

    from mcp_sessions import Engine, EventStream

_log = logging.getLogger("mcp_sessions")

# What a worker asks a client has this id, so that the answer names it wherever it arrives.
_ASKED = re.compile(r"(worker-[A-Za-z0-9_-]{16}):(\d{1,15})")
# The workers of a session, among the resources it is subscribed to: they go when the session does.
_WORKERS = "mcp-sessions://worker/"
_CANCELLED, _PROGRESS = "notifications/cancelled", "notifications/progress"
# Of a request that is passed on: what the SDK checks.
_HEADERS = frozenset(
    (b"host", b"origin", b"content-type", b"accept", b"mcp-session-id", b"mcp-protocol-version")
)
# Between tries to hear the other workers.
_PAUSE_SECONDS = 1.0
_FORGET_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Letter:
    """A request of a client, on its way from the worker it reached to another one."""

    session_id: str
    headers: list[tuple[str, str]]
    body: str

    @staticmethod
    def of(session_id: str, scope: Scope, message: dict[str, Any]) -> Letter:
        """Return what of a request another worker needs."""
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name in _HEADERS
        ]
        return Letter(session_id, headers, json.dumps(message))

    async def hand_to(self, transport: StreamableHTTPServerTransport) -> None:
        """Make the request again, where it belongs."""
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/", "headers": headers}
        body: Message = {"type": "http.request", "body": self.body.encode(), "more_body": False}

        async def receive() -> Message:
            return body

        async def send(_: Message) -> None:
            pass

        await transport.handle_request({**scope, "query_string": b""}, receive, send)


class Mail:
    """What the workers of a fleet send each other: each has a stream of its own, named by its name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.worker = f"worker-{secrets.token_urlsafe(12)}"

    async def join(self, session_id: str) -> None:
        """Note that this worker serves the session."""
        await self._engine.info.add_subscription(session_id, _WORKERS + self.worker)

    async def send(self, worker: str, letter: Letter) -> bool:
        """Send a letter; False if the worker is gone. Raises `unavailable`, `timeout` or `too_large`."""
        streams = self._engine.streams
        sent, lives = await asyncio.gather(streams.send(worker, _written(letter)), streams.has(worker))
        return lives and sent.accepted > 0

    async def send_others(self, letter: Letter) -> None:
        """Send a letter to all other workers that serve its session."""
        served = await self._engine.info.subscriptions(letter.session_id)
        workers = [uri.removeprefix(_WORKERS) for uri in served if uri.startswith(_WORKERS)]
        others = [worker for worker in workers if worker != self.worker]
        if others:
            await self._engine.streams.send(others, _written(letter))

    async def follow(
        self,
        deliver: Callable[[Letter], Awaitable[None]],
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Deliver what comes, in order, until it is cancelled or the engine is shut down."""
        cursor: str | None = None
        started = False
        try:
            while not self._engine.is_closed:
                stream = await self._open(cursor)
                if not started:
                    task_status.started()
                    started = True
                if stream is None:
                    await anyio.sleep(_PAUSE_SECONDS)
                    continue
                async for event in stream:
                    await deliver(Letter(*json.loads(event.payload)))
                    cursor = event.cursor
        finally:
            with anyio.move_on_after(_FORGET_SECONDS, shield=True), contextlib.suppress(McpSessionsError):
                await self._engine.streams.forget(self.worker)

    async def _open(self, cursor: str | None) -> EventStream | None:
        try:
            return await self._engine.streams.open(self.worker, after=cursor)
        except McpSessionsError as problem:
            _log.warning("the other workers can't be heard: %s", problem)
            return None


def _written(letter: Letter) -> str:
    return json.dumps([letter.session_id, letter.headers, letter.body], ensure_ascii=False)


def asker_of(message: dict[str, Any] | None) -> str | None:
    """Return the worker that a client's message answers; None for any other message."""
    if message is None:
        return None
    if message.get("method") == _PROGRESS:
        params = message.get("params")
        id = params.get("progressToken") if isinstance(params, dict) else None
    else:
        id = None if "method" in message else message.get("id")
    found = _ASKED.fullmatch(id) if isinstance(id, str) else None
    return None if found is None else found[1]


def is_cancellation(message: dict[str, Any] | None) -> bool:
    """Whether a client gives up a request it made, of whatever worker."""
    return message is not None and message.get("method") == _CANCELLED


class Transport(StreamableHTTPServerTransport):
    """The SDK's transport; what its server asks a client bears the worker's name."""

    _worker: str

    @staticmethod
    def take_over(transport: StreamableHTTPServerTransport, worker: str) -> None:
        """Give a transport that is not connected yet its worker's name."""
        transport.__class__ = Transport
        transport._worker = worker  # type: ignore[attr-defined]  # noqa: SLF001

    @contextlib.asynccontextmanager
    async def connect(
        self,
    ) -> AsyncGenerator[tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]], None]:
        """Connect as the SDK's does."""
        async with super().connect() as (reading, writing):
            yield _Reading(reading, self._worker), _Writing(writing, self._worker)


class _Stream:
    """What both directions have in common."""

    def __init__(self, inner: Any, worker: str) -> None:
        self._inner = inner
        self._worker = worker

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Writing(_Stream):
    """From the server to the client: the server's own numbers become names."""

    async def send(self, item: SessionMessage) -> None:
        message = _to_client(item.message, self._worker)
        await self._inner.send(dataclasses.replace(item, message=message))


class _Reading(_Stream):
    """From the client to the server: its own names become the server's numbers."""

    @property
    def last_context(self) -> Any:
        """The context of whoever sent the last message: the SDK looks for it."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        item: SessionMessage | Exception = await self._inner.receive()
        if isinstance(item, Exception):
            return item
        return dataclasses.replace(item, message=_to_server(item.message, self._worker))

    def __aiter__(self) -> _Reading:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None


def _to_client(message: JSONRPCMessage, worker: str) -> JSONRPCMessage:
    if isinstance(message, JSONRPCRequest) and isinstance(message.id, int):
        changed: dict[str, Any] = {"id": f"{worker}:{message.id}"}
        meta = (message.params or {}).get("_meta")
        # The SDK's token is the request's number.
        if isinstance(meta, dict) and meta.get("progressToken") == message.id:
            changed["params"] = {
                **(message.params or {}),
                "_meta": {**meta, "progressToken": changed["id"]},
            }
        return message.model_copy(update=changed)
    if isinstance(message, JSONRPCNotification) and message.method == _CANCELLED:
        id = (message.params or {}).get("requestId")
        if isinstance(id, int):
            params = {**(message.params or {}), "requestId": f"{worker}:{id}"}
            return message.model_copy(update={"params": params})
    return message


def _to_server(message: JSONRPCMessage, worker: str) -> JSONRPCMessage:
    if isinstance(message, (JSONRPCResponse, JSONRPCError)):
        id = _number(message.id, worker)
        return message if id is None else message.model_copy(update={"id": id})
    if isinstance(message, JSONRPCNotification) and message.method == _PROGRESS:
        token = _number((message.params or {}).get("progressToken"), worker)
        if token is not None:
            params = {**(message.params or {}), "progressToken": token}
            return message.model_copy(update={"params": params})
    return message


def _number(id: object, worker: str) -> int | None:
    """Return the server's number of what it asked; None if another worker, or nobody, asked."""
    found = _ASKED.fullmatch(id) if isinstance(id, str) else None
    return int(found[2]) if found is not None and found[1] == worker else None
