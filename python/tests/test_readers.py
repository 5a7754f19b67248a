"""Several readers of one source are served in the order in which they asked, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading

import pytest

import mcp_sessions
from mcp_sessions import _loop

from .conftest import NUMBERS, engines

TOOLS = "notifications/tools/list_changed"


@pytest.fixture
def embedded():
    """Where a call that need not wait is done when it returns: every moment can be chosen."""
    return f"memory://readers-{next(NUMBERS)}"


class Stepped:
    """An await that is told of each time it has to wait."""

    def __init__(self, work, waits):
        self._work = work
        self._waits = waits

    def __await__(self):
        steps = self._work.__await__()
        while True:
            try:
                step = steps.send(None)
            except StopIteration as done:
                return done.value
            self._waits()
            yield step


def at_once(work):
    """A call that need not wait."""
    with pytest.raises(StopIteration):
        work.send(None)


async def begun(work):
    """A task that waits already."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return task


def payloads(events):
    return [event.payload for event in events]


def test_what_comes_between_two_readers_that_were_woken_is_the_first_ones(embedded, run, wait):
    """One event comes, then two more while the second reader finds that there is none for it yet."""

    async def main():
        async with await mcp_sessions.connect(embedded) as engine:
            stream = await engine.streams.open("s")
            waited = 0

            def waits():
                nonlocal waited
                waited += 1
                if waited == 2:
                    for payload in ("1", "2"):
                        at_once(engine.streams.send("s", payload))

            async def second():
                return await Stepped(stream.next(), waits)

            readers = [await begun(stream.next()), await begun(second()), await begun(stream.next())]
            await engine.streams.send("s", "0")
            assert payloads(await wait(asyncio.gather(*readers))) == ["0", "1", "2"]

    run(main())


@pytest.mark.parametrize("late", ["next", "try_next", "next_batch", "async for"])
def test_who_comes_late_does_not_overtake_who_waits(embedded, run, wait, late):
    async def main():
        async with await mcp_sessions.connect(embedded) as engine:
            stream = await engine.streams.open("s")
            first = await begun(stream.next())
            # It has come, and the first one was not woken yet.
            await engine.streams.send("s", "0")
            if late == "try_next":
                assert stream.try_next() is None
            else:
                reader = {"next": stream.next, "next_batch": stream.next_batch, "async for": stream.__anext__}
                second = await begun(reader[late]())
                await engine.streams.send("s", "1")
                read = await wait(second)
                assert payloads(read if isinstance(read, list) else [read]) == ["1"]
            assert (await wait(first)).payload == "0"
            await engine.streams.send("s", "after")
            assert stream.try_next().payload == "after"

    run(main())


def test_readers_of_every_kind_take_turns(url, run, wait):
    async def main():
        async with await mcp_sessions.connect(url) as here, await mcp_sessions.connect(url) as there:
            stream = await here.streams.open("s")
            ended = await begun(stream.ended())
            kinds = [stream.next, stream.__anext__, lambda: stream.next_batch(1)]
            readers = [await begun(kinds[n % 3]()) for n in range(30)]
            await asyncio.gather(*(there.streams.send("s", str(n)) for n in range(30)))
            read = await wait(asyncio.gather(*readers))
            assert payloads(one[0] if isinstance(one, list) else one for one in read) == [
                str(n) for n in range(30)
            ]
            assert not ended.done()
            assert stream.try_next() is None
            # What waits when the stream ends, ends.
            readers = [await begun(kind()) for kind in kinds]
            await there.streams.close("s")
            got = await wait(asyncio.gather(*readers, return_exceptions=True))
            assert got[0] is None
            assert isinstance(got[1], StopAsyncIteration)
            assert got[2] == []
            assert await wait(ended) == "closed"

    run(main())


def test_a_batch_is_one_turn(url, run, wait):
    async def main():
        async with await mcp_sessions.connect(url) as engine:
            stream = await engine.streams.open("s")
            readers = [await begun(stream.next_batch(2)) for _ in range(3)]
            for n in range(6):
                await engine.streams.send("s", str(n))
            read = []
            for reader in readers:
                read += payloads(await wait(reader))
            while len(read) < 6:
                read += payloads(await wait(stream.next_batch()))
            assert read == [str(n) for n in range(6)]

    run(main())


