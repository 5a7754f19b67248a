"""A real redis-server as a child of the tests, on a free port of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
from queue import Empty, Queue

START_SECONDS = 20


class RedisServer:
    """Ends with `stop`."""

    def __init__(self) -> None:
        self._dir = tempfile.mkdtemp(prefix="mcp-sessions-redis-")
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
        raise RuntimeError(f"redis-server did not start: {problem}")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """`kill -9`."""
        self._child.kill()
        self._child.wait()
        self._child.stdout.close()

    def restart(self) -> None:
        """Start again on the same port, with nothing."""
        self._child = self._start()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._dir, ignore_errors=True)

    def _start(self) -> subprocess.Popen[str]:
        address = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", self._dir]
        child = subprocess.Popen(
            ["redis-server", *address, "--daemonize", "no", "--save", "", "--appendonly", "no"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        said: Queue[str | None] = Queue()
        threading.Thread(target=_read, args=(child, said), daemon=True).start()
        last = ""
        while True:
            try:
                line = said.get(timeout=START_SECONDS)
            except Empty:
                child.kill()
                child.wait()
                raise RuntimeError(f"not ready within {START_SECONDS} s") from None
            if line is None:
                child.wait()
                raise RuntimeError(last)
            if "Ready to accept connections" in line:
                return child
            last = line


def _read(child: subprocess.Popen[str], said: Queue[str | None]) -> None:
    # Reads on to the end, or the server would wait for room in the pipe.
    try:
        for line in child.stdout:
            said.put(line)
    except ValueError:
        pass  # closed by `kill`
    said.put(None)


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]
