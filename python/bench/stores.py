"""Two event stores on the same work."""

from __future__ import annotations

import collections

from mcp.server.streamable_http import EventMessage, EventStore
from mcp_types import JSONRPCNotification

from bench.measure import ROUNDS, microseconds, per_second, row

REPLAYED = 100
MESSAGE = JSONRPCNotification(jsonrpc="2.0", method="notifications/message", params={"data": "x" * 440})


class Deques(EventStore):
    """The least a store in memory can do: what it holds is lost with its process."""

    def __init__(self, kept):
        self._streams = collections.defaultdict(lambda: collections.deque(maxlen=kept))
        self._places = {}
        self._last = 0

    async def store_event(self, stream_id, message):
        self._last += 1
        stream = self._streams[stream_id]
        if len(stream) == stream.maxlen:
            del self._places[stream[0].event_id]
        event = EventMessage(message, str(self._last))
        stream.append(event)
        self._places[event.event_id] = stream_id
        return event.event_id

    async def replay_events_after(self, last_event_id, send_callback):
        stream_id = self._places.get(last_event_id)
        after = False
        for event in self._streams[stream_id] if stream_id else ():
            if after and event.message is not None:
                await send_callback(event)
            after = after or event.event_id == last_event_id
        return stream_id


async def stores(name, ours, peer, peer_name, count, aim=None):
    """Append one at a time and 64 at once, and replay."""

    async def ignore(_):
        pass

    append, idle, replay = ([], []), ([], []), ([], [])
    for turn in range(ROUNDS):
        for side, store in enumerate((ours, peer)):
            stream = f"{name}-{turn}"
            first = await store.store_event(stream, None)
            for _ in range(REPLAYED):
                await store.store_event(stream, MESSAGE)
            replay[side].append(await microseconds(lambda: store.replay_events_after(first, ignore), 30))
            alone, many = f"{stream}-alone", f"{stream}-many"
            idle[side].append(await microseconds(lambda: store.store_event(alone, MESSAGE), count // 4))
            append[side].append(await per_second(lambda: store.store_event(many, MESSAGE), count, 64))
    row(f"{name}: append, one at a time", "µs", *idle, peer_name, aim)
    row(f"{name}: append, 64 at once", "events/s", *append, peer_name, aim)
    row(f"{name}: replay of {REPLAYED}", "µs", *replay, peer_name, aim)
