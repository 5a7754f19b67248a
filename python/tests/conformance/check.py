"""Compares what came with what was expected; every difference is told in words."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import traceback
from dataclasses import dataclass
from typing import Any

from mcp_sessions import McpSessionsError, Receipt

# How long anything expected may take to happen.
PATIENCE = 10.0
NO_RECEIPT = {"accepted": 0, "dropped": 0, "duplicates": 0}


class Failed(Exception):
    """A result that is not the expected one."""


@dataclass
class Outcome:
    value: Any = None
    error: McpSessionsError | None = None


def shown(value, most=200):
    try:
        written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except TypeError:
        written = repr(value)
    return written if len(written) <= most else f"{written[:most]}… ({len(written)} characters)"


def equal(one, other):
    """As JSON is: true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    return type(one) is type(other) and one == other


def same(what, got, wanted):
    if not equal(got, wanted):
        raise Failed(f"{what}: expected {shown(wanted, 400)}, got {shown(got, 400)}")


async def attempt(work):
    """What a call comes to. An error that is not the engine's own is nobody's expectation."""
    try:
        value = work()
        return Outcome(await value if inspect.isawaitable(value) else value)
    except McpSessionsError as error:
        return Outcome(error=error)


def check(got, wanted):
    """A value, or the error that is expected in its place."""
    if _is_failure(wanted):
        _check_failure(got, wanted)
    elif got.error is not None:
        raise Failed(f"expected {shown(wanted)}, got error {_told(got.error)}")
    else:
        same("result", got.value, wanted)


def done(got, wanted):
    """A step without a result, which succeeds unless it expects an error."""
    if wanted is not None:
        _check_failure(got, wanted)
    elif got.error is not None:
        raise Failed(f"unexpected error {_told(got.error)}")


def check_send(got, wanted):
    if _is_failure(wanted):
        _check_failure(got, wanted)
        return
    if got.error is not None:
        raise Failed(f"unexpected error {_told(got.error)}")
    receipt = _plain(got.value)
    if "anyOf" not in wanted:
        same("receipt", receipt, {**NO_RECEIPT, **wanted})
    elif not any(equal(receipt, {**NO_RECEIPT, **one}) for one in wanted["anyOf"]):
        raise Failed(f"expected any of {shown(wanted['anyOf'])}, got {shown(receipt)}")


def check_set(got, wanted, texts):
    """Compares lists whose order means nothing, duplicates included."""
    if _is_failure(wanted) or got.error is not None:
        check(got, wanted)
    else:
        check(Outcome(sorted(got.value)), sorted(texts(wanted)))


async def check_until(until, get, wanted):
    """Checks once, or, where others only have to get there, until it holds."""

    async def once():
        check(await get(), wanted)

    await (eventually(once) if until else once())


async def eventually(test):
    """For what nobody tells: tries until `test` does not fail."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            value = test()
            return await value if inspect.isawaitable(value) else value
        except (Failed, AssertionError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.005)


async def within(work, problem, seconds=PATIENCE):
    """What an awaitable comes to, or a failure that says what did not happen in time."""
    task = asyncio.ensure_future(work)
    finished, _ = await asyncio.wait([task], timeout=seconds)
    if not finished:
        task.cancel()
        raise Failed(problem)
    return task.result()


def _plain(receipt: Receipt):
    return {name: getattr(receipt, name) for name in NO_RECEIPT}


def _is_failure(wanted):
    return isinstance(wanted, dict) and "error" in wanted


def _check_failure(got, wanted):
    known = {"error", "message", "messageLacks", "retryable", "outcomeUnknown"}
    same("unknown fields of the expected error", sorted(wanted.keys() - known), [])
    code = wanted["error"]
    if got.error is None:
        what = "but it succeeded" if got.value is None else f"got {shown(_json_of(got.value))}"
        raise Failed(f"expected error {code}, {what}")
    error = got.error
    if error.code != code:
        raise Failed(f"expected error {code}, got error {_told(error)}")
    same("there is an operation", bool(error.operation), True)
    if "message" in wanted:
        same("message", error.message, wanted["message"])
    if "retryable" in wanted:
        same("retryable", error.retryable, wanted["retryable"])
    if "outcomeUnknown" in wanted:
        same("outcomeUnknown", error.outcome_unknown, wanted["outcomeUnknown"])
    if "messageLacks" in wanted:
        said = "".join(traceback.format_exception_only(type(error), error)) + repr(error) + repr(vars(error))
        if wanted["messageLacks"] in said:
            raise Failed(f"the message says too much: {said}")


def _json_of(value):
    return _plain(value) if isinstance(value, Receipt) else value


def _told(error):
    return f"{error.code}: {error.message}"
