"""Where scenarios run: the backend of MCP_SESSIONS_TEST_URL, a fresh hub or prefix for each."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

import mcp_sessions

from .check import Failed

VARIABLE = "MCP_SESSIONS_TEST_URL"


@dataclass
class Backend:
    """The backend under test."""

    base: str
    capability: mcp_sessions.Capability

    @staticmethod
    async def at(base: str) -> Backend:
        """The backend at a URL, if it answers."""
        try:
            async with await mcp_sessions.connect(_url_of(base, "probe")) as engine:
                health = await engine.health()
                if not health.ready:
                    raise Failed(health.problem or "it is not ready")
                return Backend(base, engine.capability)
        except mcp_sessions.McpSessionsError as error:
            raise Failed(f"the backend under test cannot be reached: {error}") from error

    def can(self, required) -> bool:
        """Whether it can do all of this. Raises for what is no capability."""
        able = [self._has(name) for name in required]
        return all(able)

    def _has(self, name):
        able = getattr(self.capability, snake(name), None)
        if not isinstance(able, bool):
            raise Failed(f"{name} is no capability")
        return able

    def place(self, name: str) -> Place:
        """A place nobody else uses."""
        return Place(self.base, f"{name}-{os.getpid():x}", self.capability.manual_clock)


@dataclass
class Place:
    """Where one scenario runs."""

    base: str
    name: str
    manual_clock: bool

    @property
    def url(self) -> str:
        return _url_of(self.base, self.name)

    @property
    def port(self) -> int | None:
        """The port of its server on this machine, if it has one."""
        found = re.match(r"[^:]+://[^/?]*:(\d+)", self.base)
        return int(found[1]) if found else None

    def url_through(self, port: int) -> str:
        """The URL with another port."""
        return self.url.replace(f":{self.port}", f":{port}", 1)

    @property
    def foreign_url(self) -> str:
        """Another deployment, which knows nothing of the scenario."""
        return _url_of(self.base, f"{self.name}-foreign")


def _url_of(base, name):
    address, _, query = base.partition("?")
    if address.startswith("memory://"):
        return f"{address}{name}?{query or 'clock=manual'}"
    before = f"{address}?{query}{'&' if query else ''}"
    return f"{before}schema={schema(name)}" if address.startswith("postgres") else f"{before}prefix={name}:"


def schema(name):
    """A name of at most 63 bytes that is as unique."""
    return f"{name[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def snake(name: str) -> str:
    """`mergedOrder` as it is called in Python."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
