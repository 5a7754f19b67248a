"""Cancelling an await loses nothing, and says what is not known."""

from __future__ import annotations

import asyncio
import sys

import pytest

import mcp_sessions
from mcp_sessions import _loop


def test_a_cancelled_next_loses_no_event(url, run, wait):
    """An event comes at the very moment at which its reader gives up, again and again."""

    async def main():
        async with await mcp_sessions.connect(url) as engine:
            stream = await engine.streams.open("s")
            read = []
            for n in range(200):
                reader = asyncio.create_task(stream.next())
                await asyncio.sleep(0)
                sent = asyncio.create_task(engine.streams.send("s", str(n)))
                # Each turn of the loop is another moment.
                for _ in range(n % 7):
                    await asyncio.sleep(0)
                reader.cancel()
                await asyncio.wait([reader])
                await sent
                if not reader.cancelled():
                    read.append(reader.result().payload)
            while len(read) < 200:
                read.append((await wait(stream.next())).payload)
            assert read == [str(n) for n in range(200)]

    run(main())


def test_a_timeout_on_next_loses_no_event(url, run, wait):
    async def main():
        async with await mcp_sessions.connect(url) as engine:
            stream = await engine.streams.open("s")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.next(), 0.01)
            await engine.streams.send("s", "kept")
            assert (await wait(stream.next())).payload == "kept"

    run(main())


def test_a_cancelled_call_is_dropped_and_says_so(redis_server, run, wait):
    async def main():
        engine = await mcp_sessions.connect(f"{redis_server.url}?prefix=cancel:")
        cancelled = None
        while cancelled is None:
            send = asyncio.create_task(engine.streams.send("s", "x"))
            await asyncio.sleep(0)
            # Unless the answer was quicker.
            send.cancel()
            try:
                await send
            except asyncio.CancelledError as error:
                cancelled = error
        if sys.version_info >= (3, 11):
            [note] = cancelled.__notes__
            assert "streams.send was cancelled on its way: its outcome is unknown" in note
        assert _loop.here()[1].waiting() == 0
        # Those behind it go on.
        assert (await wait(engine.streams.send("s", "y"))).dropped == 1
        await engine.shutdown()

    run(main())


def test_a_cancelled_open_leaves_no_stream(redis_server, run, wait):
    async def main():
        engine = await mcp_sessions.connect(f"{redis_server.url}?prefix=cancel-open:")
        for turns in range(20):
            opening = asyncio.create_task(engine.streams.open("s"))
            for _ in range(turns % 5):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait([opening])
            del opening

        async def gone():
            while engine.stats().streams > 0 or await engine.streams.has("s"):
                await asyncio.sleep(0.01)

        await wait(gone())
        await engine.shutdown()

    run(main())


def test_a_task_group_cancels_its_readers(url, run):
    async def main():
        async with await mcp_sessions.connect(url) as engine:
            stream = await engine.streams.open("s")
            readers = [
                asyncio.create_task(one) for one in (stream.next(), stream.ended(), stream.next_batch())
            ]
            await asyncio.sleep(0)
            for reader in readers:
                reader.cancel()
            done = await asyncio.gather(*readers, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in done)
            assert _loop.here()[1].waiting() == 0

    run(main())
