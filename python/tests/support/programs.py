"""Servers as programs: what they say, and where they listen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys

START_SECONDS = 60
LISTENS = re.compile(r"(?:Listening at:|running on) (http://127\.0\.0\.1:\d+)")


class Program:
    """A server that runs until the end of the block."""

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, *command, folder, env=None):
        it = cls()
        it.said = ""
        it.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "ignore", "-m", *command),
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Its workers go with it.
            start_new_session=True,
        )
        it._reading = asyncio.create_task(it._read())
        try:
            yield it
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(it.process.pid, signal.SIGKILL)
            await it.process.wait()
            await it._reading

    async def _read(self):
        async for line in self.process.stdout:
            self.said += line.decode(errors="replace")

    async def url(self):
        """Where it listens, once it says so."""

        async def listens():
            while (found := LISTENS.search(self.said)) is None:
                assert self.process.returncode is None, self.said
                await asyncio.sleep(0.02)
            return found[1]

        return await asyncio.wait_for(listens(), START_SECONDS)

    async def says(self, text, count=1):
        async def said():
            while self.said.count(text) < count:
                assert self.process.returncode is None, self.said
                await asyncio.sleep(0.02)

        await asyncio.wait_for(said(), START_SECONDS)

    async def ended(self):
        """Its status, and all that it said."""
        status = await asyncio.wait_for(self.process.wait(), START_SECONDS)
        await self._reading
        return status, self.said
