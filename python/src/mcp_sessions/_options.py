"""What can be set on an engine. The same options in every language; here in snake_case."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypedDict

from ._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Retention(TypedDict, total=False):
    """How much of a log is kept for replay; whichever bound is met first trims it."""

    events: int
    """Events kept; 0 turns history off, and delivery is live only."""
    bytes: int
    """Payload bytes kept."""
    age_ms: int
    """Milliseconds an event is kept, and a session is remembered after its last stream."""


class Queue(TypedDict, total=False):
    """What may wait for one slow reader before its stream ends with `overflow`."""

    events: int
    """Events that wait."""
    bytes: int
    """Payload bytes that wait."""


class Lease(TypedDict, total=False):
    """How soon the others notice that this node died."""

    ttl_ms: int
    """Milliseconds a lease lives without renewal."""
    renew_ms: int
    """Milliseconds between renewals."""


class RegistryOptions(TypedDict, total=False):
    """The session registry: when a session is stale, and how owners' tokens are hashed."""

    stale_ms: int
    """Milliseconds without access and without an active request after which a session is stale."""
    sweep_ms: int
    """Milliseconds between the sweeps that close stale sessions."""
    tombstone_ms: int
    """Milliseconds a closed session's id can't be used again."""
    max_metadata_bytes: int
    """The largest metadata of a session, in bytes of JSON."""
    owner_key: str
    """What owners' tokens are hashed with, the same on all nodes: at least 16 bytes nobody can guess."""


def as_json(options: Mapping[str, Any]) -> str:
    """Write options as the core reads them; those that are None have their defaults."""
    given = {_camel(name): _renamed(value) for name, value in options.items() if value is not None}
    try:
        return json.dumps(given, allow_nan=False)
    except (TypeError, ValueError) as problem:
        raise ConfigError(f"not understood: {problem}", "options") from problem


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {_camel(str(name)): _renamed(one) for name, one in value.items()}
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
