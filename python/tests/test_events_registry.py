"""The event log and the session registry of the engine."""

from __future__ import annotations

import asyncio

import pytest

import mcp_sessions

from .conftest import engines


def test_what_one_node_appends_is_replayed_on_another(registry_url, run, wait):
    async def main():
        a, b = await engines(registry_url)
        log, elsewhere = a.events("s"), b.events("s")
        first = await log.prime("_GET_stream")
        await log.append("_GET_stream", "one")
        await log.append("other", "not this")
        two = await log.append("_GET_stream", "two")
        replay = await elsewhere.replay(first)
        assert [event.payload for event in replay.events] == ["one", "two"]
        assert (replay.stream, replay.gap, replay.ended) == ("_GET_stream", False, False)
        assert elsewhere.stream_of(two) == "_GET_stream"
        # Another session has streams of the same name, and refuses these ids.
        for foreign in (b.events("t").replay(first), b.events("t").tail(first)):
            with pytest.raises(mcp_sessions.InvalidInputError):
                await foreign
        async with await elsewhere.tail(two) as tail:
            reading = asyncio.ensure_future(tail.next())
            await asyncio.sleep(0)
            await log.append("_GET_stream", "three")
            assert (await wait(reading)).payload == "three"
            await log.end("_GET_stream")
            assert await wait(tail.next()) is None
        assert [event.payload for event in (await log.read("_GET_stream")).events] == ["one", "two", "three"]
        assert (await log.read("_GET_stream")).ended
        assert await log.forget("other")
        assert await log.forget_all() == 1
        await a.shutdown()
        await b.shutdown()

    run(main())


def test_a_follower_goes_on_where_the_last_one_stopped(registry_url, run, wait):
    async def main():
        a, b = await engines(registry_url)
        here, there = a.events("s"), b.events("s")
        await here.append("g", "early")
        async with await there.follow("g") as first:
            assert (first.stream, first.gap) == ("g", False)
            assert (await wait(first.next())).payload == "early"
            await here.append("g", "live")
            assert (await wait(first.next())).payload == "live"
            # Not read: it is the next one's.
            await here.append("g", "unread")
        assert first.end_reason == "closed"
        await here.append("g", "missed")
        async with await here.follow("g") as second:
            assert not second.gap
            assert [(await wait(anext(second))).payload for _ in range(2)] == ["unread", "missed"]
            # A newer one takes over, and begins there.
            third = await there.follow("g")
            await there.append("g", "last")
            assert (await wait(third.next())).payload == "last"
            assert await wait(second.next()) is None
            assert second.end_reason == "replaced"
            await here.end("g")
            assert await wait(third.next()) is None
        for bad in ("", "x" * 129, 7):
            with pytest.raises(mcp_sessions.InvalidInputError):
                await here.follow(bad)
        await a.shutdown()
        await b.shutdown()

    run(main())


def test_a_session_lives_and_dies_on_every_node(registry_url, run, wait):
    async def main():
        a, b = await engines(registry_url)
        id = await a.registry.create(owner="ada", metadata={"plan": "pro"})
        await a.info.put(id, protocol_version="2025-11-25")
        record = await b.registry.get(id, owner="ada")
        assert (record.id, record.node, record.state) == (id, a.node_id, "active")
        assert record.metadata == {"plan": "pro"}
        assert record.info.protocol_version == "2025-11-25"
        assert record.owner != "ada"
        assert await b.registry.get(id, owner="bob") is None
        assert await b.registry.get(id) is None
        assert (await b.registry.get(id, trusted=True)).id == id
        assert (await b.registry.get_by_owner("ada")).id == id
        async with await b.registry.begin_request(id):
            assert (await a.registry.peek(id)).active_requests == 1
        assert (await a.registry.peek(id)).active_requests == 0
        assert [one.id for one in (await b.registry.list(owner="ada", info=True)).sessions] == [id]
        assert (await b.registry.stats()).by_node == {a.node_id: 1}
        with pytest.raises(mcp_sessions.ConflictError):
            await b.registry.register(id)
        closings = a.registry.closings()
        assert await b.registry.close(id, "deleted")
        assert await wait(closings.next()) == mcp_sessions.Closing(id, "deleted")
        assert not await a.registry.has(id)
        with pytest.raises(mcp_sessions.NotFoundError):
            await a.registry.begin_request(id)
        assert (await a.registry.peek(id)).reason == "deleted"
        await a.registry.create(owner="ada")
        assert await b.registry.close_by_owner("ada", "logout") == 1
        assert await b.registry.sweep_stale() == 0
        await b.registry.create()
        assert (await b.registry.shutdown(1_000)).closed == 1
        await a.shutdown()
        await b.shutdown()

    run(main())
