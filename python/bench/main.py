"""`make bench-python`: this package beside its peers in one run, on servers that are started for it.

Each row is the median of ROUNDS rounds, ours and the peer's in turn; figures of one run can be compared,
those of two machines cannot. Writes target/bench-python.json. EVENTS (1,000,000) go through one stream.
ONLY=redis,postgres,memory,flat narrows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import asyncpg
import redis as redis_py
from fastmcp.server.event_store import EventStore as FastMCPEventStore
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp_persist.postgres import PostgresEventStore
from mcp_persist.redis import RedisEventStore

import mcp_sessions
from bench.buses import across_processes, within_a_process
from bench.flat import flat
from bench.measure import ROUNDS, ROWS, blocking, microseconds, row
from bench.stores import Deques, stores
from mcp_sessions import _native
from mcp_sessions.mcp import EventStore, SubscriptionBus
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer

KEPT = 256


async def on_redis():
    server = RedisServer()
    bare = redis_py.Redis(port=server.port)
    url = f"{server.url}?prefix=bench:"
    try:
        async with (
            await mcp_sessions.connect(url) as engine,
            RedisEventStore.create(server.url, key_prefix="peer:", ttl=300, max_stream_length=KEPT) as peer,
        ):
            ours, raw = [], []
            for _ in range(ROUNDS):
                raw.append(blocking(lambda: bare.exists("nothing"), 2_000))
                ours.append(await microseconds(lambda: engine.streams.has("nobody"), 2_000))
            row("redis: await of has", "µs", ours, raw, "redis-py, blocking")
            await stores("redis", EventStore(engine).for_session("bench"), peer, "mcp-persist", 3_200, 3.0)
            await across_processes("redis", engine, url)
    finally:
        bare.close()
        server.stop()


async def on_postgres():
    server = PostgresServer()
    url = f"{server.url}?schema=bench"
    try:
        async with contextlib.AsyncExitStack() as stack:
            bare = await asyncpg.connect(server.url)
            stack.push_async_callback(bare.close)
            engine = await stack.enter_async_context(await mcp_sessions.connect(url))
            peer = await stack.enter_async_context(PostgresEventStore.create(server.url, ttl=300))
            ours, raw = [], []
            for _ in range(ROUNDS):
                raw.append(await microseconds(lambda: bare.fetchval("select 1"), 500))
                ours.append(await microseconds(lambda: engine.streams.has("nobody"), 500))
            row("postgres: await of has", "µs", ours, raw, "asyncpg, select 1")
            store = EventStore(engine).for_session("bench")
            await stores("postgres", store, peer, "mcp-persist", 1_600, 3.0)
            await across_processes("postgres", engine, url)
    finally:
        server.stop()


async def in_memory():
    async with await mcp_sessions.connect("memory://bench") as engine:
        store = EventStore(engine)
        peer = FastMCPEventStore(max_events_per_stream=KEPT)
        await stores("memory", store.for_session("one"), peer, "FastMCP, MemoryStore", 800)
        await stores("memory", store.for_session("two"), Deques(KEPT), "a deque, as the SDK's example", 3_200)
        await within_a_process(SubscriptionBus(engine), InMemorySubscriptionBus(), "the SDK's in-memory bus")


async def through_one_stream():
    async with await mcp_sessions.connect("memory://flat") as engine:
        await flat(engine, int(os.environ.get("EVENTS") or 1_000_000))


PARTS = {"redis": on_redis, "postgres": on_postgres, "memory": in_memory, "flat": through_one_stream}


async def bench(parts) -> None:
    print(f"{'':<52} {'ours':>12} {'peer':>12}")
    for part in parts:
        await PARTS[part]()


def main() -> int:
    if _native.PROFILE != "release":
        print("this is a debug build: its figures mean nothing", file=sys.stderr)
    parts = (os.environ.get("ONLY") or ",".join(PARTS)).split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        print(f"ONLY: no such part: {', '.join(unknown)}. There are: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    asyncio.run(bench(parts))
    found = {"build": _native.PROFILE, "python": platform.python_version()}
    found |= {"cpus": os.cpu_count(), "load": os.getloadavg(), "rows": ROWS}
    to = Path(__file__).parents[2] / "target" / "bench-python.json"
    to.write_text(json.dumps(found, indent=2))
    print(f"load {os.getloadavg()[0]:.1f}; written to {to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
