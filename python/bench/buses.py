"""How soon a change that is published is heard."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mcp.server.subscriptions import ResourceUpdated, ToolsListChanged

from bench.measure import ROUNDS, microseconds, per_second, row
from mcp_sessions.mcp import SubscriptionBus

LISTENERS = 100


async def across_processes(name, engine, url):
    """There and back, halved: each way is a publish, and a listener in the other process."""
    program = [sys.executable, "-W", "ignore", "-m", "bench.echo", url]
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    other = await asyncio.create_subprocess_exec(*program, cwd=Path(__file__).parents[1], **pipes)
    try:
        await other.stdout.readline()
        bus, heard = SubscriptionBus(engine), asyncio.Event()
        stop = bus.subscribe(lambda event: heard.set() if event == ToolsListChanged() else None)

        async def there_and_back():
            heard.clear()
            await bus.publish(ResourceUpdated(uri="bench:there"))
            await heard.wait()

        took = [await microseconds(there_and_back, 500) / 2 for _ in range(ROUNDS)]
        stop()
    finally:
        other.stdin.close()
        await other.wait()
    row(f"{name}: bus, publish to a listener in another process", "µs", took)


async def within_a_process(ours, peer, peer_name):
    """A publish with many listeners, until the last one has heard of it."""
    took = ([], [])
    for _ in range(ROUNDS):
        for side, bus in enumerate((ours, peer)):
            left, done = 0, asyncio.Event()

            def hear(_):
                nonlocal left
                left -= 1
                if left == 0:
                    done.set()

            stops = [bus.subscribe(hear) for _ in range(LISTENERS)]

            async def publish():
                nonlocal left
                left = LISTENERS
                done.clear()
                await bus.publish(ToolsListChanged())
                await done.wait()

            took[side].append(await per_second(publish, 2_000, 1))
            for stop in stops:
                stop()
    row(f"memory: bus, publish to {LISTENERS} listeners", "events/s", *took, peer_name)
