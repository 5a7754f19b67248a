"""A real PostgreSQL server as a child of the tests, on a free port of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from queue import Empty, Queue

from .redis_server import free_port

START_SECONDS = 60


class PostgresServer:
    """Ends with `stop`. It runs as nobody special: it refuses root."""

    def __init__(self) -> None:
        self._dir = Path(tempfile.mkdtemp(prefix="mcp-sessions-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self._dir, "postgres", "postgres")
        access = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        made = [*as_user("initdb"), *access, "-D", self._dir / "data"]
        subprocess.run(made, cwd=self._dir, check=True, stdout=subprocess.DEVNULL)
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
        raise RuntimeError(f"postgres did not start: {problem}")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        # Its processes end, too, and give back their shared memory.
        self._child.send_signal(signal.SIGQUIT)
        self._child.wait()
        self._child.stderr.close()
        shutil.rmtree(self._dir, ignore_errors=True)

    def _start(self) -> subprocess.Popen[str]:
        settings = ["listen_addresses=127.0.0.1", "max_connections=300", "log_min_messages=log", "fsync=off"]
        command = [*as_user("postgres"), "-D", self._dir / "data", "-p", str(self.port), "-k", self._dir]
        for setting in settings:
            command += ["-c", setting]
        child = subprocess.Popen(
            command,
            cwd=self._dir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
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
            if "database system is ready to accept connections" in line:
                return child
            last = line


def _read(child, said):
    # Reads on to the end, or the server would wait for room in the pipe.
    try:
        for line in child.stderr:
            said.put(line)
    except ValueError:
        pass  # closed by `stop`
    said.put(None)


def as_user(program):
    """A program of PostgreSQL, as somebody who may run it."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders = [*os.get_exec_path(), *map(str, debian)]
    found = shutil.which(program, path=os.pathsep.join(folders))
    if found is None:
        raise RuntimeError(f"{program} is not installed")
    if os.geteuid() != 0:
        return [found]
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", found]
