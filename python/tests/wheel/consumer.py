"""What somebody does who has installed the package and nothing else."""

import asyncio
import sys

import mcp_sessions


async def main() -> None:
    async with await mcp_sessions.connect("memory://consumer") as here:
        async with await mcp_sessions.connect("memory://consumer") as there:
            stream = await here.streams.open("session-1")
            reading = asyncio.ensure_future(stream.next())
            await asyncio.sleep(0)
            receipt = await there.streams.send("session-1", "hello")
            event = await asyncio.wait_for(reading, 20)
            assert receipt.accepted == 1
            assert event is not None
            assert event.payload == "hello"
            resumed = await there.streams.open("session-1", after=event.cursor)
            assert not resumed.gap
            await here.info.set_client_info("session-1", {"name": "consumer"})
            assert await there.info.get_client_info("session-1") == {"name": "consumer"}
            try:
                await here.streams.open("session-1", after="forged")
            except mcp_sessions.InvalidInputError as error:
                assert error.code == "invalid_input"
            else:
                raise AssertionError("a forged cursor was taken")


asyncio.run(main())
print(f"mcp-sessions {mcp_sessions.__version__} on {sys.version.split()[0]}: {mcp_sessions.__file__}")
