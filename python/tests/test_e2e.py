"""What goes wrong with workers apart, and must not: the cases of `tests/e2e`, for the SDK of Python.

Two uvicorn workers in processes of their own; the official client, and one that is read byte by byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess

import httpx
import pytest
from mcp import Client
from mcp.server.subscriptions import ResourceUpdated, ToolsListChanged
from mcp.shared.exceptions import MCPDeprecationWarning

import mcp_sessions

from .conformance.proxy import Route
from .conftest import place
from .support.client import INITIALIZE, RawClient, listening, message_of, text_of, uri_of
from .support.front import front
from .support.redis_server import RedisServer
from .support.workers import official, served
from .test_processes import PACKAGE, Worker, two_workers
from .test_routing import ABLE, accepted


class Pair:
    """Two workers that stay, for all tests that leave them as they are."""

    def __init__(self, url):
        self.backend = url
        self._processes = []
        try:
            for _ in range(2):
                program = [*Worker.PROGRAM, "official", url, "{}"]
                pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
                self._processes.append(subprocess.Popen(program, cwd=PACKAGE, **pipes))
            self.first, self.second = (process.stdout.readline().strip() for process in self._processes)
            assert self.first and self.second, "a worker did not start"
        except BaseException:
            self.stop()
            raise

    def stop(self):
        for process in self._processes:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture(scope="module")
def pairs(request):
    made = {}

    def of(kind):
        if kind not in made:
            server = request.getfixturevalue(f"{kind}_server").url
            made[kind] = Pair(f"{server}?{'schema' if kind == 'postgres' else 'prefix'}=e2e-pair")
        return made[kind]

    yield of
    for pair in made.values():
        pair.stop()


@pytest.fixture(params=["redis", "postgres"])
def pair(request, pairs):
    return pairs(request.param)


@pytest.fixture
def redis_pair(pairs):
    """On Redis alone, for what is the same on any backend."""
    return pairs("redis")


@pytest.fixture(params=["redis", "postgres"])
def shared_url(request):
    return place(request)


@pytest.fixture
def one_url(redis_server, request):
    name = "".join(letter for letter in request.node.name if letter.isalnum())
    return f"{redis_server.url}?prefix={name}:"


def client_of():
    return httpx.AsyncClient(timeout=30)


def note(n):
    params = {"uri": f"note:{n}"}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params})


async def told(engine, session, numbers):
    """Tells a session's GET stream, as any process can."""
    log = engine.events(session)
    for n in numbers:
        await log.append("_GET_stream", note(n))


async def heard(stream, count):
    events = [await stream.next() for _ in range(count)]
    return events, [uri_of(event).removeprefix("note:") for event in events]


def texts(numbers):
    return [str(n) for n in numbers]


# --- the modern era


def test_two_clients_with_the_same_subscription_id_stay_apart(redis_pair):
    async def main():
        async with (
            client_of() as http,
            Client(redis_pair.second, mode="2026-07-28") as changer,
            # A number and a text that look alike, each from two clients.
            listening(http, redis_pair.first, 1, "note:a") as one,
            listening(http, redis_pair.first, 1, "note:b") as two,
            listening(http, redis_pair.first, "1", "note:c") as three,
        ):
            streams = {"note:a": one, "note:b": two, "note:c": three}
            for stream in streams.values():
                acknowledged = message_of(await stream.next())
                assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
            for uri in streams:
                await changer.call_tool("change", {"uri": uri})
            for uri, stream in streams.items():
                assert uri_of(await stream.next()) == uri

    asyncio.run(main())


