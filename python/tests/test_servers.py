"""The examples under real servers: uvicorn's workers, gunicorn that forks them."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import pytest
from mcp import Client
from mcp.server.subscriptions import ResourceUpdated

from .conftest import place
from .support.client import RawClient
from .support.programs import Program
from .support.server import free_port

PACKAGE = Path(__file__).parents[1]
EXAMPLES = PACKAGE / "examples"

UVICORN = ("uvicorn", "--port", "0", "--workers", "2")
GUNICORN = ("gunicorn", "--bind", "127.0.0.1:0", "--workers", "2", "-k", "uvicorn_worker.UvicornWorker")
SERVERS = {"uvicorn": UVICORN, "gunicorn": GUNICORN, "gunicorn-preload": (*GUNICORN, "--preload")}
READY = "Application startup complete."

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn forks")


WHERE = [("uvicorn", "redis"), ("gunicorn", "postgres"), ("gunicorn-preload", "redis")]


@pytest.fixture
def shared_url(request):
    return place(request)


# Each server, each backend: not all of both.
on_servers = pytest.mark.parametrize(
    ("server", "shared_url"), WHERE, indirect=["shared_url"], ids=[" on ".join(one) for one in WHERE]
)


def serving(server, name, url):
    return Program.started(*SERVERS[server], f"{name}:app", folder=EXAMPLES, env={"SESSIONS_URL": url})


@on_servers
def test_the_example_for_mcp(server, shared_url, wait):
    async def main():
        async with serving(server, "mcp_server", shared_url) as program:
            url = f"{await program.url()}/mcp"
            await program.says(READY, 2)
            # Every request on a connection of its own: whichever worker takes it.
            async with httpx.AsyncClient(
                timeout=30, limits=httpx.Limits(max_keepalive_connections=0)
            ) as http:
                client = RawClient(http)
                await client.initialize(url)
                for _ in range(20):
                    status, text = await client.call(url, "touch", uri="note:x")
                    assert (status, text[:5]) == (200, "every")
                async with (
                    Client(url, mode="2026-07-28") as listener,
                    listener.listen(resource_subscriptions=["note:a"]) as changes,
                ):
                    for _ in range(6):
                        await client.call(url, "touch", uri="note:a")
                        assert await wait(anext(changes)) == ResourceUpdated(uri="note:a")
                assert await client.delete(url) == 200
                for _ in range(6):
                    assert (await client.call(url, "touch", uri="note:a"))[0] == 404

    asyncio.run(main())


@on_servers
def test_the_example_for_fastmcp(server, shared_url):
    async def main():
        async with serving(server, "fastmcp_server", shared_url) as program:
            url = f"{await program.url()}/mcp"
            await program.says(READY, 2)
            async with httpx.AsyncClient(
                timeout=30, limits=httpx.Limits(max_keepalive_connections=0)
            ) as http:
                client = RawClient(http)
                await client.initialize(url)
                counted = [await client.call(url, "count") for _ in range(12)]
                assert counted == [(200, str(n)) for n in range(1, 13)]

    asyncio.run(main())


def test_the_readmes_show_the_examples_word_for_word():
    shown = "\n".join(
        path.read_text("utf-8") for path in (PACKAGE / "README.md", PACKAGE.parent / "README.md")
    )
    for path in sorted(EXAMPLES.glob("*.py")):
        assert f"```python\n{path.read_text('utf-8')}```" in shown, path.name
    # And no other code that serves.
    blocks = re.findall(r"```python\n(.*?)```", shown, re.DOTALL)
    known = {path.read_text("utf-8") for path in EXAMPLES.glob("*.py")}
    assert [block for block in blocks if "mcp as sessions" in block and block not in known] == []


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_a_backend_that_is_not_there_ends_the_start(server):
    """Neither a server that answers 500 for ever, nor one that hangs."""

    async def main():
        url = f"redis://:secret@127.0.0.1:{free_port()}"
        async with serving(server, "mcp_server", url) as program:
            await program.says("UnavailableError")
            if server == "uvicorn":
                # Its supervisor tries again and again.
                await program.says("UnavailableError", 2)
            else:
                status, _ = await program.ended()
                assert status in (1, 3)
            assert "secret" not in program.said

    asyncio.run(main())


@pytest.mark.parametrize("shared_url", ["redis"], indirect=True)
def test_an_engine_of_the_master_is_refused_in_its_workers(shared_url, tmp_path):
    """`gunicorn --preload` of a module that connects when it is imported: an error that says what to do."""
    (tmp_path / "connected.py").write_text(
        textwrap.dedent(
            """
            import asyncio, os, mcp_sessions
            from mcp.server import MCPServer
            from mcp_sessions.mcp import streamable_http_app

            engine = asyncio.run(mcp_sessions.connect(os.environ["SESSIONS_URL"]))
            app = streamable_http_app(MCPServer("demo"), engine)
            """
        )
    )

    async def main():
        program = Program.started(
            *SERVERS["gunicorn-preload"], "connected:app", folder=tmp_path, env={"SESSIONS_URL": shared_url}
        )
        async with program as it:
            status, said = await it.ended()
            # 3, or 1 when both of its workers end at once.
            assert status in (1, 3), said
            assert "connected before a fork: connect again in the child process" in said

    asyncio.run(main())


def test_an_application_whose_lifespan_is_off_says_so(tmp_path):
    async def main():
        program = Program.started(
            *("uvicorn", "--port", "0", "--lifespan", "off", "mcp_server:app"),
            folder=EXAMPLES,
            env={"SESSIONS_URL": "memory://"},
        )
        async with program as it, httpx.AsyncClient() as http:
            answer = await http.post(f"{await it.url()}/mcp", json={})
            assert answer.status_code == 500
            await it.says("serve it with its lifespan")

    asyncio.run(main())


def test_the_readmes_other_example_runs_word_for_word():
    blocks = re.findall(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text("utf-8"), re.DOTALL)
    [block] = [block for block in blocks if "asyncio.run" in block]
    ran = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, timeout=60, check=True
    )
    assert re.fullmatch(r"hello \S+\n", ran.stdout)
