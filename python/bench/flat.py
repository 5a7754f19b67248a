"""Many events through one stream: the process does not grow with them."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from bench.measure import row

AT_ONCE = 500
PARTS = 8


async def flat(engine, events):
    """Sends and reads them; what the process holds is looked at all along the way."""
    payload = "x" * 512
    sizes = []
    begun = time.perf_counter()
    async with await engine.streams.open("flat") as stream:
        sent = 0
        while sent < events:
            for _ in range(AT_ONCE):
                await engine.streams.send("flat", payload)
            sent += AT_ONCE
            left = AT_ONCE
            while left:
                left -= len(await stream.next_batch(AT_ONCE))
            if sent * PARTS // events > len(sizes):
                sizes.append(resident())
    name = f"memory: {sent:,} events through a stream"
    row(name, "events/s", [sent / (time.perf_counter() - begun)])
    # The first part fills what is kept for replay.
    row(f"{name}: grew after the first eighth by", "KiB", [sizes[-1] - sizes[0]])


def resident():
    """KiB the process has in memory; where that can't be read, the most it ever had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1_024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
