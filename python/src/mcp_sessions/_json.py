"""JSON in and out: what JSON can't carry is `invalid_input`, and nothing was done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from ._errors import InvalidInputError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Mapping

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def write(value: Any, what: str, operation: str) -> str:
    """Write a value as JSON."""
    try:
        return _encode(value)
    except RecursionError:
        raise InvalidInputError(f"{what} is nested too deep", operation) from None
    except (TypeError, ValueError) as problem:
        raise InvalidInputError(f"{what} is not JSON: {problem}", operation) from problem


def write_object(value: Mapping[str, Any], what: str, limit: int, operation: str) -> str:
    """Write an object of at most `limit` bytes."""
    if not isinstance(value, dict):
        raise InvalidInputError(f"{what} is a dict, not {type(value).__name__}", operation)
    written = write(value, what, operation)
    # A character is up to four bytes: in between, the core counts.
    if len(written) > limit:
        raise TooLargeError(f"{what} is over the limit of {limit} bytes of JSON", operation)
    return written


def read_object(text: str) -> dict[str, Any]:
    """Read what was written by `write_object`, here or in another language."""
    return cast("dict[str, Any]", json.loads(text))
