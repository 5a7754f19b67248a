"""`make demo CLIENT=python`: two workers of the official SDK, a client of each era, and a worker that dies.

Line by line; ends with 0 only if all of it was seen to happen. BACKEND=redis (or postgres) runs the workers in
processes of their own, on a server that is started for it, and kills one with -9; with BACKEND=memory they
share this process, and one of them goes in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from mcp import Client
from mcp.server.subscriptions import ResourceUpdated, ToolsListChanged

import mcp_sessions
from tests.support.client import RawClient, uri_of
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.workers import official, served
from tests.test_processes import Worker

DEADLINE_SECONDS = 60
SERVERS = {"redis": RedisServer, "postgres": PostgresServer}
STARTED = time.monotonic()


def line(who: str, what: str) -> None:
    print(f"{time.monotonic() - STARTED:6.2f} s  {who:<14} {what}", flush=True)


class Inner:
    """A worker in this process."""

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, _, url):
        worker = cls()
        async with contextlib.AsyncExitStack() as worker._stack:
            worker._engine = await worker._stack.enter_async_context(await mcp_sessions.connect(url))
            worker.url = await worker._stack.enter_async_context(served(official(worker._engine)))
            yield worker

    async def kill(self) -> None:
        self._engine.abandon()
        await self._stack.aclose()


async def demo(kind, url) -> None:
    async with (
        kind.started("official", url) as a,
        kind.started("official", url) as b,
        httpx.AsyncClient(timeout=30) as http,
    ):
        line("worker A", a.url)
        line("worker B", b.url)
        old = RawClient(http)
        session = await old.initialize(a.url)
        line("legacy client", f"initialized on A, session {session[:8]}…")
        async with (
            Client(b.url, mode="2026-07-28") as young,
            young.listen(tools_list_changed=True, resource_subscriptions=["note:a"]) as changes,
        ):
            line("modern client", "listens on B (mcp 2.3, 2026-07-28)")
            line("", "-- tool calls go to both workers, which know the same session")
            names = [(await old.call(worker.url, "whoami"))[1] for worker in (a, b)]
            for name in names:
                line("legacy client", f"<- node {name[:8]}…")
            assert names[0] != names[1]
            line("", "-- a change on A reaches the modern client on B")
            line("worker A", "-> note:a updated, tools changed")
            await old.call(a.url, "change", uri="note:a")
            heard = {await anext(changes), await anext(changes)}
            for event in heard:
                line("modern client", f"<- {event}")
            assert heard == {ToolsListChanged(), ResourceUpdated(uri="note:a")}
        line("", "-- the legacy client's stream is on A; B speaks on it, too")
        async with old.get(a.url) as stream:
            for worker, name in ((a, "A"), (b, "B")):
                await old.call(worker.url, "announce", text=f"from {name}")
                seen = await stream.next()
                line("legacy client", f"<- {uri_of(seen)}")
                assert uri_of(seen) == f"note:from {name}"
            line("", "-- A dies, and two events are missed")
            await a.kill()
            line("worker A", "killed with -9" if kind is Worker else "gone")
        for text in ("missed 1", "missed 2"):
            await old.call(b.url, "announce", text=text)
            line("worker B", f'-> "{text}"')
        line("", "-- the client comes back, on B, and gets exactly what it missed")
        async with old.get(b.url, after=seen["id"]) as stream:
            line("legacy client", f"GET with Last-Event-ID {seen['id'][:12]}…: {stream.status}")
            for text in ("missed 1", "missed 2"):
                event = await stream.next()
                line("legacy client", f"<- {uri_of(event)}")
                assert uri_of(event) == f"note:{text}"
            await old.call(b.url, "announce", text="live again")
            event = await stream.next()
            line("legacy client", f"<- {uri_of(event)}")
            assert uri_of(event) == "note:live again"
        assert await old.delete(b.url) == 200
        status, _ = await old.call(b.url, "whoami")
        line("legacy client", f"DELETE; the next request is answered {status}")
        assert status == 404
    line("", "all of it happened: nothing lost, nothing doubled, nothing out of order")


def main() -> int:
    backend = os.environ.get("BACKEND") or "memory"
    if backend not in ("memory", *SERVERS):
        print(f"BACKEND={backend}: this demo has memory, redis and postgres", file=sys.stderr)
        return 2
    server = SERVERS[backend]() if backend in SERVERS else None
    try:
        kind, url = (Worker, server.url) if server is not None else (Inner, f"memory://demo-{os.getpid()}")
        asyncio.run(asyncio.wait_for(demo(kind, url), DEADLINE_SECONDS))
    finally:
        if server is not None:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
