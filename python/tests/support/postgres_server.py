"""A real PostgreSQL server as a child of the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from .server import Server


class PostgresServer(Server):
    """It runs as nobody special: it refuses root."""

    name = "postgres"
    ready = "database system is ready to accept connections"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        access = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        made = [*as_user("initdb"), *access, "-D", self.folder / "data"]
        subprocess.run(made, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def command(self) -> list[str | Path]:
        settings = ["listen_addresses=127.0.0.1", "max_connections=300", "log_min_messages=log", "fsync=off"]
        place = ["-D", self.folder / "data", "-p", str(self.port), "-k", self.folder]
        return [*as_user("postgres"), *place, *(word for setting in settings for word in ("-c", setting))]

    def end(self) -> None:
        # Its processes end, too, and give back their shared memory.
        self.child.send_signal(signal.SIGQUIT)
        self._wait()


def as_user(program: str) -> list[str]:
    """A program of PostgreSQL, as somebody who may run it."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders = [*os.get_exec_path(), *map(str, debian)]
    found = shutil.which(program, path=os.pathsep.join(folders))
    if found is None:
        raise RuntimeError(f"{program} is not installed")
    if os.geteuid() != 0:
        return [found]
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", found]
