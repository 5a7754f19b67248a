"""Loops, threads and processes: callbacks arrive where they are awaited, and nothing hangs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading

import pytest

import mcp_sessions
from mcp_sessions import _loop


def test_several_loops_in_several_threads_share_an_engine(url, run, wait):
    """Each thread's loop gets what is its own, on its own thread."""
    count = 4
    engine = run(mcp_sessions.connect(url))
    problems = []

    async def talk(name):
        thread = threading.get_ident()
        stream = await engine.streams.open(name)
        for n in range(50):
            await engine.streams.send(name, f"{name}-{n}")
            event = await wait(stream.next())
            assert event.payload == f"{name}-{n}"
            assert threading.get_ident() == thread
        await stream.close()

    def work(name):
        try:
            run(talk(name))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert problems == []
    run(engine.shutdown())


def test_a_stream_outlives_the_loop_that_opened_it(url, run, wait):
    async def opened():
        engine = await mcp_sessions.connect(url)
        return engine, await engine.streams.open("s")

    async def read():
        await engine.streams.send("s", "later")
        event = await wait(stream.next())
        await engine.shutdown()
        return event.payload

    engine, stream = run(opened())
    assert run(read()) == "later"


def test_a_loop_that_watches_no_socket(url, wait):
    """Windows' proactor is one; here a loop that refuses."""

    class Refusing(asyncio.SelectorEventLoop):
        def add_reader(self, fd, callback, *args):
            raise NotImplementedError

    async def main():
        async with await mcp_sessions.connect(url) as a, await mcp_sessions.connect(url) as b:
            stream = await a.streams.open("s")
            for n in range(20):
                read = asyncio.create_task(stream.next())
                await asyncio.sleep(0)
                await b.streams.send("s", str(n))
                assert (await wait(read)).payload == str(n)

    loop = Refusing()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_outside_of_a_loop_the_error_says_so():
    with pytest.raises(mcp_sessions.ConfigError, match="no running asyncio event loop"):
        mcp_sessions.connect("memory://").send(None)


def test_trio_is_told_that_it_cannot():
    trio = pytest.importorskip("trio")
    with pytest.raises(mcp_sessions.ConfigError, match="this is trio"):
        trio.run(mcp_sessions.connect, "memory://")


def test_an_engine_under_trio_says_so_in_every_call():
    """One that was connected by asyncio in a thread of its own, and the SDK's parts on it."""
    trio = pytest.importorskip("trio")
    from mcp.server import MCPServer

    from mcp_sessions.mcp import SubscriptionBus, streamable_http_app

    engine = asyncio.run(mcp_sessions.connect("memory://"))
    server = MCPServer("trio", subscriptions=SubscriptionBus(engine))
    streamable_http_app(server, engine)

    async def main():
        with pytest.raises(mcp_sessions.ConfigError, match="this is trio"):
            await engine.streams.send("s", "x")
        with pytest.raises(mcp_sessions.ConfigError, match="this is trio"):
            SubscriptionBus(engine).subscribe(lambda _: None)
        with pytest.raises(mcp_sessions.ConfigError, match="this is trio"):
            async with server.session_manager.run():
                raise AssertionError("it runs")

    trio.run(main)
    asyncio.run(engine.shutdown())


def test_awaits_are_resolved_in_batches(redis_server, run, wait):
    """Not each by a wake-up of the loop."""

    async def main():
        async with await mcp_sessions.connect(f"{redis_server.url}?prefix=batches:") as engine:
            loop, port = _loop.here()
            woken = 0

            def drain():
                nonlocal woken
                woken += 1
                port.drain()

            loop.add_reader(port.fileno(), drain)
            count = 400
            assert (
                await wait(asyncio.gather(*(engine.streams.has(str(n)) for n in range(count))))
                == [False] * count
            )
            assert 0 < woken < count / 4

    run(main())


def python(code, *args, seconds=60, status=0):
    """Runs a program of its own, which must come to its end."""
    it = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *args],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert it.returncode == status, it.stderr
    return it.stdout, it.stderr


def test_nothing_hangs_at_exit(url):
    """Neither streams, nor awaits under way, nor an engine that nobody shut down keep the interpreter."""
    out, err = python(
        """
        import asyncio, sys, mcp_sessions
        kept = []
        async def main():
            engine = await mcp_sessions.connect(sys.argv[1])
            stream = await engine.streams.open("s")
            kept.extend([engine, stream, asyncio.ensure_future(stream.next())])
            await asyncio.sleep(0)
            for n in range(100):
                kept.append(asyncio.ensure_future(engine.streams.send("t", "x")))
            await asyncio.sleep(0)
            print("end")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        """,
        url,
    )
    assert out == "end\n"
    assert "panicked" not in err


