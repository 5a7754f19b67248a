"""A real redis-server as a child of the tests."""

from __future__ import annotations

from pathlib import Path

from .server import Server


class RedisServer(Server):
    """Without persistence: what is started again has nothing."""

    name = "redis-server"
    ready = "Ready to accept connections"
    start_seconds = 20

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """`kill -9`."""
        self.end()

    def command(self) -> list[str | Path]:
        address = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return ["redis-server", *address, "--daemonize", "no", "--save", "", "--appendonly", "no"]
