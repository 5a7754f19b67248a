"""The SDK's subscription bus over the engine: a change published on one node reaches them all."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any

from mcp.server.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.subscriptions import event_from_wire

from mcp_sessions._errors import InvalidInputError
from mcp_sessions._loop import here

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_sessions import Engine, Subscription

_log = logging.getLogger("mcp_sessions")
_numbers = itertools.count()

_METHODS: dict[type[Any], str] = {
    ToolsListChanged: "notifications/tools/list_changed",
    PromptsListChanged: "notifications/prompts/list_changed",
    ResourcesListChanged: "notifications/resources/list_changed",
    ResourceUpdated: "notifications/resources/updated",
}


class SubscriptionBus:
    """`MCPServer(subscriptions=SubscriptionBus(engine))`: listen streams hear of changes on every worker.

    It shares its notifications with the managers of the other languages: what a TypeScript server sends
    reaches Python's listeners, and the other way round. Delivery is live: what was published while a node
    could not be reached is not repeated, as the protocol has it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rooms: dict[asyncio.AbstractEventLoop, _Room] = {}

    async def publish(self, event: ServerEvent) -> None:
        """Deliver an event to the listeners of every node; return once the backend has accepted it.

        Raises `unavailable` or `timeout` when it does not.
        """
        method = _METHODS.get(type(event))
        if method is None:
            raise InvalidInputError(f"{type(event).__name__} is no event of a server", "subscriptions.send")
        notification: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if isinstance(event, ResourceUpdated):
            notification["params"] = {"uri": event.uri}
        await self._engine.subscriptions.send(notification)
        # A burst of one task lets the listen streams drain in between.
        await asyncio.sleep(0)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Call `listener` on this event loop with every event, of whatever node; returns how to stop that."""
        loop, _ = here()
        room = self._rooms.get(loop)
        if room is None:
            self._rooms = {loop: room for loop, room in self._rooms.items() if not loop.is_closed()}
            room = self._rooms[loop] = _Room(self._engine)
        token = room.add(listener)

        def unsubscribe() -> None:
            if room.remove(token) and self._rooms.get(loop) is room:
                del self._rooms[loop]

        return unsubscribe


class _Room:
    """The listeners of one event loop, and the subscription they share."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # By token: the same listener may be there twice.
        self._listeners: dict[object, Callable[[ServerEvent], None]] = {}
        self._subscription = self._listen()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    def add(self, listener: Callable[[ServerEvent], None]) -> object:
        token = object()
        self._listeners[token] = listener
        return token

    def remove(self, token: object) -> bool:
        """Take a listener out; true if it was the last one."""
        if self._listeners.pop(token, None) is None or self._listeners:
            return False
        self._reading.cancel()
        return True

    def _listen(self) -> Subscription:
        subscription = None
        while subscription is None:
            origin = f"mcp_sessions.mcp.SubscriptionBus-{next(_numbers)}"
            subscription = self._engine.subscriptions._everything(origin)  # noqa: SLF001
        subscription.acknowledge()
        return subscription

    async def _read(self) -> None:
        try:
            while True:
                async for notification in self._subscription:
                    event = event_from_wire(notification["method"], notification.get("params"))
                    if event is not None:
                        self._deliver(event)
                if self._subscription.end != "overflow":
                    return
                _log.warning("the event loop was too slow for the bus: some changes were not told")
                self._subscription = self._listen()
        finally:
            await self._subscription.close()

    def _deliver(self, event: ServerEvent) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener(event)
            except Exception:
                # One that fails does not keep it from the others.
                _log.exception("a subscription's listener raised")
