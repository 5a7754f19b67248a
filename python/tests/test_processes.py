"""Two uvicorn workers in processes of their own, on Redis; one of them is killed with -9."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import httpx
import pytest
from mcp import Client
from mcp.server.subscriptions import ResourceUpdated, ToolsListChanged

import mcp_sessions

from .support.client import RawClient, uri_of

PACKAGE = Path(__file__).parents[1]


class Worker:
    """A server in a process of its own."""

    PROGRAM = (sys.executable, "-W", "ignore", "-m", "tests.support.workers")

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, kind, url, **options):
        """With `options` of the engine."""
        program = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.support.workers",
            kind,
            url,
            json.dumps(options),
        ]
        worker = cls()
        worker.process = await asyncio.create_subprocess_exec(
            *program, cwd=PACKAGE, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )
        try:
            first = await asyncio.wait_for(worker.process.stdout.readline(), 60)
            worker.url = first.decode().strip()
            assert worker.url.startswith("http"), "the worker did not start"
            yield worker
        finally:
            await worker.kill()

    async def kill(self):
        """`kill -9`."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@contextlib.asynccontextmanager
async def two_workers(url, kind="official"):
    async with (
        Worker.started(kind, url) as first,
        Worker.started(kind, url) as second,
        httpx.AsyncClient(timeout=30) as http,
    ):
        yield first, second, http


@pytest.fixture
def redis_url(redis_server, request):
    name = "".join(letter for letter in request.node.name if letter.isalnum())
    return f"{redis_server.url}?prefix={name}:"


def test_a_modern_client_hears_of_a_change_on_another_worker(redis_url, wait):
    async def main():
        async with (
            two_workers(redis_url) as (first, second, _),
            Client(first.url, mode="2026-07-28") as listener,
            Client(second.url, mode="2026-07-28") as changer,
            listener.listen(tools_list_changed=True, resource_subscriptions=["file:///a"]) as changes,
        ):
            await changer.call_tool("change", {"uri": "file:///other"})
            await changer.call_tool("change", {"uri": "file:///a"})
            heard = {await wait(anext(changes)), await wait(anext(changes))}
            assert heard == {ToolsListChanged(), ResourceUpdated(uri="file:///a")}

    asyncio.run(main())


def test_a_session_survives_the_death_of_its_worker(redis_url):
    """The client's stream breaks; on the other worker it gets what it missed, once, and goes on."""

    async def main():
        async with two_workers(redis_url) as (first, second, http):
            client = RawClient(http)
            await client.initialize(first.url)
            async with client.get(first.url) as stream:
                await client.call(first.url, "announce", text="1")
                seen = await stream.next()
                assert uri_of(seen) == "note:1"
                await client.call(first.url, "announce", text="2")
                await client.call(second.url, "announce", text="3")
                await first.kill()
            await client.call(second.url, "announce", text="4")
            async with client.get(second.url, after=seen["id"]) as stream:
                for text in ("2", "3", "4"):
                    assert uri_of(await stream.next()) == f"note:{text}"
                await client.call(second.url, "announce", text="5")
                assert uri_of(await stream.next()) == "note:5"
            assert await client.delete(second.url) == 200
            assert (await client.call(second.url, "whoami"))[0] == 404

    asyncio.run(main())


def test_the_sdks_client_survives_the_death_of_a_worker(redis_url):
    async def main():
        async with two_workers(redis_url) as (first, second, http):
            client = RawClient(http)
            await client.initialize(first.url)
            # A legacy client of the SDK, beside the one that is read byte by byte.
            async with Client(second.url, mode="legacy") as other:
                _, name = await client.call(first.url, "whoami")
                assert (await other.call_tool("whoami", {})).content[0].text != name
                await first.kill()
                status, now = await client.call(second.url, "whoami")
                assert (status, now) == (200, (await other.call_tool("whoami", {})).content[0].text)

    asyncio.run(main())


def test_a_session_of_python_is_one_of_the_engine(redis_url, wait):
    """What any other process on the same backend, in whatever language, sees of it, and can do to it."""

    async def main():
        async with (
            two_workers(redis_url) as (first, _, http),
            await mcp_sessions.connect(redis_url) as engine,
        ):
            client = RawClient(http)
            session = await client.initialize(first.url)
            assert await engine.registry.has(session)
            assert (await engine.info.get_client_info(session))["name"] == "raw"
            async with client.get(first.url) as stream:
                # The stream reads from when its answer began.
                await client.call(first.url, "announce", text="first")
                assert uri_of(await stream.next()) == "note:first"
                message = (
                    '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"note:x"}}'
                )
                await engine.events(session).append("_GET_stream", message)
                assert uri_of(await stream.next()) == "note:x"
                await engine.registry.close(session, "banned")
                assert await stream.next() is None
            assert (await client.call(first.url, "whoami"))[0] == 404

    asyncio.run(main())


def test_fastmcp_keeps_a_sessions_state_across_processes(redis_url):
    async def main():
        async with two_workers(redis_url, "fast") as (first, second, http):
            client = RawClient(http)
            await client.initialize(first.url)
            assert await client.call(first.url, "remember", value="42") == (200, "remembered")
            await first.kill()
            assert await client.call(second.url, "recall") == (200, "42")

    asyncio.run(main())