def test_nothing_hangs_when_a_thread_waits_at_exit(url):
    out, _ = python(
        """
        import asyncio, sys, threading, mcp_sessions
        ready = threading.Event()
        async def wait():
            engine = await mcp_sessions.connect(sys.argv[1])
            stream = await engine.streams.open("s")
            ready.set()
            await stream.next()
        threading.Thread(target=lambda: asyncio.run(wait()), daemon=True).start()
        ready.wait()
        print("end")
        """,
        url,
    )
    assert out == "end\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_child_of_a_fork_has_an_engine_of_its_own(url):
    """What the parent had is refused with a clear error, and dropped without harm; a new one works."""
    out, _ = python(
        """
        import asyncio, gc, os, sys, mcp_sessions
        url = sys.argv[1]
        async def open():
            engine = await mcp_sessions.connect(url)
            stream = await engine.streams.open("s")
            return engine, stream, await engine.subscriptions.listen(1, "o", {"toolsListChanged": True})
        async def refused():
            for call in (engine.streams.send("s", "x"), stream.next(), engine.health(), subscription.next()):
                try:
                    await call
                except mcp_sessions.ClosedError as error:
                    assert "before a fork: connect again in the child" in str(error), error
                else:
                    raise AssertionError(call)
            assert engine.is_closed
        async def works():
            async with await mcp_sessions.connect(url) as mine:
                stream = await mine.streams.open(f"child-{os.getpid()}")
                reading = asyncio.ensure_future(stream.next())
                await asyncio.sleep(0)
                await mine.streams.send(stream.session_id, "hello")
                assert (await asyncio.wait_for(reading, 20)).payload == "hello"
        async def goes_on():
            await engine.streams.send("s", "still")
            assert (await asyncio.wait_for(stream.next(), 20)).payload == "still"
            await engine.shutdown()
        engine, stream, subscription = asyncio.run(open())
        children = []
        for n in range(3):
            child = os.fork()
            if child == 0:
                asyncio.run(refused())
                del engine, stream, subscription
                gc.collect()
                asyncio.run(works())
                if n == 0:
                    # A child of the child.
                    grandchild = os.fork()
                    if grandchild == 0:
                        asyncio.run(works())
                        os._exit(0)
                    assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
                sys.exit(0)
            children.append(child)
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        asyncio.run(goes_on())
        print("end")
        """,
        url,
        seconds=120,
    )
    assert out.endswith("end\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_the_engine_is_busy(url):
    """Pre-fork servers fork from a busy master: nobody may wait for a lock that no thread will give back."""
    out, _ = python(
        """
        import asyncio, os, sys, threading, mcp_sessions
        url = sys.argv[1]
        stop = threading.Event()
        async def busy():
            engine = await mcp_sessions.connect(url)
            stream = await engine.streams.open("s")
            while not stop.is_set():
                await asyncio.gather(*(engine.streams.send("s", "x") for _ in range(20)))
                stream.try_next()
                await stream.next_batch()
            await engine.shutdown()
        async def works():
            async with await mcp_sessions.connect(url) as mine:
                stream = await mine.streams.open(f"child-{os.getpid()}")
                await mine.streams.send(stream.session_id, "hello")
                assert (await asyncio.wait_for(stream.next(), 20)).payload == "hello"
        thread = threading.Thread(target=lambda: asyncio.run(busy()))
        thread.start()
        for n in range(20):
            child = os.fork()
            if child == 0:
                asyncio.run(works())
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        thread.join()
        print("end")
        """,
        url,
        seconds=180,
    )
    assert out == "end\n"


def test_multiprocessing_by_fork(redis_server):
    out, _ = python(
        """
        import asyncio, multiprocessing, sys, mcp_sessions
        async def opened():
            engine = await mcp_sessions.connect(sys.argv[1])
            return engine, await engine.streams.open("s")
        async def sent():
            async with await mcp_sessions.connect(sys.argv[1]) as mine:
                return (await mine.streams.send("s", "from the child")).accepted
        def child(n):
            return asyncio.run(sent())
        engine, stream = asyncio.run(opened())
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(child, range(4)) == [1] * 4
        async def read():
            for _ in range(4):
                assert (await asyncio.wait_for(stream.next(), 20)).payload == "from the child"
            await engine.shutdown()
        asyncio.run(read())
        print("end")
        """,
        f"{redis_server.url}?prefix=pool:",
    )
    assert out == "end\n"
