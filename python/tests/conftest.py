"""What all tests share: real backends, loops of both makes."""

from __future__ import annotations

import asyncio
import itertools
import os

import pytest

import mcp_sessions

from .support.postgres_server import PostgresServer
from .support.redis_server import RedisServer

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def redis_server():
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server():
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "redis", "postgres"])
def url(request):
    """A place nobody else uses, on each backend."""
    return place(request)


def place(request):
    name = f"py-{os.getpid():x}-{next(NUMBERS)}"
    if request.param == "memory":
        return f"memory://{name}"
    server = request.getfixturevalue(f"{request.param}_server").url
    return f"{server}?schema={name}" if request.param == "postgres" else f"{server}?prefix={name}:"


@pytest.fixture(params=["memory", "redis", "postgres"])
def registry_url(request):
    """The same, on each backend that has the registry and the event log."""
    return place(request)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """`asyncio.run` on each loop."""
    if request.param == "asyncio":
        return asyncio.run
    uvloop = pytest.importorskip("uvloop")
    return uvloop.run


@pytest.fixture
def wait():
    """Waits for something that is sure to come, but not for ever."""

    async def waited(work, seconds=20.0):
        return await asyncio.wait_for(work, seconds)

    return waited


async def engines(url, count=2, **options):
    return [await mcp_sessions.connect(url, **options) for _ in range(count)]
