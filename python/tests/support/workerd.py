"""A real workerd as a child of the tests, on a free port of its own, with the Worker of the package."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from queue import Empty, Queue

from .redis_server import free_port

SCRIPT = Path(__file__).parents[3] / "bindings/worker/scripts/serve.mjs"
START_SECONDS = 60
TOKEN = "correct-horse"


class Workerd:
    """Ends with `stop`; what its objects stored is there again after a `restart`."""

    def __init__(self) -> None:
        self._dir = tempfile.mkdtemp(prefix="mcp-sessions-workerd-")
        problem = ""
        # Somebody else may take the free port first.
        for _ in range(5):
            self.port = free_port()
            try:
                self._child = self._start()
            except RuntimeError as error:
                problem = str(error)
            else:
                return
        shutil.rmtree(self._dir, ignore_errors=True)
        raise RuntimeError(f"workerd did not start (has `make worker` been run?): {problem}")

    @property
    def url(self) -> str:
        return f"cloudflare://127.0.0.1:{self.port}?tls=off&token={TOKEN}"

    def end(self) -> None:
        """As a deployment does: every connection is lost, what was stored stays."""
        # It ends with its input: killed, it would leave children of its own behind.
        self._child.stdin.close()
        self._child.wait()

    def restart(self) -> None:
        """Start again on the same port."""
        self._child = self._start()

    def stop(self) -> None:
        self.end()
        shutil.rmtree(self._dir, ignore_errors=True)

    def _start(self) -> subprocess.Popen[str]:
        settings = [f"--port={self.port}", f"--token={TOKEN}", f"--persist={self._dir}"]
        child = subprocess.Popen(
            ["node", str(SCRIPT), *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said: Queue[str | None] = Queue()
        threading.Thread(target=_read, args=(child, said), daemon=True).start()
        last = ""
        while True:
            try:
                line = said.get(timeout=START_SECONDS)
            except Empty:
                child.stdin.close()
                raise RuntimeError(f"not ready within {START_SECONDS} s") from None
            if line is None:
                child.wait()
                raise RuntimeError(last)
            if line.startswith("ready "):
                return child
            last = line.strip() or last


def _read(child: subprocess.Popen[str], said: Queue[str | None]) -> None:
    # Reads on to the end, or it would wait for room in the pipe.
    with child.stdout:
        for line in child.stdout:
            said.put(line)
    said.put(None)
