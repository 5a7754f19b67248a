// One node: an engine on the shared backend, tmcp's managers made of it, a tmcp server over both HTTP transports.
import { HttpTransport } from '@tmcp/transport-http';
import { SseTransport } from '@tmcp/transport-sse';
import { Engine, type Options } from 'mcp-sessions';
import {
	InMemoryInfoSessionManager,
	InMemoryStreamSessionManager,
	InMemorySubscriptionManager,
	resumable,
} from 'mcp-sessions/tmcp';
import { serve } from './http.ts';
import { createServer, type Changed } from './server.ts';

export interface NodeOptions {
	readonly name: string;
	/** The backend's URL: what nodes have in common. */
	readonly backend: string;
	readonly engine?: Options;
	/** `false`: nothing but the changed import. */
	readonly resumable?: false | { unknownSessions?: 'accept' | 'reject'; conflict?: 'replace' | 'reject'; retryMs?: number };
}

/** What a node can be told from outside, over `POST /control`: the same in this process and in another. */
export type Command =
	| { do: 'changed'; what: Changed }
	| { do: 'touch'; uri: string }
	| { do: 'send'; to?: string[]; data: unknown[] }
	| { do: 'sendEach'; list: { to: string[]; data: unknown }[] }
	| { do: 'has'; session: string }
	| { do: 'stats' }
	| { do: 'gaps' }
	| { do: 'errors' }
	| { do: 'stick'; id: string | number }
	| { do: 'unstick'; id: string | number }
	| { do: 'closeListens' }
	| { do: 'closeEngine' };

export interface RunningNode {
	readonly name: string;
	readonly url: string;
	control(command: Command): Promise<any>;
	/** Leaves in good order. */
	stop(): Promise<void>;
	/** As `kill -9`: no cleanup, no goodbye. */
	kill(): Promise<void>;
}

/** A finished SSE frame with a log notification in it: what the tests send from outside a request. */
export function frame(data: unknown): string {
	const message = { jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data } };
	return `event: message\ndata: ${JSON.stringify(message)}\n\n`;
}

/** Runs a node in this process. */
export async function runNode(options: NodeOptions): Promise<RunningNode> {
	const { name } = options;
	const engine = await Engine.connect(options.backend, options.engine);
	const gaps: string[] = [];
	const errors: string[] = [];
	const managers = { engine, onError: (error: unknown) => void errors.push(String(error)) };
	const streams = new InMemoryStreamSessionManager(managers);
	const info = new InMemoryInfoSessionManager(managers);
	const subscriptionManager = new InMemorySubscriptionManager(managers);
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
			case 'stats':
				return engine.stats();
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
				return engine.shutdown();
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
			await engine.shutdown();
			await listening.close();
		},
		async kill() {
			engine.abandon();
			await listening.close();
		},
	};
}

/** Tells a node what to do, wherever it runs. */
export async function tell(url: string, command: Command): Promise<any> {
	const response = await fetch(`${url}/control`, { method: 'POST', body: JSON.stringify(command) });
	const answer = (await response.json()) as { value?: unknown; error?: string };
	if (answer.error) throw new Error(`${command.do}: ${answer.error}`);
	return answer.value;
}
