"""A real workerd as a child of the tests, with the Worker of the package."""

from __future__ import annotations

from pathlib import Path

from .server import Server

SCRIPT = Path(__file__).parents[3] / "bindings/worker/scripts/serve.mjs"
TOKEN = "correct-horse"


class Workerd(Server):
    """What its objects stored is there again after a `restart`."""

    name = "workerd"
    ready = "^ready "
    hint = " (has `make worker` been run?)"

    @property
    def url(self) -> str:
        return f"cloudflare://127.0.0.1:{self.port}?tls=off&token={TOKEN}"

    def end(self) -> None:
        """As a deployment does: every connection is lost, what was stored stays."""
        # It ends with its input: killed, it would leave children of its own behind.
        self.child.stdin.close()
        self.child.wait()

    def command(self) -> list[str | Path]:
        return ["node", SCRIPT, f"--port={self.port}", f"--token={TOKEN}", f"--persist={self.folder}"]
