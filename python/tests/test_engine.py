"""The engine's API: connect, streams, info, subscriptions."""

from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import subprocess
import sys
import weakref

import pytest

import mcp_sessions
from mcp_sessions import ALL

from .conftest import engines

TOOLS = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


def test_an_event_crosses_nodes_and_is_resumed(url, run, wait):
    async def main():
        async with await mcp_sessions.connect(url) as a, await mcp_sessions.connect(url) as b:
            stream = await a.streams.open("s")
            assert await b.streams.send("s", "one") == await a.streams.send("s", "two")
            first = await wait(stream.next())
            assert (first.payload, first.kind) == ("one", "directed")
            assert stream.cursor == first.cursor
            # Elsewhere, later.
            resumed = await b.streams.open("s", after=first.cursor)
            assert not resumed.gap
            assert [event.payload for event in await wait(resumed.next_batch())] == ["two"]
            assert await wait(stream.ended()) == "replaced"
            assert await wait(stream.next()) is None
            await a.streams.send(ALL, "all")
            event = await wait(resumed.next())
            assert (event.payload, event.kind) == ("all", "broadcast")

    run(main())


def test_a_stream_is_an_async_iterator(url, run, wait):
    async def main():
        async with await mcp_sessions.connect(url) as engine:
            async with await engine.streams.open("s") as stream:
                for n in range(5):
                    await engine.streams.send("s", str(n))
                await engine.streams.close("s")
                assert await wait(collect(stream)) == ["0", "1", "2", "3", "4"]
                assert stream.end == "closed"
            assert not await engine.streams.has("s")

    async def collect(stream):
        return [event.payload async for event in stream]

    run(main())


def test_a_waiting_reader_is_woken_by_another_task(url, run, wait):
    async def main():
        async with await mcp_sessions.connect(url) as engine:
            stream = await engine.streams.open("s")
            readers = [asyncio.create_task(stream.next()) for _ in range(3)]
            await asyncio.sleep(0)
            for n in range(3):
                await engine.streams.send("s", str(n))
            got = await wait(asyncio.gather(*readers))
            assert [event.payload for event in got] == ["0", "1", "2"]

    run(main())


def test_many_awaits_at_once(url, run, wait):
    async def main():
        async with await mcp_sessions.connect(url, queue={"events": 10_000}) as engine:
            stream = await engine.streams.open("s")
            receipts = await wait(asyncio.gather(*(engine.streams.send("s", str(n)) for n in range(2_000))))
            assert sum(receipt.accepted for receipt in receipts) == 2_000
            read = []
            while len(read) < 2_000:
                read += [event.payload for event in await wait(stream.next_batch(100))]
            assert read == [str(n) for n in range(2_000)]

    run(main())


def test_a_slow_reader_ends_with_overflow(url, run, wait):
    async def main():
        async with await mcp_sessions.connect(url, queue={"events": 4}) as engine:
            stream = await engine.streams.open("s")
            for n in range(10):
                await engine.streams.send("s", str(n))
            assert await wait(stream.ended()) == "overflow"
            read = [event.payload async for event in stream]
            # Every other one is found again by the cursor.
            again = await engine.streams.open("s", after=stream.cursor)
            assert not again.gap
            while len(read) < 10:
                read.append((await wait(again.next())).payload)
            assert read == [str(n) for n in range(10)]

    run(main())


def test_a_stream_nobody_refers_to_is_given_back(url, run, wait):
    async def main():
        async with await mcp_sessions.connect(url) as engine:
            stream = await engine.streams.open("s")
            assert await engine.streams.has("s")
            del stream
            gc.collect()

            async def given_back():
                while await engine.streams.has("s"):
                    await asyncio.sleep(0.01)

            await wait(given_back())
            assert engine.stats().streams == 0

    run(main())


def test_info(url, run):
    async def main():
        a, b = await engines(url)
        await a.info.put("s", client_info={"name": "i", "version": "1"}, log_level="notice")
        assert await b.info.get("s") == mcp_sessions.SessionInfo(
            {"name": "i", "version": "1"}, None, "notice"
        )
        assert await b.info.get_log_level("s") == "notice"
        with pytest.raises(mcp_sessions.NotFoundError, match="Client capabilities not found for session s"):
            await b.info.get_client_capabilities("s")
        assert await a.info.add_subscription("s", "file:///a")
        assert await b.info.subscribers("file:///a") == ["s"]
        assert await b.info.subscriptions("s") == ["file:///a"]
        assert await b.info.delete("s")
        assert await b.info.get("s") is None
        await a.shutdown()
        await b.shutdown()

    run(main())


def test_subscriptions(url, run, wait):
    async def main():
        a, b = await engines(url)
        subscription = await a.subscriptions.listen(1, "o", {"toolsListChanged": True})
        assert await a.subscriptions.listen(1, "o", {}) is None
        other = await a.subscriptions.listen("1", "o", {"toolsListChanged": True})
        await b.subscriptions.send(TOOLS)
        subscription.acknowledge()
        assert await wait(subscription.next()) == TOOLS
        assert await a.subscriptions.close("1", "o", "closed")
        assert await wait(other.ended()) == "closed"
        ended = asyncio.create_task(subscription.ended())
        await asyncio.sleep(0)
        await subscription.close()
        assert await wait(ended) == subscription.end == "cancelled"
        assert await wait(subscription.next()) is None
        await a.shutdown()
        await b.shutdown()

    run(main())


