"""Mistakes that type checkers must find: each line that ends with `# wrong` and no other."""

from __future__ import annotations

import mcp_sessions


async def main(engine: mcp_sessions.Engine) -> None:
    await mcp_sessions.connect(7)  # wrong
    await mcp_sessions.connect("memory://", retention={"event": 1})  # wrong
    await mcp_sessions.connect("memory://", retantion={"events": 1})  # wrong
    await engine.streams.send("s", b"x")  # wrong
    await engine.streams.send(None, "x")  # wrong
    await engine.streams.open("s", conflict="ask")  # wrong
    await engine.info.set_log_level("s", "loud")  # wrong
    await engine.info.put("s", clientInfo={})  # wrong
    await engine.subscriptions.close(1, "o", "lost")  # wrong
    stream = await engine.streams.open("s")
    (await stream.next()).payload  # wrong
    stream.cursor = "x"  # wrong
    engine.streams.open("s").gap  # wrong
