"""The conformance scenarios on the package's own API, on the backend of MCP_SESSIONS_TEST_URL.

Each scenario is a test of its own, named `file::scenario`; what they are is told in
`tests/conformance/README.md`. For `redis://` or `postgresql://` without a host a server is
started.
"""

from __future__ import annotations

import asyncio

import pytest

from .check import Failed
from .scenario import SCHEMA, files, parse
from .schema import problem_of
from .steps import STEPS
from .world import World, every_field_used, run
from .wrong import MALFORMED, MISTAKEN

# Proved by at least one scenario each.
GUARANTEES = {"G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10", "G11", "G12"}

WRITTEN = files()
ALL = [(f"{file}::{one['name']}", one) for file, scenarios in WRITTEN.items() for one in scenarios]


def named(pairs):
    return [pytest.param(value, id=name) for name, value in pairs]


def test_there_are_scenarios():
    assert ALL


@pytest.mark.parametrize("written", named(ALL))
def test_scenario(written, scenarios, request):
    name = request.node.callspec.id
    scenario = parse(written)
    if not scenarios.backend.can(scenario.requires):
        pytest.skip("the backend is not able to")
    scenarios.outcome(name)


@pytest.mark.parametrize("scenarios_of_file", named(WRITTEN.items()))
def test_file_is_what_the_schema_says(scenarios_of_file):
    assert problem_of(SCHEMA, scenarios_of_file, SCHEMA) is None


@pytest.mark.parametrize("scenarios_of_file", named(WRITTEN.items()))
def test_file_uses_each_name_once(scenarios_of_file):
    names = [one["name"] for one in scenarios_of_file]
    assert len(set(names)) == len(names)


def test_every_guarantee_is_proved():
    cited = {guarantee for _, one in ALL for guarantee in one["guarantees"]}
    assert cited >= GUARANTEES


# Every wrong scenario fails, and for its own reason.


@pytest.mark.parametrize("wrong", named((one.name.replace(" ", "-"), one) for one in MALFORMED))
def test_runner_refuses(wrong):
    with pytest.raises(ValueError) as failure:
        parse(wrong.scenario)
    assert wrong.says in str(failure.value)


@pytest.mark.parametrize("wrong", named((one.name.replace(" ", "-"), one) for one in MISTAKEN))
def test_runner_fails_on(wrong, scenarios):
    place = scenarios.backend.place(f"runner-{wrong.name.replace(' ', '-')}")
    with pytest.raises(Failed) as failure:
        scenarios.run(run(parse(wrong.scenario), place))
    assert wrong.says in str(failure.value)


def test_runner_fails_on_an_unknown_capability(scenarios):
    with pytest.raises(Failed, match="flight is no capability"):
        scenarios.backend.can(["flight"])


def test_runner_fails_on_a_field_that_a_step_ignores(scenarios):
    step = {"do": "kill", "node": "a"}
    scenario = parse({"name": "x", "title": "X.", "guarantees": ["G1"], "steps": [step]})

    async def ignoring(_, __):
        pass

    world = World(scenario, scenarios.backend.place("runner-ignored"))
    with pytest.raises(Failed, match=r'fields the runner ignores: expected \[\], got \["node"\]'):
        asyncio.run(every_field_used(ignoring, world, step))


def test_runner_knows_every_step_of_the_schema_and_no_other():
    known = set()
    for shape in [*SCHEMA["$defs"]["step"]["oneOf"], *SCHEMA["$defs"]["sessionStep"]["oneOf"]]:
        do = shape["properties"]["do"]
        known |= set(do["enum"]) if "enum" in do else {do["const"]}
    assert {*STEPS, "repeat", "parallel"} == known
