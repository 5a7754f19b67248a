import os

from fastmcp import Context, FastMCP

from mcp_sessions import mcp as sessions


def build(engine):
    server = FastMCP("demo", session_state_store=sessions.KeyValue(engine))

    @server.tool
    async def count(ctx: Context) -> int:
        n = (await ctx.get_state("n") or 0) + 1
        await ctx.set_state("n", n)
        return n

    return sessions.http_app(server, engine)


app = sessions.application(os.environ["SESSIONS_URL"], build)
