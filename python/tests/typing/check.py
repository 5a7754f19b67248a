"""Runs mypy and pyright as a user would: what is right has no errors, and every mistake is found.

    check.py

Ends with an error if anything is otherwise.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent


def main():
    mistakes = {
        n
        for n, line in enumerate((HERE / "misuse.py").read_text().splitlines(), 1)
        if line.endswith("# wrong")
    }
    assert mistakes
    right = True
    for name, find in (("mypy", mypy), ("pyright", pyright)):
        found = find()
        for problem in found.get("consumer_ok.py", []):
            right = False
            print(f"{name}: consumer_ok.py:{problem}")
        lines = {int(problem.split(":")[0]) for problem in found.get("misuse.py", [])}
        if lines != mistakes:
            right = False
            print(
                f"{name}: misuse.py: missed {sorted(mistakes - lines)}, found besides {sorted(lines - mistakes)}"
            )
            print("\n".join(found.get("misuse.py", [])))
    print("types are as they should be" if right else "types are wrong")
    return 0 if right else 1


def mypy():
    command = [BIN / "mypy", "--strict", "--no-incremental", "--no-error-summary", "--config-file=", *files()]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not said.stderr, said.stderr
    found = {}
    for row in said.stdout.splitlines():
        if ": error: " in row:
            path, line, problem = row.split(":", 2)
            found.setdefault(Path(path).name, []).append(f"{line}:{problem}")
    return found


def pyright():
    config = HERE / "pyrightconfig.json"
    command = [BIN / "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", config]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {}
    for one in json.loads(said.stdout)["generalDiagnostics"]:
        if one["severity"] == "error":
            line = one["range"]["start"]["line"] + 1
            found.setdefault(Path(one["file"]).name, []).append(f"{line}: {one['message']}")
    return found


def files():
    return [HERE / "consumer_ok.py", HERE / "misuse.py"]


if __name__ == "__main__":
    sys.exit(main())