def test_a_listen_stream_ends_with_its_worker_and_is_opened_again_elsewhere(shared_url, wait):
    async def main():
        async with (
            two_workers(shared_url) as (first, second, _),
            Client(second.url, mode="2026-07-28") as client,
        ):
            async with Client(first.url, mode="2026-07-28") as lost:
                async with lost.listen(tools_list_changed=True) as changes:
                    await client.call_tool("change", {"uri": "note:a"})
                    assert await wait(anext(changes)) == ToolsListChanged()
                    await first.kill()
                    with contextlib.suppress(Exception):
                        while True:
                            await wait(anext(changes))
            async with client.listen(tools_list_changed=True) as changes:
                await client.call_tool("change", {"uri": "note:a"})
                assert await wait(anext(changes)) == ToolsListChanged()

    asyncio.run(main())


def test_in_the_modern_era_there_are_no_sessions_to_be_unknown(redis_pair):
    async def main():
        for worker in (redis_pair.first, redis_pair.second):
            async with (
                httpx.AsyncClient(headers={"mcp-session-id": "0" * 32}, timeout=20) as http,
                served(front(http, worker)) as url,
                Client(url, mode="2026-07-28") as client,
            ):
                assert (await client.call_tool("whoami", {})).content[0].text

    asyncio.run(main())


def test_a_listener_that_does_not_read_holds_nobody_up(redis_pair, wait):
    async def main():
        async with (
            Client(redis_pair.first, mode="2026-07-28") as reads,
            Client(redis_pair.first, mode="2026-07-28") as changer,
            Client(redis_pair.second, mode="2026-07-28") as there,
            Client(redis_pair.first, mode="2026-07-28") as sleeps,
            sleeps.listen(tools_list_changed=True),
            reads.listen(resource_subscriptions=["note:x"]) as changes,
        ):
            for client in [changer, there] * 20:
                await wait(client.call_tool("change", {"uri": "note:x"}))
                assert await wait(anext(changes)) == ResourceUpdated(uri="note:x")

    asyncio.run(main())


# --- sessions of the legacy era, with the official client


@contextlib.asynccontextmanager
async def hearing(url):
    """A client of the SDK, and what it is told outside of its calls."""
    inbox = asyncio.Queue()

    async def hear(message):
        await inbox.put(message)

    async with Client(url, mode="legacy", message_handler=hear) as client:
        yield client, inbox


async def methods(inbox, count):
    return [(await inbox.get()).method for _ in range(count)]


def test_a_changed_list_is_heard_by_the_clients_of_both_workers_once(shared_url, wait):
    changes = [f"notifications/{what}/list_changed" for what in ("tools", "prompts", "resources")]

    async def main():
        async with (
            two_workers(shared_url) as (first, second, _),
            hearing(first.url) as (here, heard_here),
            hearing(second.url) as (there, heard_there),
        ):
            for changer in (here, there):
                await changer.call_tool("change_lists", {})
                for heard in (heard_here, heard_there):
                    assert await wait(methods(heard, 3)) == changes
            # Nothing came twice: this is next.
            for client, heard in ((here, heard_here), (there, heard_there)):
                await client.call_tool("announce", {"text": "last"})
                assert await wait(methods(heard, 1)) == ["notifications/resources/updated"]
                assert heard.empty()

    asyncio.run(main())


def test_a_log_level_set_on_one_worker_holds_on_the_other(pair, wait):
    levels = ["debug", "info", "warning", "error", "alert"]

    async def main():
        async with (
            client_of() as http,
            served(front(http, pair.first, pair.second)) as url,
            hearing(url) as (client, inbox),
        ):

            async def both_say(wanted):
                """Whoever takes a request: until each worker has had one."""
                workers = set()
                while len(workers) < 2:
                    await client.call_tool("log", {"levels": levels})
                    lines = [(await wait(inbox.get())).params for _ in wanted]
                    assert [line.level for line in lines] == wanted
                    workers |= {line.data.split(" on ")[1] for line in lines}

            async def both_know(level):
                """One that had read another level is told of the change."""
                workers = set()
                while len(workers) < 2:
                    answer = await client.call_tool("log", {"levels": []})
                    known, worker = answer.content[0].text.split(" on ")
                    workers |= {worker} if known == level else set()

            await both_say(levels[1:])
            for level in ("error", "debug", "alert"):
                with pytest.warns(MCPDeprecationWarning, match="logging"):
                    await client.set_logging_level(level)
                await wait(both_know(level))
                await both_say(levels[levels.index(level) :])
            assert inbox.empty()

    asyncio.run(main())


