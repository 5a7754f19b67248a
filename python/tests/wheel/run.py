"""Builds the wheel, installs it into an empty environment of every Python here, and uses it in an empty folder.

    run.py PROFILE PYTHON...

The last line is `N passed, N failed`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1]


def main(profile, *pythons):
    with tempfile.TemporaryDirectory(prefix="mcp-sessions-wheel-") as folder:
        wheel = build(profile, Path(folder) / "dist")
        checks = [("what is in the wheel", lambda: check_contents(wheel))]
        for python in pythons:
            checks.append((f"installed in {python}", lambda python=python: use(wheel, python, Path(folder))))
        failed = 0
        for name, check in checks:
            try:
                check()
                print(f"ok    {name}", flush=True)
            except (AssertionError, subprocess.CalledProcessError) as error:
                failed += 1
                print(f"FAIL  {name}: {error}\n{getattr(error, 'stdout', '') or ''}", flush=True)
        print(f"{len(checks) - failed} passed, {failed} failed")
        return 1 if failed else 0


def build(profile, to):
    maturin = Path(sys.executable).parent / "maturin"
    subprocess.run([maturin, "build", "--profile", profile, "--out", to], cwd=PACKAGE, check=True)
    [wheel] = to.glob("*.whl")
    return wheel


def check_contents(wheel):
    assert "-cp310-abi3-" in wheel.name, wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("__init__.py", "__main__.py", "_native.abi3.so", "_native.pyi", "py.typed"):
        assert f"mcp_sessions/{wanted}" in names, f"{wanted} is missing: {names}"
    strangers = [name for name in names if not name.startswith(("mcp_sessions/", "mcp_sessions-"))]
    assert not strangers, strangers


def use(wheel, python, folder):
    place = Path(tempfile.mkdtemp(dir=folder))
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    subprocess.run([python, "-m", "venv", place / "venv"], check=True, env=env)
    installed = place / "venv" / "bin" / "python"
    pip = [installed, "-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", wheel]
    subprocess.run(pip, check=True, env=env)
    (place / "empty").mkdir()
    shutil.copy(HERE / "consumer.py", place / "consumer.py")
    for program in (["-m", "mcp_sessions"], [place / "consumer.py"]):
        command = [installed, "-W", "error", *program]
        said = subprocess.run(
            command, cwd=place / "empty", check=True, env=env, text=True, timeout=120, stdout=subprocess.PIPE
        ).stdout
        print(said, end="", flush=True)
    assert str(place) in said, f"another copy was used: {said}"
    shutil.rmtree(place)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
