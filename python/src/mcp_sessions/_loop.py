"""The way between an event loop and the engine's threads.

A loop has one port. What can go on is put there by the engine, and the loop is woken once for all of it:
through a socket that it watches, or, where a loop can't watch one, by a thread that waits in its place.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import _native
from ._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._native import Doorbell, Port, _Later

T = TypeVar("T")

_ATTRIBUTE = "_mcp_sessions_port"
# For loops that take no attribute.
_ports: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Port] = weakref.WeakKeyDictionary()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_native.forked)


def here() -> tuple[asyncio.AbstractEventLoop, Port]:
    """Return the running loop and its port."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise _no_loop() from None
    port: Port | None = getattr(loop, _ATTRIBUTE, None)
    if port is not None and port.is_usable():
        return loop, port
    return loop, _port_of(loop)


async def result(later: _Later[T], operation: str = "") -> T:
    """Wait for a call that could not be answered at once. Cancelling the wait drops the call.

    `operation` names one that may have happened all the same.
    """
    call, future = later
    try:
        return await future
    except asyncio.CancelledError as cancelled:
        if future.done() and not future.cancelled():
            # It came at the last moment. An error that nobody gets is not to be logged as forgotten.
            future.exception()
        here()[1].cancel(call)
        if operation and hasattr(cancelled, "add_note"):
            cancelled.add_note(f"mcp_sessions: {operation} was cancelled on its way: its outcome is unknown")
        raise


async def taken(later: _Later[None], loop: asyncio.AbstractEventLoop, port: Port) -> Any:
    """Wait for what a call takes out of a source: it is taken here, so a cancelled wait has taken nothing."""
    call, future = later
    try:
        while True:
            await future
            got = port.resume(loop, call)
            if not isinstance(got, tuple):
                return got
            future = got[1]
    except BaseException:
        # Whoever waits behind it is next.
        port.cancel(call)
        raise


def _port_of(loop: asyncio.AbstractEventLoop) -> Port:
    port = _ports.get(loop)
    if port is not None and port.is_usable():
        return port
    port = _native.Port()
    try:
        loop.add_reader(port.fileno(), port.drain)
    except NotImplementedError:
        # Windows' proactor.
        wait = threading.Thread(
            target=_wait_for, args=(port.doorbell(), weakref.ref(loop), _drain_of(port)), daemon=True
        )
        wait.name = "mcp-sessions-doorbell"
        wait.start()
    try:
        setattr(loop, _ATTRIBUTE, port)
    except AttributeError:
        _ports[loop] = port
    return port


def _drain_of(port: Port) -> Callable[[], None]:
    """Drain a port as long as it is there: the thread at its door must not keep it."""
    reference = weakref.ref(port)

    def drain() -> None:
        port = reference()
        if port is not None:
            port.drain()

    return drain


def _wait_for(
    doorbell: Doorbell, loop: weakref.ref[asyncio.AbstractEventLoop], drain: Callable[[], None]
) -> None:
    while doorbell.wait():
        target = loop()
        if target is None:
            return
        try:
            target.call_soon_threadsafe(drain)
        except RuntimeError:
            # The loop was closed.
            return
        del target


def _no_loop() -> ConfigError:
    trio = cast("Any", sys.modules.get("trio"))
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            pass
        else:
            return ConfigError(
                "mcp_sessions runs on asyncio (or uvloop), and this is trio: run the engine in a thread "
                "of its own with asyncio.run, or serve with asyncio",
                "event loop",
            )
    return ConfigError(
        "there is no running asyncio event loop: await this inside asyncio.run(...)", "event loop"
    )