def test_a_failed_call_says_what_and_why(url, run):
    async def main():
        async with await mcp_sessions.connect(url, max_payload_bytes=10) as engine:
            with pytest.raises(mcp_sessions.TooLargeError) as caught:
                await engine.streams.send("s", "x" * 11)
            error = caught.value
            assert (error.code, error.retryable, error.outcome_unknown) == ("too_large", False, False)
            assert error.operation == "streams.send"
            assert str(error) == "streams.send: the payload is 11 bytes, the limit is 10"
            await engine.shutdown()
            await engine.shutdown()
            with pytest.raises(mcp_sessions.ClosedError):
                await engine.streams.send("s", "x")

    run(main())


@pytest.mark.parametrize(
    "call",
    [
        lambda e: e.streams.send("a b", "x"),
        lambda e: e.streams.send(1, "x"),
        lambda e: e.streams.send(None, "x"),
        lambda e: e.streams.send(["s", 1], "x"),
        lambda e: e.streams.send(b"s", "x"),
        lambda e: e.streams.send("s", b"x"),
        lambda e: e.streams.send("s", "\ud800"),
        lambda e: e.streams.send("s", "x", idempotency_key=""),
        lambda e: e.streams.open("s", after="forged"),
        lambda e: e.streams.open("s", after=1),
        lambda e: e.streams.open("s", conflict="ask"),
        lambda e: e.streams.has("ü"),
        lambda e: e.info.set_client_info("s", [1]),
        lambda e: e.info.set_client_info("s", {"x": float("nan")}),
        lambda e: e.info.set_client_info("s", {"x": "\udc00"}),
        lambda e: e.info.set_client_info("s", {"x": object()}),
        lambda e: e.info.set_log_level("s", "loud"),
        lambda e: e.info.set_log_level("s", 7),
        lambda e: e.info.add_subscription("s", ""),
        lambda e: e.info.add_subscription("s", "\ud800"),
        lambda e: e.subscriptions.listen(None, "o", {}),
        lambda e: e.subscriptions.listen(True, "o", {}),
        lambda e: e.subscriptions.listen(float("inf"), "o", {}),
        lambda e: e.subscriptions.listen(1, "o", [1]),
        lambda e: e.subscriptions.listen(1, "o", {"resourceSubscriptions": "x"}),
        lambda e: e.subscriptions.send({"id": 1}),
        lambda e: e.subscriptions.send("x"),
        lambda e: e.subscriptions.close(1, "o", "lost"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_done(call):
    async def main():
        async with await mcp_sessions.connect("memory://") as engine:
            with pytest.raises(mcp_sessions.InvalidInputError) as caught:
                await call(engine)
            assert isinstance(caught.value, ValueError)
            assert caught.value.operation
            stats = engine.stats()
            assert (stats.streams, stats.subscriptions, stats.accepted) == (0, 0, 0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ftp://x", {}),
        (7, {}),
        ("memory://", {"queue": {"events": 0}}),
        ("memory://", {"queue": {"evnts": 1}}),
        ("memory://", {"retention": 7}),
        ("memory://", {"session_ttl_ms": "soon"}),
        ("memory://", {"session_ttl_ms": float("nan")}),
    ],
)
def test_bad_configuration_is_refused(url, options):
    with pytest.raises(mcp_sessions.ConfigError):
        asyncio.run(mcp_sessions.connect(url, **options))


def test_no_password_is_told():
    url = "redis://user:hunter2@127.0.0.1:1/0"
    with pytest.raises(mcp_sessions.UnavailableError) as caught:
        asyncio.run(mcp_sessions.connect(url, operation_timeout_ms=2_000))
    assert "hunter2" not in str(caught.value) + repr(caught.value)
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.retryable


def test_errors_are_pickled_whole():
    for kind in mcp_sessions.McpSessionsError.__subclasses__():
        error = kind("it failed", "streams.send", outcome_unknown=True)
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind
        assert (str(copy), copy.operation, copy.outcome_unknown) == (str(error), "streams.send", True)


def test_a_panic_is_an_error(capfd):
    from mcp_sessions import _native

    with pytest.raises(mcp_sessions.InternalError, match="please report it: on purpose") as caught:
        _native.panic_for_test()
    assert caught.value.outcome_unknown
    assert "on purpose" in capfd.readouterr().err


def test_everything_public_is_documented():
    for name in mcp_sessions.__all__:
        one = getattr(mcp_sessions, name)
        if inspect.isclass(one) or inspect.isfunction(one):
            assert one.__doc__, name
        for member, value in vars(one).items() if inspect.isclass(one) else ():
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert inspect.getdoc(getattr(one, member)), f"{name}.{member}"


def test_python_m_says_what_is_installed():
    said = subprocess.run(
        [sys.executable, "-m", "mcp_sessions"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert said.startswith(f"mcp-sessions {mcp_sessions.__version__} (")
    assert "redis" in said


def test_a_port_goes_with_its_loop():
    from mcp_sessions import _loop

    async def main():
        async with await mcp_sessions.connect("memory://") as engine:
            stream = await engine.streams.open("s")
            waits = asyncio.ensure_future(stream.next())
            await asyncio.sleep(0)
            port = _loop.here()[1]
            assert port.waiting() == 1
            waits.cancel()
            await asyncio.wait([waits])
            assert port.waiting() == 0
            return weakref.ref(port)

    port = asyncio.run(main())
    gc.collect()
    assert port() is None
