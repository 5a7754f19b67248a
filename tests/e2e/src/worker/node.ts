// One node in a Worker: what src/node.ts is in a process, with the managers at module scope.
import { env } from 'cloudflare:workers';
import { HttpTransport } from '@tmcp/transport-http';
import { SseTransport } from '@tmcp/transport-sse';
import {
	DurableObjectSessionRegistry,
	DurableObjectStreamSessionManager,
	DurableObjectSubscriptionManager,
	gateway,
	KVInfoSessionManager,
	resumable,
	SyncLayer as Packaged,
} from 'mcp-sessions/cloudflare';
import { frame, type Command } from '../command.ts';
import { createServer } from '../server.ts';
import type { Settings } from '../workerd.ts';

const { name, engine = {}, resumable: door } = env['SETTINGS'] as Settings;
const gaps: string[] = [];
const errors: string[] = [];
const options = { ...engine, onError: (error: unknown) => void errors.push(String(error)) };
const streams = new DurableObjectStreamSessionManager('TMCP_DURABLE_OBJECT', options);
const info = new KVInfoSessionManager('TMCP_SESSION_INFO', options);
const subscriptionManager = new DurableObjectSubscriptionManager('TMCP_DURABLE_OBJECT', options);
const registry = new DurableObjectSessionRegistry('TMCP_DURABLE_OBJECT', options);
const sessionManager = { streams, info };

const server = createServer(name);
const http = new HttpTransport(server, { path: '/mcp', sessionManager, subscriptionManager });
const sse = new SseTransport(createServer(name), { path: '/sse', endpoint: '/message', sessionManager });
const wrap = <T extends HttpTransport | SseTransport>(transport: T): Pick<T, 'respond'> =>
	door === false ? transport : resumable(transport, { sessionManager, onGap: ({ sessionId }) => void gaps.push(sessionId), retryMs: 20, ...door });
const transports = [wrap(http), wrap(sse)];

/** What a test can have a node do beside what tmcp does. */
export type WorkerCommand =
	| Command
	| { do: 'call'; on: 'streams' | 'info' | 'registry'; method: string; args: unknown[] }
	| { do: 'garbage' }
	| { do: 'kv'; method: 'put' | 'get' | 'delete' | 'list'; args: unknown[] };

async function run(command: WorkerCommand): Promise<unknown> {
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
			void subscriptionManager
				.create(
					{ id: command.id, origin: 'stuck', filters: { toolsListChanged: true } },
					{ acknowledge: () => new Promise<void>(() => {}), send: () => {}, close: () => {} },
				)
				.catch(() => {});
			return;
		case 'unstick':
			return subscriptionManager.close(command.id, 'stuck', 'closed');
		case 'closeListens':
			return http.close();
		case 'closeEngine':
			return;
		case 'garbage': {
			// What a request is done with is let go of when it is collected.
			let sum = 0;
			for (let i = 0; i < 200; i++) sum += new Array(200_000).fill({ i }).length;
			return sum;
		}
		case 'call': {
			const it = { streams, info, registry }[command.on] as unknown as Record<string, (...args: unknown[]) => unknown>;
			return it[command.method]!(...command.args);
		}
		case 'kv': {
			const kv = env['TMCP_SESSION_INFO'] as unknown as Record<string, (...args: unknown[]) => unknown>;
			return kv[command.method]!(...command.args);
		}
	}
}

async function control(command: WorkerCommand): Promise<Response> {
	try {
		return Response.json({ value: (await run(command)) ?? null });
	} catch (error) {
		return Response.json({ error: String(error), code: (error as { code?: string }).code ?? null }, { status: 500 });
	}
}

let lives = 0;

export class SyncLayer extends Packaged {
	constructor(...args: ConstructorParameters<typeof Packaged>) {
		super(...args);
		lives += 1;
	}

	override fetch(request: Request): Response {
		const { pathname } = new URL(request.url);
		if (pathname === '/rows') {
			const keys = [...this.ctx.storage.sql.exec('SELECT k FROM pairs').raw()] as [ArrayBuffer][];
			return Response.json(keys.map(([key]) => String.fromCharCode(new Uint8Array(key)[0]!)).join(''));
		}
		if (pathname === '/abort') (this.ctx as unknown as { abort(why: string): void }).abort('the test asked for it');
		return super.fetch(request);
	}
}

/** Of every object: its rows, or its end. */
async function objects(path: string): Promise<Response> {
	const namespace = env['TMCP_DURABLE_OBJECT'] as unknown as { getByName(name: string): { fetch(url: string): Promise<Response> } };
	const shards = engine.shards ?? 8;
	const names = Array.from({ length: shards }, (_, shard) => (shards === 1 ? 'tmcp:sync-layer' : `tmcp:sync-layer/${shard}/${shards}`));
	const answers = names.map((it) =>
		namespace
			.getByName(it)
			.fetch(`https://sync-layer${path}`)
			.then((answer) => answer.json())
			.catch((error) => String(error)),
	);
	return Response.json(await Promise.all(answers));
}

export default {
	async fetch(request: Request): Promise<Response> {
		const { pathname } = new URL(request.url);
		if (pathname === '/control') return control((await request.json()) as WorkerCommand);
		if (pathname === '/sessions') return gateway(env, { token: 'correct-horse', ...(engine.shards && { shards: engine.shards }) })(request);
		if (pathname === '/lives') return Response.json(lives);
		if (pathname === '/rows' || pathname === '/abort') return objects(pathname);
		for (const transport of transports) {
			const response = await transport.respond(request);
			if (response) return response;
		}
		return new Response('Not found', { status: 404 });
	},
};
