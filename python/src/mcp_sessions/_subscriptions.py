"""Subscriptions of the modern era (`subscriptions/listen`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, cast

from ._errors import InvalidInputError
from ._json import read_object, write
from ._loop import here, result, taken

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from . import _native

SubscriptionEnd: TypeAlias = Literal["closed", "cancelled", "overflow", "shutdown"]
"""Why a subscription ended."""

Notification = dict[str, Any]
"""A JSON-RPC notification: an object with a method."""


class SubscriptionFilters(TypedDict, total=False):
    """What a `subscriptions/listen` request asks for; only that is sent. The names are the protocol's."""

    toolsListChanged: bool
    """`notifications/tools/list_changed`."""
    promptsListChanged: bool
    """`notifications/prompts/list_changed`."""
    resourcesListChanged: bool
    """`notifications/resources/list_changed`."""
    resourceSubscriptions: list[str]
    """`notifications/resources/updated` of these URIs."""


class Subscription:
    """A subscription of this node.

    Call `acknowledge` once the acknowledgement is written; what was sent until then waits, and follows in
    order. One that nobody refers to any more is cancelled.
    """

    __slots__ = ("__weakref__", "_id", "_native", "_origin")

    def __init__(self, native: _native.Subscription, id: str | int | float, origin: str) -> None:
        self._native = native
        self._id = id
        self._origin = origin

    @property
    def id(self) -> str | int | float:
        """The client's JSON-RPC id."""
        return self._id

    @property
    def origin(self) -> str:
        """Whose id it is."""
        return self._origin

    def acknowledge(self) -> None:
        """Let notifications follow: the acknowledgement was written."""
        self._native.acknowledge()

    @property
    def end(self) -> SubscriptionEnd | None:
        """Why it ended, if it has."""
        return self._native.end()

    async def ended(self) -> SubscriptionEnd:
        """Wait until it ends."""
        loop, port = here()
        got = self._native.ended(loop, port)
        return await result(got) if isinstance(got, tuple) else got

    async def next(self) -> Notification | None:
        """Return the next notification, in order; None once it has ended. Cancelling it loses nothing."""
        loop, port = here()
        got = self._native.next(loop, port)
        if isinstance(got, tuple):
            got = cast("str | None", await taken(got, loop, port))
        return None if got is None else read_object(got)

    async def close(self) -> None:
        """Cancel it. Closing it twice is fine."""
        self._native.close()

    def __aiter__(self) -> Subscription:
        """Iterate over the notifications until it ends."""
        return self

    async def __anext__(self) -> Notification:
        """Return the next notification."""
        notification = await self.next()
        if notification is None:
            raise StopAsyncIteration
        return notification

    async def __aenter__(self) -> Subscription:
        """Cancel it at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel it."""
        await self.close()

    def __repr__(self) -> str:
        return f"<Subscription {self._id!r} of {self._origin!r}, {self.end or 'live'}>"


class Subscriptions:
    """Serves `subscriptions/listen`: registrations are local, notifications reach every node.

    >>> subscription = await engine.subscriptions.listen(1, "connection-1", {"toolsListChanged": True})
    >>> subscription.acknowledge()
    >>> await engine.subscriptions.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    >>> (await subscription.next())["method"]
    'notifications/tools/list_changed'
    """

    __slots__ = ("_native",)

    def __init__(self, native: _native.Engine) -> None:
        self._native = native

    async def listen(
        self, id: str | int | float, origin: str, filters: SubscriptionFilters | Mapping[str, Any]
    ) -> Subscription | None:
        """Register a subscription; None when its id is taken in its origin.

        The id is the client's JSON-RPC id: 1 is not "1". Raises `invalid_input` or `too_large`.
        """
        operation = "subscriptions.create"
        if not isinstance(filters, dict):
            raise InvalidInputError("filters are a dict", operation)
        here()
        native = self._native.listen(_id(id, operation), origin, write(filters, "a filter", operation))
        return None if native is None else Subscription(native, id, origin)

    def _everything(self, origin: str) -> Subscription | None:
        """Register a subscription to all there is, for a bus whose listeners filter."""
        native = self._native.listen("0", origin, None)
        return None if native is None else Subscription(native, 0, origin)

    async def send(self, notification: Mapping[str, Any]) -> None:
        """Send a notification to the matching subscriptions of every node; return once it is accepted.

        When it is cancelled its outcome is unknown. Raises `invalid_input`, `too_large`, `timeout` or
        `unavailable`.
        """
        json = write(notification, "a notification", "subscriptions.send")
        loop, port = here()
        got = self._native.notify(loop, port, json)
        if isinstance(got, tuple):
            await result(got, "subscriptions.send")

    async def close(
        self, id: str | int | float, origin: str, reason: Literal["closed", "cancelled"] = "cancelled"
    ) -> bool:
        """End one subscription of this node; False when there is none."""
        return self._native.end_subscription(_id(id, "subscriptions.close"), origin, reason)

    async def close_all(
        self, origin: str | None = None, reason: Literal["closed", "cancelled"] = "cancelled"
    ) -> int:
        """End every subscription of this node, or those of one origin; return how many there were."""
        return self._native.end_subscriptions(origin, reason)


def _id(id: object, operation: str) -> str:
    if isinstance(id, bool) or not isinstance(id, (str, int, float)):
        raise InvalidInputError("a JSON-RPC id is a str or a number", operation)
    if isinstance(id, str):
        return json.dumps(id, ensure_ascii=False)
    return write(id, "a JSON-RPC id", operation)
