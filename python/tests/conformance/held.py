"""Streams and subscriptions in a scenario's hands, and how they are read."""

from __future__ import annotations

import asyncio

from .check import Failed, same, shown, within
from .scenario import notifications, text, texts

# What fences begin with; reads pass over them.
FENCE = "\u0001fence-"


class Reader:
    """What is read one by one."""

    def __init__(self, node, source, what):
        self.node = node
        self.source = source
        # A step has looked at its end.
        self.end_expected = False
        self._what = what
        # A read that nothing has come for yet.
        self._asked = None

    def mark(self, item):
        """What marks a fence, if it is one."""
        raise NotImplementedError

    def plain(self, item):
        """An item as JSON."""
        raise NotImplementedError

    def _ask(self):
        if self._asked is None:
            self._asked = asyncio.ensure_future(self.source.next())
        return self._asked

    async def next_or_end(self, fence=None):
        """The next item that is not a fence (but for the one waited for), or None at the end."""
        while True:
            item = await within(self._ask(), f"waited in vain for the {self._what}'s next item")
            self._asked = None
            if item is None or not self._is_other_fence(item, fence):
                return item

    async def next(self, fence=None):
        item = await self.next_or_end(fence)
        if item is None:
            raise Failed(f"the {self._what} has ended ({self.source.end or 'no reason'})")
        return item

    async def now(self):
        """What is there now, if anything; a read that finds nothing waits for the next one."""
        while True:
            asked = self._ask()
            # What is there comes as soon as the read has begun; what was being waited for, once the loop
            # was woken and has turned.
            for _ in range(3):
                await asyncio.sleep(0)
            if not asked.done():
                return None
            self._asked = None
            item = asked.result()
            if item is None or not self._is_other_fence(item):
                return item

    async def nothing_unread(self):
        item = await self.now()
        if item is not None:
            raise Failed(f"unread {shown(self.plain(item))}")

    async def check_end(self, reason):
        same("end", await within(self.source.ended(), f"the {self._what} did not end"), reason)
        same("end at once", self.source.end, reason)
        self.end_expected = True

    async def check_leftovers(self):
        """Nothing unexpected is left over: nothing unread, no end."""
        await self.nothing_unread()
        end = self.source.end
        if end not in (None, "replaced") and not self.end_expected:
            raise Failed(f"it ended ({end}), and no step expects it")

    async def forget(self):
        """Lets go of what it reads, and of a read that waits."""
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.wait([self._asked])
            self._asked = None
        self.source = None

    def _is_other_fence(self, item, wanted=None):
        mark = self.mark(item)
        return isinstance(mark, str) and mark.startswith(FENCE) and mark != wanted


class Held(Reader):
    """A stream that the scenario opened."""

    def __init__(self, node, stream):
        super().__init__(node, stream, "stream")
        # The payloads read so far, fences left out.
        self.read = []

    def mark(self, item):
        return item.payload

    def plain(self, item):
        return {"payload": item.payload, "kind": item.kind}

    async def read_exactly(self, wanted):
        for one in wanted:
            if isinstance(one, dict) and "kind" in one:
                event = await self._next_event()
                same("event", event.payload, text(one["payload"]))
                same("kind", event.kind, one["kind"])
            else:
                await self.read_texts(texts(one))

    async def read_texts(self, wanted):
        for one in wanted:
            same("event", (await self._next_event()).payload, one)

    async def read_interleaved(self, sequences):
        left = [list(sequence) for sequence in sequences]
        while any(left):
            payload = (await self._next_event()).payload
            taken = next((sequence for sequence in left if sequence and sequence[0] == payload), None)
            if taken is None:
                raise Failed(f"{shown(payload)} is not next in any of the sequences")
            taken.pop(0)

    async def read_head(self, wanted, at_least, at_most):
        """Reads to the end of the stream."""
        await within(self.source.ended(), "the stream did not end")
        taken = 0
        while (event := await self.next_or_end()) is not None:
            self.read.append(event.payload)
            same("event", event.payload, wanted[taken] if taken < len(wanted) else "nothing more")
            taken += 1
        _check_count(taken, at_least, at_most)

    async def read_tail(self, wanted, at_least, at_most):
        """Reads until the last of `wanted`: what came must be the end of it, whole."""
        if not wanted:
            raise Failed("the list is empty")
        got = []
        while not got or got[-1] != wanted[-1]:
            if len(got) > len(wanted):
                raise Failed("more came than there is")
            got.append((await self._next_event()).payload)
        same("the end of the list", got, wanted[-len(got) :])
        _check_count(len(got), at_least, at_most)

    async def _next_event(self):
        event = await self.next()
        same("the cursor after the event", self.source.cursor, event.cursor)
        self.read.append(event.payload)
        return event


class Listening(Reader):
    """A subscription that the scenario made."""

    def __init__(self, node, subscription, filters):
        super().__init__(node, subscription, "subscription")
        # A notification that it lets through.
        self.fence = _fence_for(filters)

    def mark(self, item):
        params = item.get("params")
        return params.get("fence") if isinstance(params, dict) else None

    def plain(self, item):
        return item

    async def read_exactly(self, wanted):
        for one in (notification for written in wanted for notification in notifications(written)):
            same("notification", await self.next(), one)


def _fence_for(filters):
    def fence(kind, **params):
        return {"jsonrpc": "2.0", "method": f"notifications/{kind}", "params": params}

    for name, kind in (
        ("toolsListChanged", "tools/list_changed"),
        ("promptsListChanged", "prompts/list_changed"),
        ("resourcesListChanged", "resources/list_changed"),
    ):
        if filters.get(name):
            return fence(kind)
    uris = filters.get("resourceSubscriptions") or []
    return fence("resources/updated", uri=uris[0]) if uris else None


def _check_count(count, at_least, at_most):
    if not at_least <= count <= at_most:
        raise Failed(f"read {count} events, expected {at_least} to {at_most}")