def test_a_second_get_stream_takes_over_from_the_first_on_whatever_worker(pair):
    async def main():
        async with client_of() as http:
            client = RawClient(http)
            await client.initialize(pair.first)
            workers = (pair.first, pair.second, pair.second, pair.first)
            async with contextlib.AsyncExitStack() as stack:
                old = None
                for n, url in enumerate(workers):
                    new = await stack.enter_async_context(client.get(url))
                    assert new.status == 200
                    await client.call(pair.first, "announce", text=f"{n} first")
                    await client.call(pair.second, "announce", text=f"{n} second")
                    assert (await heard(new, 2))[1] == [f"{n} first", f"{n} second"]
                    # What was said before the new one had taken over may have come to the old one, too.
                    left = [f"{n} first", f"{n} second"]
                    while old is not None and (event := await old.next()) is not None:
                        assert uri_of(event) == f"note:{left.pop(0)}"
                    old = new

    asyncio.run(main())


# --- streams of the legacy era


def test_right_after_the_stream_opens_nothing_is_missed(pair):
    async def main():
        async with (
            client_of() as http,
            await mcp_sessions.connect(pair.backend) as engine,
        ):
            client = RawClient(http)
            session = await client.initialize(pair.first)
            async with client.get(pair.first) as stream:
                await told(engine, session, range(200))
                assert (await heard(stream, 200))[1] == texts(range(200))

    asyncio.run(main())


def test_what_came_before_the_first_stream_opens_is_not_lost_and_not_told_twice(pair):
    async def main():
        async with client_of() as http:
            client = RawClient(http)
            await client.initialize(pair.first)
            await client.call(pair.first, "announce", text="early 1")
            await client.call(pair.second, "announce", text="early 2")
            async with client.get(pair.second) as stream:
                assert (await heard(stream, 2))[1] == ["early 1", "early 2"]
            # Without an id there is no replay: it begins anew.
            async with client.get(pair.first) as stream:
                await client.call(pair.second, "announce", text="late")
                assert (await heard(stream, 1))[1] == ["late"]

    asyncio.run(main())


def test_many_sends_at_once_arrive_in_order(redis_pair):
    async def main():
        async with (
            client_of() as http,
            await mcp_sessions.connect(redis_pair.backend) as engine,
        ):
            clients = [RawClient(http), RawClient(http)]
            sessions = [
                await clients[0].initialize(redis_pair.first),
                await clients[1].initialize(redis_pair.second),
            ]
            async with clients[0].get(redis_pair.first) as one, clients[1].get(redis_pair.second) as two:
                await asyncio.gather(*(told(engine, session, range(200)) for session in sessions))
                for stream in (one, two):
                    assert (await heard(stream, 200))[1] == texts(range(200))

    asyncio.run(main())


def test_a_reader_that_goes_away_without_a_word_ends_nothing(redis_pair):
    async def main():
        async with (
            client_of() as http,
            await mcp_sessions.connect(redis_pair.backend) as engine,
        ):
            goes, stays = RawClient(http), RawClient(http)
            gone, session = await goes.initialize(redis_pair.first), await stays.initialize(redis_pair.first)
            async with stays.get(redis_pair.first) as stream:
                async with goes.get(redis_pair.first):
                    pass
                for n in range(30):
                    await told(engine, gone, [n])
                    await told(engine, session, [n])
                assert (await heard(stream, 30))[1] == texts(range(30))
                assert (await goes.call(redis_pair.second, "whoami"))[0] == 200

    asyncio.run(main())


