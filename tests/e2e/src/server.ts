// The MCP server that every node runs: a few tools, prompts and resources, and the means to change them.
import { ZodJsonSchemaAdapter } from '@tmcp/adapter-zod';
import { McpServer } from 'tmcp';
import { z } from 'zod';

/** Resources that can be read and subscribed to. */
export const NOTES = ['note://a', 'note://b', 'note://c'] as const;

/** What can be announced as changed. */
export type Changed = 'tools' | 'prompts' | 'resources';

export function createServer(node: string) {
	const server = new McpServer(
		{ name: 'e2e', version: '1.0.0' },
		{
			adapter: new ZodJsonSchemaAdapter(),
			capabilities: {
				tools: { listChanged: true },
				prompts: { listChanged: true },
				resources: { listChanged: true, subscribe: true },
				logging: {},
			},
		},
	);
	const say = (text: string) => ({ content: [{ type: 'text' as const, text }] });
	server.tool(
		{ name: 'echo', description: 'Says it again, and which node does', schema: z.object({ text: z.string() }) },
		({ text }) => say(`${node}: ${text}`),
	);
	server.tool({ name: 'whoami', description: 'What this node knows of the caller' }, () =>
		say(JSON.stringify({ node, session: server.ctx.sessionId, ...server.ctx.sessionInfo })),
	);
	server.tool(
		{ name: 'log', description: 'Logs one line at every level given', schema: z.object({ levels: z.array(z.string()) }) },
		({ levels }) => {
			for (const level of levels) server.log(level as Parameters<typeof server.log>[0], `${level} on ${node}`);
			return say('logged');
		},
	);
	server.tool(
		{ name: 'shout', description: 'Logs one line of a given size', schema: z.object({ bytes: z.number() }) },
		({ bytes }) => {
			server.log('info', 'x'.repeat(bytes));
			return say('logged');
		},
	);
	server.tool(
		{ name: 'announce', description: 'Announces a changed list', schema: z.object({ what: z.enum(['tools', 'prompts', 'resources']) }) },
		({ what }) => {
			server.changed(what);
			return say('announced');
		},
	);
	server.tool(
		{ name: 'touch', description: 'Announces a changed resource', schema: z.object({ uri: z.string() }) },
		({ uri }) => {
			server.changed('resource', uri);
			return say('touched');
		},
	);
	for (const uri of NOTES) {
		server.resource({ name: uri, description: 'A note', uri }, () => ({ contents: [{ uri, text: `${uri} on ${node}` }] }));
	}
	server.prompt({ name: 'hello', description: 'A greeting' }, () => ({
		messages: [{ role: 'user' as const, content: { type: 'text' as const, text: 'hello' } }],
	}));
	return server;
}