@pytest.mark.parametrize("woken", [False, True])
@pytest.mark.parametrize("leaves", [0, 1, 2])
def test_one_that_gives_up_leaves_its_place_to_the_next(embedded, run, wait, leaves, woken):
    """Also at the very moment at which it was told to go on."""

    async def main():
        async with await mcp_sessions.connect(embedded) as engine:
            stream = await engine.streams.open("s")
            readers = [await begun(stream.next()) for _ in range(3)]
            if woken:
                await engine.streams.send("s", "0")
                _loop.here()[1].drain()
            gone = readers.pop(leaves)
            gone.cancel()
            await asyncio.wait([gone])
            assert gone.cancelled()
            if not woken:
                await engine.streams.send("s", "0")
            await engine.streams.send("s", "1")
            assert payloads(await wait(asyncio.gather(*readers))) == ["0", "1"]
            assert _loop.here()[1].waiting() == 0

    run(main())


def test_readers_that_give_up_at_any_moment_lose_nothing(url, run, wait):
    async def main():
        count = 300
        async with await mcp_sessions.connect(url, queue={"events": 10_000}) as engine:
            stream = await engine.streams.open("s")
            read = []

            async def reads(n):
                event = await (stream.next() if n % 2 else stream.next_batch(3))
                read.extend(event if isinstance(event, list) else [event])

            for n in range(count):
                readers = [asyncio.ensure_future(reads(n + m)) for m in range(3)]
                sent = asyncio.ensure_future(engine.streams.send("s", str(n)))
                # Each turn of the loop is another moment.
                for _ in range(n % 8):
                    await asyncio.sleep(0)
                for reader in readers[n % 2 :]:
                    reader.cancel()
                await sent
                for reader in readers[: n % 2]:
                    reader.cancel()
                await asyncio.wait(readers)
            while len(read) < count:
                read += await wait(stream.next_batch())
            assert payloads(read) == [str(n) for n in range(count)]
            assert _loop.here()[1].waiting() == 0

    run(main())


def test_a_reader_that_is_thrown_away_leaves_its_place(embedded, run, wait):
    """Not cancelled: its coroutine is closed, as a loop's end may leave it."""

    async def main():
        async with await mcp_sessions.connect(embedded) as engine:
            stream = await engine.streams.open("s")
            thrown = stream.next()
            thrown.send(None)
            second = await begun(stream.next())
            thrown.close()
            await engine.streams.send("s", "0")
            assert (await wait(second)).payload == "0"

    run(main())


def test_readers_on_two_loops_take_turns(url, run, wait):
    """Each on its own thread: who asked first is served first, wherever it waits."""
    engine = run(mcp_sessions.connect(url))
    stream = run(engine.streams.open("s"))
    waits, read = threading.Event(), []

    async def elsewhere():
        first = await begun(stream.next())
        waits.set()
        read.append((await wait(first)).payload)

    async def here():
        second = await begun(stream.next())
        await engine.streams.send("s", "0")
        await engine.streams.send("s", "1")
        return (await wait(second)).payload

    thread = threading.Thread(target=lambda: run(elsewhere()))
    thread.start()
    assert waits.wait(20)
    assert run(here()) == "1"
    thread.join(20)
    assert read == ["0"]
    run(engine.shutdown())


def test_subscriptions_tails_and_closings_take_turns(registry_url, run, wait):
    async def main():
        here, there = await engines(registry_url)
        subscription = await here.subscriptions.listen(1, "o", {"toolsListChanged": True})
        subscription.acknowledge()
        log = there.events("s")
        tail = await here.events("s").tail(await log.prime("g"))
        closings = here.registry.closings()
        sessions = [await here.registry.create() for _ in range(6)]

        def notification(n):
            return {"jsonrpc": "2.0", "method": TOOLS, "params": {"n": n}}

        readers = [[await begun(it.next()) for _ in range(6)] for it in (subscription, tail, closings)]
        for waiting in readers:
            waiting.pop(2).cancel()
            waiting.pop(0).cancel()
        for n in range(4):
            await there.subscriptions.send(notification(n))
            await log.append("g", str(n))
            await there.registry.close(sessions[n], str(n))
        heard, tailed, closed = readers
        assert [one["params"]["n"] for one in await wait(asyncio.gather(*heard))] == [0, 1, 2, 3]
        assert payloads(await wait(asyncio.gather(*tailed))) == ["0", "1", "2", "3"]
        assert [one.reason for one in await wait(asyncio.gather(*closed))] == ["0", "1", "2", "3"]
        await here.shutdown()
        await there.shutdown()

    run(main())
