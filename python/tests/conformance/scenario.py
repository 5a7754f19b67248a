"""The scenario files: read strictly, by their schema, and with every repetition written out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .schema import problem_of

FOLDER = Path(__file__).parents[3] / "tests" / "conformance"
SCHEMA_FILE = "scenario.schema.json"
SCHEMA = json.loads((FOLDER / SCHEMA_FILE).read_text("utf-8"))
# Steps inside are looked at one by one, once they are written out.
SHALLOW = {**SCHEMA, "$defs": {**SCHEMA["$defs"], "steps": {"type": "array", "minItems": 1}}}


@dataclass
class Located:
    """A step and where it stands, such as `2[i=17].1`; or branches that run at once."""

    at: str
    step: dict | None = None
    branches: list[list[Located]] | None = None


@dataclass
class Scenario:
    name: str
    guarantees: list[str]
    requires: list[str]
    options: dict
    nodes: list[str]
    steps: list[Located]


def files():
    """The scenarios of every file, as they are written, by the file's name."""
    everywhere = [*sorted(FOLDER.glob("*.json")), *sorted(FOLDER.glob("sessions/*.json"))]
    paths = [path for path in everywhere if path.name != SCHEMA_FILE]
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths}


def parse(written) -> Scenario:
    """A scenario that can be run. Raises for whatever is not known."""
    problem = problem_of(SCHEMA["$defs"]["scenario"], written, SHALLOW)
    if problem is not None:
        raise ValueError(f"scenario: {problem}")
    return Scenario(
        name=written["name"],
        guarantees=written["guarantees"],
        requires=written.get("requires", []),
        options=written.get("options", {}),
        nodes=written.get("nodes", ["a"]),
        steps=_write_out(written["steps"], ""),
    )


def _write_out(steps, prefix):
    return [one for n, step in enumerate(steps) for one in _write_out_one(step, f"{prefix}{n + 1}")]


def _write_out_one(step, at):
    is_session = isinstance(step, dict) and str(step.get("do")).startswith(("registry.", "events."))
    problem = problem_of(SCHEMA["$defs"]["sessionStep" if is_session else "step"], step, SHALLOW)
    if problem is not None:
        raise ValueError(f"step {at}: {problem} in {json.dumps(step)[:200]}")
    if step["do"] == "repeat":
        turns = numbers(step["from"], step["to"])
        return [one for i in turns for one in _write_out(_substituted(step["steps"], i), f"{at}[i={i}].")]
    if step["do"] != "parallel":
        return [Located(at, step)]
    return [
        Located(at, branches=[_write_out(one, f"{at}.{n + 1}.") for n, one in enumerate(step["branches"])])
    ]


def _substituted(value, i):
    """Puts the number of a turn in place of `{i}`; a text that is nothing else becomes a number."""
    if value == "{i}":
        return i
    if isinstance(value, str):
        return value.replace("{i}", str(i))
    if isinstance(value, list):
        return [_substituted(item, i) for item in value]
    if isinstance(value, dict):
        return {name: _substituted(field, i) for name, field in value.items()}
    return value


def text(written) -> str:
    """`"text"` or `{"repeat": "x", "times": 3}`."""
    return written if isinstance(written, str) else written["repeat"] * written["times"]


def texts(written) -> list[str]:
    """A text, `{"sequence": "m", "from": 1, "to": 9}`, or a list of both."""
    if isinstance(written, list):
        return [one for item in written for one in texts(item)]
    if isinstance(written, str) or "sequence" not in written:
        return [text(written)]
    return [f"{written['sequence']}{n}" for n in numbers(written["from"], written["to"])]


def notifications(written) -> list:
    """`{"each": {…}, "from": 1, "to": 9}` stands for notifications numbered in `params.n`."""
    if not isinstance(written, dict) or "each" not in written:
        return [written]
    return [with_param(written["each"], "n", n) for n in numbers(written["from"], written["to"])]


def with_param(notification, name, value):
    """A notification with one more parameter."""
    return {**notification, "params": {**notification.get("params", {}), name: value}}


def numbers(first, last):
    return range(first, last + 1)
