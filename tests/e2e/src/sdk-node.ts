// A replica of a server on an official SDK: `createSessionHandler` before it, and what tests ask of it.
import { createServer } from 'node:http';
import { McpServer as McpServer1 } from '@modelcontextprotocol/sdk/server/mcp.js';
import { WebStandardStreamableHTTPServerTransport as Web1 } from '@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js';
import { McpServer as McpServer2, WebStandardStreamableHTTPServerTransport as Web2 } from '@modelcontextprotocol/server';
import { Engine } from 'mcp-sessions';
import { type AuthInfo, createSessionHandler } from 'mcp-sessions/sdk';
import { listen } from './http.ts';
import type { Command } from './command.ts';
import type { NodeOptions, RunningNode } from './node.ts';

/** The two official SDKs: `@modelcontextprotocol/sdk` and `@modelcontextprotocol/server`. */
export type Sdk = 'sdk1' | 'sdk2';

/** What a replica can be told from outside, over `POST /control`. */
export type SdkCommand =
	| { do: 'say'; session: string; data: unknown[] }
	| { do: 'closeOwner'; owner: string }
	| { do: 'stats' }
	| { do: 'ended' }
	| { do: 'hung' }
	| { do: 'usage' }
	| { do: 'leave'; deadlineMs?: number };

/** What a process holds: to be the same after everything was closed. */
export interface Usage {
	heapBytes: number;
	handles: string[];
	sessions: number;
	streams: number;
}

type Server = McpServer1 | McpServer2;

const KINDS = {
	sdk1: { McpServer: McpServer1 as unknown as typeof McpServer2, Transport: Web1 },
	sdk2: { McpServer: McpServer2, Transport: Web2 },
} as const;

/** Runs a replica in this process. */
export async function runSdkNode(
	options: NodeOptions & { kind: Sdk },
	tell: (url: string, command: Command) => Promise<any>,
): Promise<RunningNode> {
	const { name, backend, kind } = options;
	const { McpServer, Transport } = KINDS[kind];
	const servers = new Map<string, Server>();
	const ended: [string, string][] = [];
	const hung: string[] = [];
	const errors: string[] = [];
	const engine = await Engine.connect(backend, options.engine ?? {});
	const sessions = createSessionHandler(
		({ sessionId }) => {
			const server = makeServer(McpServer, name, (data) => say(server, data), hung);
			servers.set(sessionId, server);
			return server;
		},
		{
			engine,
			Transport,
			transportOptions: { retryInterval: 20 }, // tests are in a hurry
			onError: (error) => void errors.push(String(error)),
			onSessionClosed(session, reason) {
				servers.delete(session);
				ended.push([session, reason]);
			},
		},
	);

	const http = await listen(
		createServer(async (req, res) => {
			if (req.url === '/control') {
				const chunks: Buffer[] = [];
				for await (const chunk of req) chunks.push(chunk as Buffer);
				const answer = await control(JSON.parse(Buffer.concat(chunks).toString()) as SdkCommand);
				return void res.end(JSON.stringify(answer));
			}
			const token = req.headers.authorization?.replace(/^Bearer /, '');
			await sessions.node(Object.assign(req, { auth: token === undefined ? undefined : authOf(token) }), res);
		}),
	);

	async function run(command: SdkCommand): Promise<unknown> {
		switch (command.do) {
			case 'say':
				for (const data of command.data) await say(servers.get(command.session), data);
				return;
			case 'closeOwner':
				return sessions.closeSessionsByOwner(command.owner, 'revoked');
			case 'stats':
				return sessions.getStats();
			case 'ended':
				return ended;
			case 'hung':
				return hung;
			case 'usage':
				return usage();
			case 'leave':
				return sessions.close(command.deadlineMs === undefined ? {} : { deadlineMs: command.deadlineMs });
			default:
				if ((command as { do: string }).do === 'errors') return errors;
				throw new Error(`${(command as { do: string }).do} is for nodes of tmcp`);
		}
	}

	async function control(command: SdkCommand): Promise<object> {
		return run(command).then(
			(value) => ({ value: value ?? null }),
			(error) => ({ error: String(error) }),
		);
	}

	async function usage(): Promise<Usage> {
		const { localSessions, localStreams } = await sessions.getStats();
		// What was just let go of is collected in a turn of its own.
		for (let turn = 0; turn < 3; turn++) {
			await new Promise((resolve) => setImmediate(resolve));
			globalThis.gc?.();
		}
		const handles = process.getActiveResourcesInfo().filter((one) => !one.startsWith('TCP'));
		return { heapBytes: process.memoryUsage().heapUsed, handles: handles.sort(), sessions: localSessions, streams: localStreams };
	}

	return {
		name,
		url: http.url,
		control: (command) => tell(http.url, command),
		async stop() {
			await sessions.close({ deadlineMs: 1_000 });
			await engine.shutdown();
			await http.close();
		},
		async kill() {
			engine.abandon();
			await http.close();
		},
	};
}

/** A token is its owner's name, and what it was issued as: the same owner may have others. */
function authOf(token: string): AuthInfo {
	return { token, clientId: 'e2e', extra: {} };
}

async function say(server: Server | undefined, data: unknown): Promise<void> {
	if (server === undefined) throw new Error('no server of this session is here');
	await server.server.sendLoggingMessage({ level: 'info', data });
}

/** What the SDKs tell a tool of its request, under their names. */
type Context = { requestId?: string; signal?: AbortSignal; mcpReq: { id: string; signal: AbortSignal } };

/** A server whose tools tell `heard` what they say outside of requests, and `hung` the session of a call that was cancelled. */
function makeServer(
	McpServer: typeof McpServer2,
	name: string,
	heard: (data: unknown) => Promise<void>,
	hung: string[],
): Server {
	const server = new McpServer({ name: 'e2e', version: '1.0.0' }, { capabilities: { tools: {}, logging: {} } });
	const answer = (text: string) => ({ content: [{ type: 'text' as const, text }] });
	server.registerTool('whoami', { description: 'Which replica answers' }, async () => answer(name));
	server.registerTool('shout', { description: 'Says something outside of the request' }, async () => {
		await heard(`from ${name}`);
		return answer('shouted');
	});
	server.registerTool('pause', { description: 'Takes a while' }, async () => {
		await new Promise((resolve) => setTimeout(resolve, 50));
		return answer(name);
	});
	const inside = ({ requestId, mcpReq }: Context) => ({ relatedRequestId: requestId ?? mcpReq.id });
	server.registerTool('ask', { description: 'Asks the user, within the request' }, async (context: any) => {
		const params = { message: `${name} asks`, requestedSchema: { type: 'object' as const, properties: {} } };
		const { content } = await server.server.elicitInput(params, inside(context));
		return answer(`${name} heard ${content!['text']}`);
	});
	server.registerTool('sample', { description: 'Asks the model, outside of the request' }, async () => {
		const messages = [{ role: 'user' as const, content: { type: 'text' as const, text: `${name} asks` } }];
		const { content } = await server.server.createMessage({ messages, maxTokens: 9 });
		return answer(`${name} heard ${(content as { text: string }).text}`);
	});
	server.registerTool('hang', { description: 'Goes on until it is cancelled' }, async (context: any) => {
		const { sessionId, signal = context.mcpReq.signal } = context as Context & { sessionId: string };
		await heard('hanging');
		await new Promise((resolve) => signal.addEventListener('abort', resolve));
		hung.push(sessionId);
		return answer('hung');
	});
	return server as Server;
}
