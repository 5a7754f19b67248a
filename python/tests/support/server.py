"""A server as a child of the tests, on a free port of its own."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from queue import Empty, Queue

# Somebody else may take the free port first.
TRIES = 5


class Server:
    """Ends with `stop`. What it is, is in its class: what to run, and a pattern of what it says once it is ready."""

    name: str
    ready: str
    start_seconds = 60
    hint = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"mcp-sessions-{self.name}-"))
        self.prepare()
        problem = ""
        for _ in range(TRIES):
            self.port = free_port()
            try:
                self.child = self._start()
            except RuntimeError as error:
                problem = str(error)
            else:
                return
        shutil.rmtree(self.folder, ignore_errors=True)
        raise RuntimeError(f"{self.name} did not start{self.hint}: {problem}")

    def prepare(self) -> None:
        """What comes before the first start, in its folder."""

    def command(self) -> list[str | Path]:
        """What to run on its port, in its folder."""
        raise NotImplementedError

    def end(self) -> None:
        """Ends the process; what it stored stays."""
        self.child.kill()
        self._wait()

    def _wait(self) -> None:
        self.child.wait()
        self.child.stdin.close()

    def restart(self) -> None:
        """Start again on the same port."""
        self.child = self._start()

    def stop(self) -> None:
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            self.command(),
            cwd=self.folder,
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
                line = said.get(timeout=self.start_seconds)
            except Empty:
                child.kill()
                child.wait()
                raise RuntimeError(f"not ready within {self.start_seconds} s") from None
            if line is None:
                child.wait()
                raise RuntimeError(last)
            if re.search(self.ready, line):
                return child
            last = line.strip() or last


def _read(child: subprocess.Popen[str], said: Queue[str | None]) -> None:
    # Reads on to the end, or the server would wait for room in the pipe.
    with child.stdout:
        for line in child.stdout:
            said.put(line)
    said.put(None)


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]