def test_a_delete_ends_the_stream_and_a_get_after_it_is_404(pair, wait):
    async def main():
        async with client_of() as http:
            workers = [pair.first, pair.second]
            for n in range(6):
                client = RawClient(http)
                await client.initialize(pair.first)
                holder = workers[n % 2]
                async with client.get(holder) as stream:
                    assert stream.status == 200
                    assert await client.delete(workers[n // 3]) == 200
                    assert await stream.next() is None
                for url in workers:
                    async with client.get(url) as stream:
                        assert stream.status == 404

    asyncio.run(main())


def test_an_abort_and_a_get_at_once_are_never_a_conflict(redis_pair):
    async def main():
        async with client_of() as http:
            client = RawClient(http)
            await client.initialize(redis_pair.first)
            for n in range(10):
                for url in (redis_pair.first, redis_pair.second) if n % 2 else (redis_pair.first,) * 2:
                    async with client.get(url) as stream:
                        assert stream.status == 200
                        await client.call(redis_pair.first, "announce", text=str(n))
                        assert (await heard(stream, 1))[1] == [str(n)]

    asyncio.run(main())


def test_a_client_that_drops_again_and_again_gets_everything_once(pair):
    async def main():
        async with (
            client_of() as http,
            await mcp_sessions.connect(pair.backend) as engine,
        ):
            client = RawClient(http)
            session = await client.initialize(pair.first)
            got, after, sent = [], None, 0
            for n in range(12):
                await told(engine, session, range(sent, sent + 10))
                sent += 10
                async with client.get((pair.first, pair.second)[n % 2], after=after) as stream:
                    # Not all of it: what was on its way when the line broke is told again.
                    events, numbers = await heard(stream, 7 if n < 11 else sent - len(got))
                got += numbers
                after = events[-1]["id"]
            assert got == texts(range(sent))

    asyncio.run(main())


def test_what_can_no_longer_be_replayed_is_left_out_and_the_rest_comes(one_url):
    async def main():
        async with (
            Worker.started("official", one_url, retention={"events": 4}) as worker,
            httpx.AsyncClient(timeout=30) as http,
        ):
            client = RawClient(http)
            await client.initialize(worker.url)
            async with client.get(worker.url) as stream:
                await client.call(worker.url, "announce", text="seen")
                [seen], _ = await heard(stream, 1)
            for n in range(10):
                await client.call(worker.url, "announce", text=str(n))
            async with client.get(worker.url, after=seen["id"]) as stream:
                assert (await heard(stream, 4))[1] == texts(range(6, 10))
                await client.call(worker.url, "announce", text="live")
                assert (await heard(stream, 1))[1] == ["live"]

    asyncio.run(main())


def test_a_client_is_told_when_to_come_back(one_url):
    async def main():
        async with await mcp_sessions.connect(one_url) as engine:
            async with (
                served(official(engine, retry_interval=1500)) as url,
                httpx.AsyncClient(timeout=30) as http,
            ):
                client = RawClient(http)
                await client.initialize(url)
                answer = await client.post(url, "tools/call", {"name": "whoami", "arguments": {}})
                assert "retry: 1500" in answer.text.replace("\r", "").split("\n\n")[0]

    asyncio.run(main())


def test_a_client_that_does_not_read_ends_alone_and_resumes(one_url):
    async def main():
        retention = {"events": 3_000, "bytes": 64 << 20}
        options = {"queue": {"events": 100}, "retention": retention}
        async with (
            Worker.started("official", one_url, **options) as worker,
            await mcp_sessions.connect(one_url, **options) as engine,
            httpx.AsyncClient(timeout=60) as http,
        ):
            slow, other = RawClient(http), RawClient(http)
            session, quick = await slow.initialize(worker.url), await other.initialize(worker.url)
            # More than the sockets between them hold.
            count, pad = 2_000, "x" * 8_000
            got = []
            async with slow.get(worker.url) as asleep, other.get(worker.url) as stream:
                for begin in range(0, count, 50):
                    await told(engine, session, [f"{n}-{pad}" for n in range(begin, begin + 50)])
                await told(engine, quick, range(5))
                assert (await heard(stream, 5))[1] == texts(range(5))
                while (event := await asleep.next()) is not None:
                    got.append(event)
            assert 0 < len(got) < count
            async with slow.get(worker.url, after=got[-1]["id"]) as stream:
                while len(got) < count:
                    got.append(await stream.next())
            assert [uri_of(event).split("-")[0] for event in got] == [f"note:{n}" for n in range(count)]

    asyncio.run(main())


# --- rules


def test_a_malicious_session_id_reaches_nobody_and_breaks_nothing(pair):
    async def main():
        async with client_of() as http:
            honest = RawClient(http)
            session = await honest.initialize(pair.first)
            for id in (
                "*",
                "?",
                f"{session}*",
                f"{session}'--",
                "'; drop table tmcp_sessions; --",
                '"',
                "{}",
                "\\",
                "../..",
                "%00",
                "a" * 257,
                "a" * 5_000,
                "kv:x",
                session[:-1],
                session.upper() + "A",
            ):
                client = RawClient(http, {"mcp-session-id": id})
                for url in (pair.first, pair.second):
                    status, _ = await client.call(url, "whoami")
                    assert status == 404, id
                async with client.get(pair.second) as stream:
                    assert stream.status == 404, id
            assert (await honest.call(pair.second, "whoami"))[0] == 200

    asyncio.run(main())


def test_many_workers_start_at_once_on_an_empty_backend(shared_url):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=30))
            starting = [Worker.started("official", shared_url) for _ in range(4)]
            workers = await asyncio.gather(*(stack.enter_async_context(one) for one in starting))
            client = RawClient(http)
            await client.initialize(workers[0].url)
            names = [await client.call(worker.url, "whoami") for worker in workers]
            assert {status for status, _ in names} == {200}
            assert len({name for _, name in names}) == len(workers)
            async with client.get(workers[1].url) as stream:
                for n, worker in enumerate(workers):
                    await client.call(worker.url, "announce", text=str(n))
                assert (await heard(stream, len(workers)))[1] == texts(range(len(workers)))

    asyncio.run(main())


