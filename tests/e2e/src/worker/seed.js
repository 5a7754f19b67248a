// The Worker of @tmcp/session-manager-durable-objects' page, as it is printed there, but for the import of the
// managers, and for what the page leaves out: a schema adapter, the server's name, and the subscription manager.
import { McpServer } from 'tmcp';
import { ZodJsonSchemaAdapter } from '@tmcp/adapter-zod';
import { HttpTransport } from '@tmcp/transport-http';
import {
	DurableObjectStreamSessionManager,
	DurableObjectSubscriptionManager,
	KVInfoSessionManager,
	SyncLayer,
} from 'mcp-sessions/cloudflare';

const server = new McpServer(
	{ name: 'edge', version: '1.0.0' },
	{ adapter: new ZodJsonSchemaAdapter(), capabilities: { tools: { listChanged: true }, logging: {}, resources: { subscribe: true } } },
);
// Your MCP server setup here
server.tool(
	{
		name: 'example_tool',
		description: 'An example tool',
	},
	async () => {
		return { content: [{ type: 'text', text: 'Hello from the edge!' }] };
	},
);
server.tool({ name: 'announce', description: 'Announces that the tools have changed' }, async () => {
	server.changed('tools');
	return { content: [{ type: 'text', text: 'announced' }] };
});

const sessionManager = {
	streams: new DurableObjectStreamSessionManager('TMCP_DURABLE_OBJECT'),
	info: new KVInfoSessionManager('TMCP_SESSION_INFO'),
};
const transport = new HttpTransport(server, { path: '/mcp', sessionManager, subscriptionManager: new DurableObjectSubscriptionManager() });

// Export the Durable Object class
export { SyncLayer };
// Export the default handler
export default {
	async fetch(request, env, ctx) {
		return await transport.respond(request);
	},
};
