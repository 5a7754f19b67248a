// A round-robin HTTP front: what stands before the nodes in production. It knows nothing of sessions; a test may
// choose the node of a request, hold new GETs back, and cut connections, as a network does.
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { listen } from './http.ts';
import { Signal } from './wait.ts';

export interface Passed {
	readonly method: string;
	readonly path: string;
	readonly session: string | undefined;
	/** The MCP method that a 2026-07-28 client names in its headers. */
	readonly mcpMethod: string | undefined;
	readonly lastEventId: string | undefined;
	readonly node: number;
	readonly status: number;
}

/** Picks a node for a request; `undefined` leaves it to the round robin. */
export type Route = (request: Omit<Passed, 'node' | 'status'>) => number | undefined;

interface Live {
	readonly method: string;
	readonly session: string | undefined;
	readonly cut: (silently: boolean) => void;
	/** Something has been received from the node: its stream is open, not only promised by the headers. */
	started: boolean;
}

export class Front {
	readonly url: string;
	/** Every answered request, in the order of the answers. */
	readonly passed: Passed[] = [];
	readonly changed = new Signal();
	route: Route = () => undefined;
	readonly #nodes: (string | undefined)[];
	readonly #close: () => Promise<void>;
	readonly #live = new Set<Live>();
	readonly #opens = new Map<string, number>();
	#next = 0;
	#gate: Promise<void> | undefined;

	private constructor(url: string, nodes: string[], close: () => Promise<void>) {
		this.url = url;
		this.#nodes = nodes;
		this.#close = close;
	}

	static async start(nodes: string[]): Promise<Front> {
		let front: Front;
		const server = createServer((incoming, outgoing) => void front.#pass(incoming, outgoing));
		const listening = await listen(server);
		front = new Front(listening.url, [...nodes], listening.close);
		return front;
	}

	/** Other nodes from here on. */
	use(nodes: readonly string[]): void {
		this.#nodes.splice(0, this.#nodes.length, ...nodes);
	}

	/** Takes a node out of the rotation, as a health check does. */
	drop(node: number): void {
		this.#nodes[node] = undefined;
	}

	/** Holds new GETs back until the returned function is called: the line is down. */
	hold(): () => void {
		let open!: () => void;
		this.#gate = new Promise((resolve) => (open = resolve));
		return () => {
			this.#gate = undefined;
			open();
		};
	}

	/**
	 * Cuts the open GET streams (of one session): neither side gets a goodbye. Returns how many there were.
	 * `silently`: the node does not even notice, and what it sends goes nowhere, as behind a router that lost power.
	 */
	cut(session?: string, { silently = false } = {}): number {
		const streams = [...this.#live].filter((it) => it.method === 'GET' && (!session || it.session === session));
		for (const stream of streams) stream.cut(silently);
		return streams.length;
	}

	/** GET streams (of one session) that a node has begun to answer. */
	streams(session?: string): number {
		return [...this.#live].filter((it) => it.method === 'GET' && it.started && (!session || it.session === session)).length;
	}

	/** GET streams of one session that have begun, those that have ended included. */
	opens(session: string): number {
		return this.#opens.get(session) ?? 0;
	}

	/** Waits until a session's GET stream is open. */
	async opened(session: string): Promise<void> {
		await this.changed.until(() => this.streams(session) > 0, `the GET stream of ${session}`);
	}

	close(): Promise<void> {
		return this.#close();
	}

	#pick(request: Omit<Passed, 'node' | 'status'>): number | undefined {
		const chosen = this.route(request);
		if (chosen !== undefined && this.#nodes[chosen]) return chosen;
		for (let i = 0; i < this.#nodes.length; i++) {
			const node = this.#next++ % this.#nodes.length;
			if (this.#nodes[node]) return node;
		}
		return undefined;
	}

	async #pass(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
		outgoing.on('error', () => {});
		const { method = 'GET', headers } = incoming;
		if (method === 'GET' && this.#gate) await this.#gate;
		if (outgoing.destroyed) return;
		const about = {
			method,
			path: incoming.url ?? '/',
			session: text(headers['mcp-session-id']),
			mcpMethod: text(headers['mcp-method']),
			lastEventId: text(headers['last-event-id']),
		};
		const node = this.#pick(about);
		if (node === undefined) return void outgoing.writeHead(503).end();
		const upstream = httpRequest(this.#nodes[node]! + about.path, { method, headers, agent: false });
		const live: Live = {
			method,
			session: about.session,
			started: false,
			cut: (silently) => {
				if (!silently) upstream.destroy();
				else orphaned = true;
				incoming.socket.destroy();
			},
		};
		this.#live.add(live);
		let orphaned = false;
		outgoing.on('close', () => {
			this.#live.delete(live);
			if (!orphaned) upstream.destroy();
			this.changed.notify();
		});
		upstream.on('error', () => {
			if (outgoing.headersSent) outgoing.destroy();
			else outgoing.writeHead(502).end();
		});
		upstream.on('response', (answer) => {
			this.passed.push({ ...about, node, status: answer.statusCode ?? 0 });
			this.changed.notify();
			outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
			outgoing.flushHeaders();
			answer.on('error', () => outgoing.destroy());
			answer.on('aborted', () => outgoing.destroy());
			answer.once('data', () => {
				live.started = true;
				if (method === 'GET' && about.session) this.#opens.set(about.session, this.opens(about.session) + 1);
				this.changed.notify();
			});
			answer.pipe(outgoing);
			outgoing.on('close', () => answer.unpipe(outgoing).resume());
		});
		incoming.pipe(upstream);
	}
}

function text(header: string | string[] | undefined): string | undefined {
	return Array.isArray(header) ? header[0] : header;
}