def test_a_thousand_sessions_on_two_workers(one_url):
    async def main():
        async with (
            two_workers(one_url) as (first, second, http),
            await mcp_sessions.connect(one_url) as engine,
        ):
            workers = [first.url, second.url]
            clients = [RawClient(http) for _ in range(1_000)]
            room = asyncio.Semaphore(16)

            async def served_by_both(n, client):
                async with room:
                    await client.initialize(workers[n % 2])
                    # One in ten goes on elsewhere.
                    if n % 10 == 0:
                        assert (await client.call(workers[(n + 1) % 2], "whoami"))[0] == 200

            await asyncio.gather(*(served_by_both(n, client) for n, client in enumerate(clients)))
            stats = await engine.registry.stats()
            assert (stats.total, stats.active) == (1_000, 1_000)
            async with clients[0].get(second.url) as one, clients[999].get(first.url) as two:
                await told(engine, clients[0].session_id, [0])
                await told(engine, clients[999].session_id, [999])
                assert ((await heard(one, 1))[1], (await heard(two, 1))[1]) == (["0"], ["999"])

    asyncio.run(main())


def test_an_answer_to_a_worker_that_was_killed_is_refused_in_words(one_url, wait):
    async def main():
        async with two_workers(one_url) as (first, second, http):
            client = RawClient(http)
            await client.initialize(first.url, ABLE)
            async with client.calling(first.url, "elicit", question="?") as (_, call):
                request = message_of(await call.next())
                await first.kill()

            async def refused():
                # Until its lease has run out nobody knows.
                while (
                    answer := await client.answer(second.url, request, accepted("late"))
                ).status_code == 202:
                    await asyncio.sleep(0.05)
                return answer

            answer = await wait(refused(), 30)
            assert answer.status_code == 400
            assert "nobody waits for the answer" in answer.json()["error"]["message"]
            assert (await client.call(second.url, "whoami"))[0] == 200

    asyncio.run(main())


