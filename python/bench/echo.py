"""A process that answers on the bus, until its input ends: `python -m bench.echo URL`."""

from __future__ import annotations

import asyncio
import sys

from mcp.server.subscriptions import ResourceUpdated, ToolsListChanged

import mcp_sessions
from mcp_sessions.mcp import SubscriptionBus


async def main(url):
    async with await mcp_sessions.connect(url) as engine:
        bus, asked = SubscriptionBus(engine), asyncio.Event()
        stop = bus.subscribe(lambda event: asked.set() if isinstance(event, ResourceUpdated) else None)

        async def answer():
            while True:
                await asked.wait()
                asked.clear()
                await bus.publish(ToolsListChanged())

        answering = asyncio.create_task(answer())
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        answering.cancel()
        stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
