"""FastMCP's key-value store over the engine: `FastMCP(session_state_store=KeyValue(engine))`."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any, SupportsFloat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mcp_sessions import Engine

_DEFAULT = "default"


class KeyValue:
    """An `AsyncKeyValue` (py-key-value-aio) on the engine: what one worker puts, every worker gets.

    A value is a JSON object of at most `max_info_bytes`. It is kept for `session_ttl_ms` after its last
    use, or for its `ttl` if that is shorter. Keys may be any text. Every operation is one round trip;
    reads are answered from the local cache where that is sure to be true.
    """

    def __init__(self, engine: Engine, *, default_collection: str = _DEFAULT) -> None:
        self._info = engine.info
        self._default = default_collection

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return the value of a key; None if there is none."""
        return (await self.ttl(key, collection=collection))[0]

    async def ttl(
        self, key: str, *, collection: str | None = None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return the value of a key and the seconds it has left; None for one that does not expire."""
        record = await self._info.get(self._place(key, collection))
        held = None if record is None else record.initialize_params
        if held is None:
            return None, None
        expires = held.get("expires")
        if expires is None:
            return held["value"], None
        left = expires - time.time()
        return (held["value"], left) if left > 0 else (None, None)

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Keep a value under a key, maybe for so many seconds. Raises `too_large` or `invalid_input`."""
        held: dict[str, Any] = {"value": dict(value)}
        if ttl is not None:
            held["expires"] = time.time() + float(ttl)
        await self._info.set_initialize_params(self._place(key, collection), held)

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Delete a key; False if there was none."""
        there = await self.get(key, collection=collection) is not None
        return await self._info.delete(self._place(key, collection)) and there

    async def get_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[dict[str, Any] | None]:
        """`get` of several keys."""
        return [await self.get(key, collection=collection) for key in keys]

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """`ttl` of several keys."""
        return [await self.ttl(key, collection=collection) for key in keys]

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """`put` of several keys."""
        for key, value in zip(keys, values, strict=True):
            await self.put(key, value, collection=collection, ttl=ttl)

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """`delete` of several keys; how many there were."""
        return sum([await self.delete(key, collection=collection) for key in keys])

    def _place(self, key: str, collection: str | None) -> str:
        """Return a session id that no session has: keys may be longer, and of any text."""
        name = f"{len(collection or self._default)}:{collection or self._default}:{key}"
        return f"kv:{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"
