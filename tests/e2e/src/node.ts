// One node: an engine on the shared backend, tmcp's managers made of it, a tmcp server over both HTTP transports.
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { HttpTransport } from '@tmcp/transport-http';
import { SseTransport } from '@tmcp/transport-sse';
import { Engine, type Options } from 'mcp-sessions';
import {
	InMemoryInfoSessionManager,
	InMemoryStreamSessionManager,
	InMemorySubscriptionManager,
	PostgresInfoSessionManager,
	type PostgresManagerOptions,
	PostgresStreamSessionManager,
	PostgresSubscriptionManager,
	RedisInfoSessionManager,
	type RedisManagerOptions,
	RedisStreamSessionManager,
	RedisSubscriptionManager,
	resumable,
} from 'mcp-sessions/tmcp';
import { frame, type Command } from './command.ts';
import { serve } from './http.ts';
import { runSdkNode, type Sdk } from './sdk-node.ts';
import { createServer } from './server.ts';

export interface NodeOptions {
	readonly name: string;
	/** Which server it runs: tmcp's, or one of an official SDK. */
	readonly kind?: 'tmcp' | Sdk;
	/** The backend's URL: what nodes have in common. */
	readonly backend: string;
	readonly engine?: Options;
	/** `false`: nothing but the changed import. */
	readonly resumable?: false | { unknownSessions?: 'accept' | 'reject'; conflict?: 'replace' | 'reject'; retryMs?: number };
}

export interface RunningNode {
	readonly name: string;
	readonly url: string;
	control(command: Command): Promise<any>;
	/** Leaves in good order. */
	stop(): Promise<void>;
	/** As `kill -9`: no cleanup, no goodbye. */
	kill(): Promise<void>;
}

interface Made {
	readonly streams: InMemoryStreamSessionManager | PostgresStreamSessionManager | RedisStreamSessionManager;
	readonly info: InMemoryInfoSessionManager | PostgresInfoSessionManager | RedisInfoSessionManager;
	readonly subscriptionManager: InMemorySubscriptionManager | PostgresSubscriptionManager | RedisSubscriptionManager;
	close(): Promise<void>;
	/** As `kill -9`, where several nodes are in one process. */
	abandon(): void;
}

const onRedis = (given: RedisManagerOptions) => ({
	streams: new RedisStreamSessionManager(given),
	info: new RedisInfoSessionManager(given),
	subscriptionManager: new RedisSubscriptionManager(given),
});

const onPostgres = (given: PostgresManagerOptions) => ({
	streams: new PostgresStreamSessionManager(given),
	info: new PostgresInfoSessionManager(given),
	subscriptionManager: new PostgresSubscriptionManager(given),
});

/** The managers of the backend: each made by itself, as in a server's own code. */
async function makeManagers({ backend, engine: options = {} }: NodeOptions, onError: (error: unknown) => void): Promise<Made> {
	if (backend.startsWith('memory:')) {
		// Nodes in one process: each is an engine of its own on the hub.
		const engine = await Engine.connect(backend, options);
		return {
			streams: new InMemoryStreamSessionManager({ engine, onError }),
			info: new InMemoryInfoSessionManager({ engine, onError }),
			subscriptionManager: new InMemorySubscriptionManager({ engine, onError }),
			close: () => engine.shutdown(),
			abandon: () => engine.abandon(),
		};
	}
	const { streams, info, subscriptionManager } = backend.startsWith('postgres')
		? onPostgres({ connectionString: backend, ...options, onError })
		: onRedis({ url: backend, ...options, onError });
	return {
		streams,
		info,
		subscriptionManager,
		async close() {
			await Promise.all([streams.close(), info.close(), subscriptionManager[Symbol.asyncDispose]()]);
		},
		abandon() {
			throw new Error('a node of a shared backend is killed with its process');
		},
	};
}

/** Runs a node in this process. */
export async function runNode(options: NodeOptions): Promise<RunningNode> {
	const { name, kind = 'tmcp' } = options;
	if (kind !== 'tmcp') return runSdkNode({ ...options, kind }, tell);
	const gaps: string[] = [];
	const errors: string[] = [];
	const made = await makeManagers(options, (error) => void errors.push(String(error)));
	const { streams, info, subscriptionManager } = made;
	const sessionManager = { streams, info };

	const server = createServer(name);
	const http = new HttpTransport(server, { path: '/mcp', sessionManager, subscriptionManager });
	const sseServer = createServer(name);
	const sse = new SseTransport(sseServer, { path: '/sse', endpoint: '/message', sessionManager });
	const wrap = <T extends HttpTransport | SseTransport>(transport: T): Pick<T, 'respond'> =>
		options.resumable === false
			? transport
			: resumable(transport, {
					sessionManager,
					onGap: ({ sessionId }) => void gaps.push(sessionId),
					retryMs: 20, // tests are in a hurry
					...options.resumable,
				});
	const transports = [wrap(http), wrap(sse)];

	const listening = await serve(async (request) => {
		if (new URL(request.url).pathname === '/control') return control((await request.json()) as Command);
		for (const transport of transports) {
			const response = await transport.respond(request);
			if (response) return response;
		}
		return null;
	});

	async function run(command: Command): Promise<unknown> {
		switch (command.do) {
			case 'changed':
				return server.changed(command.what);
			case 'touch':
				return server.changed('resource', command.uri);
			case 'send':
				for (const it of command.data) await streams.send(command.to, frame(it));
				return;
			case 'sendEach':
				for (const { to, data } of command.list) await streams.send(to, frame(data));
				return;
			case 'has':
				return streams.has(command.session);
			case 'gaps':
				return gaps;
			case 'errors':
				return errors;
			case 'stick':
				// never acknowledged: a callback that does not settle
				void Promise.resolve(
					subscriptionManager.create(
						{ id: command.id, origin: 'stuck', filters: { toolsListChanged: true } },
						{ acknowledge: () => new Promise<void>(() => {}), send: () => {}, close: () => {} },
					),
				).catch(() => {});
				return;
			case 'unstick':
				return subscriptionManager.close(command.id, 'stuck', 'closed');
			case 'closeListens':
				return http.close();
			case 'closeEngine':
				return made.close();
			default:
				throw new Error(`${command.do} is for nodes of the SDKs`);
		}
	}

	async function control(command: Command): Promise<Response> {
		try {
			return Response.json({ value: (await run(command)) ?? null });
		} catch (error) {
			return Response.json({ error: String(error) }, { status: 500 });
		}
	}

	return {
		name,
		url: listening.url,
		control: (command) => tell(listening.url, command),
		async stop() {
			await made.close();
			await listening.close();
		},
		async kill() {
			made.abandon();
			await listening.close();
		},
	};
}

/** Tells a node what to do, wherever it runs. */
export async function tell(url: string, command: object): Promise<any> {
	// A connection of its own: one that is kept may be closed just now.
	const outgoing = request(`${url}/control`, { method: 'POST', agent: false });
	outgoing.end(JSON.stringify(command));
	const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
	let text = '';
	for await (const part of response.setEncoding('utf8')) text += part;
	const answer = JSON.parse(text) as { value?: unknown; error?: string };
	if (answer.error) throw new Error(`${(command as Command).do}: ${answer.error}`);
	return answer.value;
}
