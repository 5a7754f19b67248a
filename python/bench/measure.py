"""How long things take, and the table of it."""

from __future__ import annotations

import asyncio
import statistics
import time

ROUNDS = 3
ROWS: list[dict[str, object]] = []


def row(name, unit, ours, peer=None, peer_name="", aim=None):
    """Notes what the rounds gave, median by median. What has a peer is so many times as good."""
    mine = statistics.median(ours)
    noted = {"name": name, "unit": unit, "ours": mine}
    line = f"{name:<52} {mine:>12,.1f}"
    if peer is None:
        line += f" {'':>12} {unit}"
    else:
        theirs = statistics.median(peer)
        ratio = mine / theirs if unit.endswith("/s") else theirs / mine
        noted |= {"peer": theirs, "peerName": peer_name, "ratio": ratio, "aim": aim}
        line += (
            f" {theirs:>12,.1f} {unit:<9} {ratio:>6.2f} x  {peer_name}{f' (aim {aim:.0f} x)' if aim else ''}"
        )
    ROWS.append(noted)
    print(line, flush=True)


async def per_second(work, count, at_once):
    """How many calls a second, so many at once."""
    begun = time.perf_counter()
    for _ in range(count // at_once):
        await asyncio.gather(*(work() for _ in range(at_once)))
    return count / (time.perf_counter() - begun)


async def microseconds(work, count):
    """The median of one call after the other."""
    took = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        await work()
        took.append(time.perf_counter_ns() - begun)
    return statistics.median(took) / 1_000


def blocking(work, count):
    """The same of a call that blocks."""
    took = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        work()
        took.append(time.perf_counter_ns() - begun)
    return statistics.median(took) / 1_000