# --- outages


def through(url, port):
    scheme, _, rest = url.partition("://")
    host, _, query = rest.partition("?")
    return f"{scheme}://{host.rpartition(':')[0]}:{port}?{query}"


def test_connections_that_are_cut_again_and_again_lose_and_double_nothing(one_url, redis_server, wait):
    async def main():
        route = Route(redis_server.port)
        try:
            cut_off = through(one_url, await route.listen())
            async with (
                Worker.started("official", cut_off) as first,
                Worker.started("official", one_url) as second,
                httpx.AsyncClient(timeout=30) as http,
            ):
                client = RawClient(http)
                await client.initialize(first.url)

                async def back():
                    while (await client.call(first.url, "whoami"))[0] != 200:
                        await asyncio.sleep(0.05)

                async with client.get(first.url) as stream:
                    said = []
                    for n in range(4):
                        # A call that has begun is not lost: what it says waits until it can be kept.
                        async with client.calling(first.url, "later", progress="p", text=f"{n} slow") as (
                            _,
                            call,
                        ):
                            assert message_of(await call.next())["method"] == "notifications/progress"
                            route.cut()
                            released = await http.post(first.url.replace("/mcp", "/release"))
                            assert released.status_code == 204
                            await client.call(second.url, "announce", text=f"{n} elsewhere")
                            route.restore()
                            assert "result" in message_of(await call.next())
                        await wait(back())
                        await client.call(first.url, "announce", text=f"{n} here")
                        said += [f"{n} elsewhere", f"{n} slow", f"{n} here"]
                    assert sorted((await heard(stream, len(said)))[1]) == sorted(said)
        finally:
            await route.close()

    asyncio.run(main())


def test_a_server_that_dies_and_comes_back_empty_leaves_the_workers_alive(wait):
    async def main():
        redis = RedisServer()
        try:
            async with two_workers(redis.url) as (first, second, http):
                client = RawClient(http)
                await client.initialize(first.url)
                redis.kill()
                for worker in (first, second):
                    status, text = await wait(client.call(worker.url, "whoami"), 30)
                    assert (status, "try again" in text) == (503, True)
                redis.restart()

                async def begun_anew():
                    while True:
                        fresh = RawClient(http)
                        opened = await fresh.post(first.url, "initialize", INITIALIZE)
                        if opened.status_code == 200:
                            return
                        assert opened.status_code == 503
                        await asyncio.sleep(0.05)

                await wait(begun_anew(), 30)
                # The server forgot the old session: the client is told, on every worker, and begins anew.
                for worker in (first, second):
                    assert (await client.call(worker.url, "whoami"))[0] == 404
                fresh = RawClient(http)
                await fresh.initialize(first.url)
                assert (await fresh.call(second.url, "whoami"))[0] == 200
        finally:
            redis.stop()

    asyncio.run(main())


def test_a_response_that_is_too_large_to_be_kept_is_answered_all_the_same(one_url):
    async def main():
        async with (
            Worker.started("official", one_url, max_payload_bytes=10_000) as worker,
            httpx.AsyncClient(timeout=30) as http,
        ):
            client = RawClient(http)
            await client.initialize(worker.url)
            # Priming events have no data, but the id to resume after.
            async with client.calling(worker.url, "large", size=20_000) as (_, call):
                first = await call.next_id()
                assert text_of(await call.next()) == "x" * 20_000
            async with client.get(worker.url, after=first) as stream:
                kept = message_of(await stream.next())
                assert kept["error"]["message"] == "The response was too large to be kept"
            assert (await client.call(worker.url, "whoami"))[0] == 200

    asyncio.run(main())
