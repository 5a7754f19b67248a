"""A process for one node at a time, for a runner in another language.

Does what `npm/test/conformance/remote.mjs` asks of its engine, streams and subscriptions: messages of JSON,
one a line, on the socket that Node opens for its children.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import itertools
import json
import os
import socket
import time
import weakref

import mcp_sessions
from mcp_sessions import ALL

from .backend import snake

PATIENCE_SECONDS = 10
MAX_LINE = 64 << 20


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def snaked(value):
    return {snake(name): snaked(one) for name, one in value.items()} if isinstance(value, dict) else value


def plain(value):
    """A value as JavaScript has it: what is None is left out."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {camel(name): plain(one) for name, one in fields.items() if one is not None}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


class Node:
    """What one process holds."""

    def __init__(self):
        self._things = {}
        self._numbers = itertools.count(1)
        self._reading = {}

    def _keep(self, thing):
        number = next(self._numbers)
        self._things[number] = thing
        return number

    async def connect(self, url, options=None):
        try:
            engine = await mcp_sessions.connect(url, **snaked(options or {}))
        except TypeError as error:
            # An option that Python does not know is refused by Python.
            raise mcp_sessions.ConfigError(str(error), "connect") from None
        return {
            "handle": self._keep(engine),
            "capability": plain(engine.capability),
            "nodeId": engine.node_id,
        }

    async def open(self, engine, id, options=None):
        given = {name: value for name, value in (options or {}).items() if value is not None}
        stream = await self._things[engine].streams.open(id, **given)
        return {
            "handle": self._keep(stream),
            "id": stream.session_id,
            "gap": stream.gap,
            "cursor": stream.cursor,
        }

    async def listen(self, engine, request):
        made = await self._things[engine].subscriptions.listen(
            request["id"], request["origin"], request["filters"]
        )
        return None if made is None else {"handle": self._keep(made)}

    async def tail(self, engine, scope, after):
        return self._tailed(await self._things[engine].events(scope).tail(after))

    async def follow(self, engine, scope, stream):
        return self._tailed(await self._things[engine].events(scope).follow(stream))

    def _tailed(self, tail):
        return {"handle": self._keep(tail), "gap": tail.gap}

    async def make(self, handle, path, args):
        return {"handle": self._keep(await self._called(handle, path, args))}

    async def events(self, engine, scope, name, args):
        return plain(await self._awaited(getattr(self._things[engine].events(scope), snake(name))(*args)))

    async def call(self, handle, path, args):
        return shown(await self._called(handle, path, args))

    async def _called(self, handle, path, args):
        target = self._things[handle]
        for name in path[:-1]:
            target = getattr(target, snake(name))
        while args and args[-1] is None:
            args = args[:-1]
        calls = CALLS.get(".".join(path))
        if calls is not None:
            return await self._awaited(calls(target, *args))
        return await self._awaited(getattr(target, snake(path[-1]))(*args))

    @staticmethod
    async def _awaited(result):
        return await result if asyncio.iscoroutine(result) else result

    async def next(self, handle):
        task = self._reading[handle] = asyncio.ensure_future(self._things[handle].next())
        try:
            item = await task
        except asyncio.CancelledError:
            # It was dropped.
            return {}
        finally:
            self._reading.pop(handle, None)
        cursor = getattr(self._things[handle], "cursor", None)
        return {"cursor": cursor} if item is None else {"item": item_of(item), "cursor": cursor}

    async def ended(self, handle):
        return await self._things[handle].ended()

    async def end(self, handle):
        source = self._things[handle]
        return source.end_reason if isinstance(source, mcp_sessions.EventTail) else source.end

    async def turn(self):
        # What is there comes as soon as the loop was woken and has turned.
        for _ in range(3):
            await asyncio.sleep(0)

    async def dispose(self, handle):
        del self._things[handle]

    async def drop(self, handle):
        reading = self._reading.pop(handle, None)
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
            del reading
        gone = weakref.ref(self._things.pop(handle))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while gone() is not None:
            if time.monotonic() > deadline:
                raise RuntimeError("it was not collected")
            await asyncio.sleep(0)
            gc.collect()

    async def forget_all(self):
        for reading in self._reading.values():
            reading.cancel()
        for thing in list(self._things.values()):
            if isinstance(thing, mcp_sessions.Engine):
                try:
                    await thing.shutdown()
                except mcp_sessions.McpSessionsError:
                    pass
        self._things.clear()
        gc.collect()


# Calls that are not the same in Python but for their names.
CALLS = {
    "streams.send": lambda streams, to, payload, options=None: streams.send(
        ALL if to is None else to, payload, **snaked(options or {})
    ),
    "info.put": lambda info, session, patch: info.put(
        session, **{snake(name): one for name, one in patch.items()}
    ),
    "info.getSubscriptions": lambda info, uri: info.subscribers(uri),
    "info.getSessionSubscriptions": lambda info, session: info.subscriptions(session),
    "registry.create": lambda registry, session=None: created(registry, **(session or {})),
    "registry.get": lambda registry, session, caller=None: registry.get(
        session,
        owner=(caller or {}).get("owner"),
        trusted=(caller or {}).get("trusted") or False,
    ),
    "registry.list": lambda registry, wanted=None, page=None: registry.list(
        **{name: one for name, one in {**(wanted or {}), **(page or {})}.items() if one is not None}
    ),
}


async def created(registry, id=None, owner=None, metadata=None):
    if id is None:
        return await registry.create(owner=owner, metadata=metadata)
    await registry.register(id, owner=owner, metadata=metadata)
    return id


def shown(value):
    """What a call gave, in JavaScript's shape."""
    if isinstance(value, mcp_sessions.Receipt):
        return {name: getattr(value, name) for name in ("accepted", "dropped", "duplicates")}
    if isinstance(value, mcp_sessions.Closing):
        return {"session": value.session_id, "reason": value.reason}
    if isinstance(value, mcp_sessions.SessionRecord):
        record = plain(value)
        record["idleMs"] = value.now_ms - value.last_access_ms
        record["ageMs"] = value.now_ms - value.created_ms
        return record
    if isinstance(value, mcp_sessions.SessionPage):
        page = {"sessions": [shown(one) for one in value.sessions]}
        return page if value.next is None else {**page, "next": value.next}
    return plain(value)


def item_of(item):
    if isinstance(item, mcp_sessions.Event):
        return {name: getattr(item, name) for name in ("payload", "cursor", "kind")}
    return plain(item)


def told(error):
    if not isinstance(error, mcp_sessions.McpSessionsError):
        return {"other": f"{type(error).__name__}: {error}"}
    return {
        "code": error.code,
        "message": error.message,
        "operation": error.operation,
        "retryable": error.retryable,
        "outcomeUnknown": error.outcome_unknown,
        "inspected": repr([error, error.args, error.__cause__, error.__context__]),
    }


async def answer(node, writer, asked):
    answered = {"number": asked["number"]}
    try:
        value = await getattr(node, snake(asked["name"]))(*asked["args"])
        if value is not None:
            answered["value"] = value
    except Exception as error:
        answered["error"] = told(error)
    writer.write(json.dumps(answered).encode() + b"\n")


async def main():
    channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
    reader, writer = await asyncio.open_connection(sock=channel, limit=MAX_LINE)
    node = Node()
    under_way = set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(node, writer, json.loads(line)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    # Nobody asks any more: gone as any process whose runner has ended.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
