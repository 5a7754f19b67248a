import os

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from mcp_sessions import mcp as sessions


def build(engine):
    server = MCPServer("demo", subscriptions=sessions.SubscriptionBus(engine))

    @server.tool()
    async def touch(uri: str, ctx: Context) -> str:
        await ctx.notify_resource_updated(uri)
        return "every client that listens was told, whatever worker it is on"

    return sessions.streamable_http_app(server, engine)


app = sessions.application(os.environ["SESSIONS_URL"], build)
