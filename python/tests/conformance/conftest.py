"""Where the scenarios run: one event loop for all of them, several at a time where time is real."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from ..support.postgres_server import PostgresServer
from ..support.redis_server import RedisServer
from ..support.workerd import Workerd
from .backend import VARIABLE, Backend
from .scenario import parse
from .world import run

# Where time is real, most of a scenario is waiting.
AT_ONCE = 4


class Scenarios:
    """Runs scenarios on a thread of its own; each test waits for its own."""

    def __init__(self, base: str) -> None:
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._under_way = {}
        self.backend = self.run(Backend.at(base))
        self._room = asyncio.Semaphore(1 if self.backend.capability.manual_clock else AT_ONCE)

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def start(self, name, written) -> None:
        scenario = parse(written)
        if self.backend.can(scenario.requires):
            work = self._in_turn(scenario, self.backend.place(name.replace("::", "-")))
            self._under_way[name] = asyncio.run_coroutine_threadsafe(work, self._loop)

    def outcome(self, name):
        return self._under_way.pop(name).result()

    async def _in_turn(self, scenario, place):
        async with self._room:
            await run(scenario, place)

    def stop(self) -> None:
        async def settle():
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        self.run(settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    if os.environ.get("MCP_SESSIONS_TEST_LOOP") == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


@pytest.fixture(scope="session")
def backend_url():
    base = os.environ.get(VARIABLE, "memory://")
    kinds = {"redis://": RedisServer, "postgresql://": PostgresServer, "cloudflare://": Workerd}
    if base not in kinds:
        yield base
        return
    server = kinds[base]()
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def scenarios(backend_url, request):
    it = Scenarios(backend_url)
    for item in request.session.items:
        if item.function.__name__ == "test_scenario" and hasattr(item, "callspec"):
            it.start(item.callspec.id, item.callspec.params["written"])
    yield it
    it.stop()
