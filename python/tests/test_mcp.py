"""The official SDK on the engine: two workers, one of them as good as the other."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json

import httpx
import pytest
from mcp import Client
from mcp.server.streamable_http import EventMessage, StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.subscriptions import ResourceUpdated, ToolsListChanged
from mcp.server.subscriptions import SubscriptionBus as Protocol
from mcp.shared.exceptions import MCPError
from mcp_types import JSONRPCNotification, JSONRPCResponse, jsonrpc_message_adapter

import mcp_sessions
from mcp_sessions.mcp import EventStore, KeyValue, SubscriptionBus

from .conftest import engines
from .support.client import INITIALIZE, RawClient, uri_of
from .support.front import front
from .support.workers import fast, official, served


@contextlib.asynccontextmanager
async def two_workers(url, make=official, **options):
    """Two workers, their engines, and an HTTP client."""
    a, b = await engines(url, **options)
    async with (
        a,
        b,
        served(make(a)) as first,
        served(make(b)) as second,
        httpx.AsyncClient(timeout=20) as http,
    ):
        yield first, second, a, b, http


def test_the_bus_is_what_the_sdk_expects():
    for name in ("publish", "subscribe"):
        ours, theirs = getattr(SubscriptionBus, name), getattr(Protocol, name)
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_a_change_reaches_the_listeners_of_every_node(url, run, wait):
    async def main():
        a, b = await engines(url)
        here, there = SubscriptionBus(a), SubscriptionBus(b)
        heard = asyncio.Queue()
        order = []
        stop = [
            there.subscribe(lambda event: order.append(("first", event))),
            there.subscribe(lambda _: 1 / 0),
            there.subscribe(heard.put_nowait),
            here.subscribe(lambda event: order.append(("here", event))),
        ]
        for event in (ToolsListChanged(), ResourceUpdated(uri="file:///a")):
            await here.publish(event)
            assert await wait(heard.get()) == event
        # What another language sends as a notification is heard, too.
        await a.subscriptions.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        assert await wait(heard.get()) == ToolsListChanged()
        with pytest.raises(mcp_sessions.InvalidInputError):
            await here.publish("tools")
        for unsubscribe in stop:
            unsubscribe()
            unsubscribe()
        await asyncio.sleep(0)
        assert (a.stats().subscriptions, b.stats().subscriptions) == (0, 0)
        assert [event for who, event in order if who == "here"].count(ToolsListChanged()) >= 1
        await a.shutdown()
        await b.shutdown()

    run(main())


def note(n):
    return JSONRPCNotification(jsonrpc="2.0", method="notifications/message", params={"n": n})


def test_the_event_store_keeps_sessions_apart(registry_url, run):
    async def main():
        async with await mcp_sessions.connect(registry_url) as engine:
            store = EventStore(engine)
            mine, other = store.for_session("mine"), store.for_session("other")
            primed = await mine.store_event("_GET_stream", None)
            foreign = await other.store_event("_GET_stream", None)
            for n in range(3):
                await mine.store_event("_GET_stream", note(n))
                await other.store_event("_GET_stream", note(100 + n))
            await mine.store_event("1", note(7))
            got = []

            async def take(event: EventMessage):
                got.append(event)

            assert await store.for_session("mine").replay_events_after(primed, take) == "_GET_stream"
            assert [event.message.params["n"] for event in got] == [0, 1, 2]
            after = got[1].event_id
            got.clear()
            assert await mine.replay_events_after(after, take) == "_GET_stream"
            assert [event.message.params["n"] for event in got] == [2]
            got.clear()
            for refused in (foreign, "forged", after[:-1]):
                assert await mine.replay_events_after(refused, take) is None
            assert got == []
            # A request's stream ends with its response: the client is told.
            request = await mine.store_event("9", None)
            await mine.store_event("9", JSONRPCResponse(jsonrpc="2.0", id=9, result={}))
            assert await mine.replay_events_after(request, take) is None
            assert len(got) == 1

    run(main())


MESSAGES = (
    '{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"plain"}}',
    '{"method":"notifications/message","jsonrpc":"2.0","params":{"data":"caf\\u00e9"}}',
    '{"jsonrpc":"2.0","method":"notifications/message","params":{"data":{"id":1,"result":2}}}',
    '{"jsonrpc":"2.0","method":"ping","params":{},"id":7}',
    '{"jsonrpc":"2.0","\\u0069d":"spelled out","method":"ping"}',
    '{"id":"seven","jsonrpc":"2.0","result":{"method":"ping"}}',
    '{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"no such method"}}',
    '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no JSON"}}',
)


@pytest.mark.parametrize("text", MESSAGES)
def test_a_message_of_any_language_is_replayed_as_what_it_is(text, run):
    async def main():
        async with await mcp_sessions.connect("memory://") as engine:
            store = EventStore(engine).for_session("s1")
            start = await store.store_event("stream", None)
            await engine.events("s1").append("stream", text)
            got = []

            async def take(event):
                got.append(event.message)

            await store.replay_events_after(start, take)
        assert got == [jsonrpc_message_adapter.validate_json(text)]
        assert type(got[0]) is type(jsonrpc_message_adapter.validate_json(text))

    run(main())


def test_a_live_replay_ends_though_its_session_was_closed_before(registry_url, run):
    async def main():
        async with await mcp_sessions.connect(registry_url) as engine:
            store = EventStore(engine, live=True).for_session("mine")
            await engine.registry.register("mine")
            primed = await store.store_event("_GET_stream", None)
            await engine.registry.close("mine", "deleted")

            async def take(event: EventMessage):
                raise AssertionError(event)

            assert await asyncio.wait_for(store.replay_events_after(primed, take), 60) is None

    run(main())


def test_the_event_store_asks_whose_events_they_are(run):
    async def main():
        async with await mcp_sessions.connect("memory://") as engine:
            store = EventStore(engine)
            with pytest.raises(mcp_sessions.ConfigError, match="for_session"):
                await store.store_event("_GET_stream", None)

            ids = {}
            for session in ("a", "b"):
                transport = StreamableHTTPServerTransport(session, event_store=store)
                # The SDK's own code calls the store.
                ids[session] = (await transport._mint_priming_event("_GET_stream", "2025-11-25"))["id"]
            assert engine.events("a").stream_of(ids["a"]) == "_GET_stream"
            with pytest.raises(mcp_sessions.InvalidInputError):
                engine.events("a").stream_of(ids["b"])

    run(main())


def test_what_is_reached_of_the_sdk_is_there():
    """Private names that the session manager needs: a new SDK that moves them fails here, not in service."""
    manager = StreamableHTTPSessionManager
    source = inspect.getsource(manager)
    for name in (
        "_server_instances",
        "_session_owners",
        "_session_creation_lock",
        "_task_group",
        "_lifespan_state",
        "self._handle_stateful_request(",
        "self._serve_opening_request(",
        "self._discard_session(",
    ):
        assert name in source, name
    assert list(inspect.signature(manager._handle_stateful_request).parameters) == [
        "self",
        "scope",
        "receive",
        "send",
    ]
    opening = ["self", "http_transport", "scope", "receive", "send"]
    assert list(inspect.signature(manager._serve_opening_request).parameters) == opening
    assert list(inspect.signature(manager._discard_session).parameters) == ["self", "session_id", "transport"]


def test_a_modern_client_hears_of_a_change_on_another_worker(registry_url, run, wait):
    async def main():
        async with (
            two_workers(registry_url) as (first, second, *_),
            Client(first, mode="2026-07-28") as listener,
            Client(second, mode="2026-07-28") as changer,
            listener.listen(tools_list_changed=True, resource_subscriptions=["file:///a"]) as changes,
        ):
            await changer.call_tool("change", {"uri": "file:///other"})
            await changer.call_tool("change", {"uri": "file:///a"})
            heard = {await wait(anext(changes)), await wait(anext(changes))}
            assert heard == {ToolsListChanged(), ResourceUpdated(uri="file:///a")}

    run(main())


def test_a_session_is_served_by_every_worker(registry_url, run):
    async def main():
        async with two_workers(registry_url) as (first, second, a, b, http):
            client = RawClient(http)
            session = await client.initialize(first)
            assert await client.call(first, "whoami") == (200, a.node_id)
            assert await client.call(second, "whoami") == (200, b.node_id)
            record = await a.registry.peek(session)
            assert record.info.client_info == INITIALIZE["clientInfo"]
            assert record.info.client_capabilities == {"sampling": {}}
            assert (await a.registry.stats()).total == 1
            # The end is everybody's.
            assert await client.delete(second) == 200
            assert (await client.call(first, "whoami"))[0] == 404
            assert (await client.call(second, "whoami"))[0] == 404
            assert (await a.registry.stats()).active == 0

    run(main())


def test_a_session_that_is_not_there_is_404(registry_url, run):
    async def main():
        async with two_workers(registry_url) as (first, _, _, _, http):
            for session in ("0" * 32, "x" * 300, "a b"):
                client = RawClient(http, {"mcp-session-id": session})
                assert (await client.call(first, "whoami"))[0] == 404

    run(main())


def test_the_get_stream_carries_the_messages_of_every_worker(registry_url, run):
    async def main():
        async with two_workers(registry_url) as (first, second, _, _, http):
            client, stranger = RawClient(http), RawClient(http)
            await client.initialize(first)
            await stranger.initialize(second)
            async with client.get(second) as stream:
                for worker, text in ((first, "1"), (second, "2"), (first, "3")):
                    await stranger.call(worker, "announce", text="not for others")
                    await client.call(worker, "announce", text=text)
                    event = await stream.next()
                    assert uri_of(event) == f"note:{text}"
            # Away: what is said meanwhile is found again, on the other worker.
            await client.call(first, "announce", text="4")
            await client.call(second, "announce", text="5")
            async with client.get(first, after=event["id"]) as stream:
                for text in ("4", "5"):
                    last = await stream.next()
                    assert uri_of(last) == f"note:{text}"
                await client.call(second, "announce", text="6")
                assert uri_of(await stream.next()) == "note:6"
            # Nobody else can read it.
            async with stranger.get(first, after=event["id"]) as stream:
                assert await stream.next() is None

    run(main())


def test_a_newer_get_stream_takes_over(registry_url, run):
    async def main():
        async with two_workers(registry_url) as (first, second, _, _, http):
            client = RawClient(http)
            await client.initialize(first)
            async with client.get(first) as old:
                await client.call(first, "announce", text="1")
                event = await old.next()
                async with client.get(second, after=event["id"]) as new:
                    await client.call(first, "announce", text="2")
                    assert uri_of(await new.next()) == "note:2"
                    await client.call(first, "announce", text="3")
                    assert uri_of(await new.next()) == "note:3"
                    # What was said before the new one had taken over may have come here, too; nothing after.
                    left = []
                    while (event := await old.next()) is not None:
                        left.append(uri_of(event))
                    assert left in ([], ["note:2"])

    run(main())


def test_an_idle_session_ends_on_every_worker(registry_url, run, wait):
    async def main():
        registry = {"stale_ms": 300, "sweep_ms": 100}
        async with two_workers(registry_url, registry=registry) as (first, second, a, _, http):
            client = RawClient(http)
            session = await client.initialize(first)

            async def ended():
                while await a.registry.has(session):
                    await asyncio.sleep(0.05)

            await wait(ended())
            assert (await client.call(second, "whoami"))[0] == 404
            assert (await client.call(first, "whoami"))[0] == 404

    run(main())


def test_the_sdks_client_goes_on_with_another_worker(registry_url, run):
    """A front that sends every request elsewhere: the official client notices nothing."""

    async def main():
        async with two_workers(registry_url) as (first, second, a, b, http):
            async with served(front(http, first, second)) as url:
                async with Client(url, mode="legacy") as client:
                    nodes = set()
                    for _ in range(6):
                        nodes.add((await client.call_tool("whoami", {})).content[0].text)
                    assert nodes == {a.node_id, b.node_id}
            assert (await a.registry.stats()).active == 0

    run(main())


def test_a_real_client_learns_that_its_session_is_gone(registry_url, run, wait):
    async def main():
        async with two_workers(registry_url) as (first, second, a, _, http):
            async with served(front(http, first, second)) as url, Client(url, mode="legacy") as client:
                await client.call_tool("whoami", {})
                [record] = (await a.registry.list()).sessions
                assert await a.registry.close(record.id, "banned")
                for _ in range(2):
                    with pytest.raises(MCPError, match="Session not found"):
                        await wait(client.call_tool("whoami", {}))

    run(main())


def test_fastmcp_on_two_workers(registry_url, run):
    async def main():
        async with two_workers(registry_url, fast) as (first, second, a, b, http):
            client = RawClient(http)
            await client.initialize(first)
            assert await client.call(first, "whoami") == (200, a.node_id)
            assert await client.call(second, "whoami") == (200, b.node_id)
            assert await client.call(first, "remember", value="42") == (200, "remembered")
            assert await client.call(second, "recall") == (200, "42")
            assert await client.delete(second) == 200
            assert (await client.call(first, "whoami"))[0] == 404

    run(main())


def test_key_value(url, run):
    async def main():
        from key_value.aio.protocols import AsyncKeyValue

        a, b = await engines(url)
        here, there = KeyValue(a), KeyValue(b)
        assert isinstance(here, AsyncKeyValue)
        await here.put("k", {"x": [1, "ü"]})
        assert await there.get("k") == {"x": [1, "ü"]}
        assert await there.ttl("k") == ({"x": [1, "ü"]}, None)
        # Neither collections nor odd keys get in each other's way.
        await here.put("k", {"x": 2}, collection="other", ttl=60)
        assert await here.get("k") == {"x": [1, "ü"]}
        value, left = await there.ttl("k", collection="other")
        assert value == {"x": 2}
        assert 0 < left <= 60
        await here.put("x", {"x": 3}, ttl=0)
        assert await here.get("x") is None
        for key in ("", "a b", "ü" * 500, "a:b"):
            await here.put(key, {"key": key})
            assert await there.get(key) == {"key": key}
        await here.put_many(["m1", "m2"], [{"n": 1}, {"n": 2}])
        assert await there.get_many(["m1", "m3", "m2"]) == [{"n": 1}, None, {"n": 2}]
        assert await there.delete("k")
        assert await there.delete_many(["k", "m1", "m2"]) == 2
        with pytest.raises(mcp_sessions.InvalidInputError):
            await here.put("k", {"x": object()})
        await a.shutdown()
        await b.shutdown()

    run(main())


def test_json_is_what_the_other_languages_write(run):
    """What `initialize` said is one document, the same in every language."""

    async def main():
        async with two_workers("memory://same") as (first, _, a, _, http):
            client = RawClient(http)
            session = await client.initialize(first)
            assert await a.info.get_initialize_params(session) == json.loads(json.dumps(INITIALIZE))

    run(main())
