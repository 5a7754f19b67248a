// The real clients of both eras, each with an inbox of every notification that it received.
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from '@modelcontextprotocol/client';
import { Client as LegacyClient } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js';
import { Inbox } from './wait.ts';

export interface Notice {
	readonly method: string;
	readonly params?: any;
}

/** Told of a notification as it comes in. */
export type Heard = (notice: Notice) => void;

/** A client that reconnects soon, and does not give up before the test does. */
const RECONNECT = { initialReconnectionDelay: 20, maxReconnectionDelay: 100, reconnectionDelayGrowFactor: 1.2, maxRetries: 100 };

export interface Legacy extends AsyncDisposable {
	readonly client: LegacyClient;
	readonly session: string;
	readonly inbox: Inbox<Notice>;
	readonly errors: Error[];
	/** Calls a tool; gives its text. */
	call(tool: string, args?: Record<string, unknown>): Promise<string>;
	/** Ends the session as a polite client does: DELETE, then close. */
	terminate(): Promise<void>;
}

/** `@modelcontextprotocol/sdk` 1.x over Streamable HTTP. Resolves before its GET stream is open: see `settled`. */
export async function legacy(url: string, name = 'legacy', heard: Heard = () => {}, token?: string): Promise<Legacy> {
	const requestInit = token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } };
	const transport = new StreamableHTTPClientTransport(new URL('/mcp', url), { reconnectionOptions: RECONNECT, requestInit });
	const connected = await connectLegacy(transport, name, heard);
	return {
		...connected,
		session: transport.sessionId ?? '',
		async terminate() {
			await transport.terminateSession();
			await connected.client.close();
		},
	};
}

/** `@modelcontextprotocol/sdk` 1.x over the older HTTP+SSE transport. */
export async function legacySse(url: string, name = 'legacy-sse'): Promise<Omit<Legacy, 'session' | 'terminate'>> {
	return connectLegacy(new SSEClientTransport(new URL('/sse', url)), name, () => {});
}

async function connectLegacy(transport: Transport, name: string, heard: Heard) {
	const client = new LegacyClient({ name, version: '1.0.0' }, { capabilities: { roots: { listChanged: true } } });
	const inbox = new Inbox<Notice>();
	const errors: Error[] = [];
	client.fallbackNotificationHandler = async (notice) => {
		heard(notice as Notice);
		inbox.push(notice as Notice);
	};
	client.onerror = (error) => void errors.push(error);
	await client.connect(transport);
	return {
		client,
		inbox,
		errors,
		call: async (tool: string, args: Record<string, unknown> = {}) => text(await client.callTool({ name: tool, arguments: args })),
		[Symbol.asyncDispose]: () => client.close(),
	};
}

/** A client that can be asked, on a session. */
export interface Answering extends AsyncDisposable {
	readonly session: string;
	/** Calls a tool; gives its text. With a signal it can be cancelled. */
	call(tool: string, signal?: AbortSignal): Promise<string>;
}

/** What a client says to a request of the server. */
export type Answer = (request: { method: string; params?: any }) => Promise<object>;

const ABLE = { roots: {}, sampling: {}, elicitation: {} };

/** Either official client of the legacy era, of `@modelcontextprotocol/sdk` 1.x or `@modelcontextprotocol/client` 2.x. */
export async function answering(url: string, made: 'sdk' | 'client', answer: Answer): Promise<Answering> {
	const info = { name: 'answering', version: '1.0.0' };
	const options = { capabilities: ABLE, versionNegotiation: { mode: 'legacy' as const } };
	const client = made === 'sdk' ? new LegacyClient(info, options) : new ModernClient(info, options);
	client.fallbackRequestHandler = answer as (request: object) => Promise<any>;
	const Transport = made === 'sdk' ? StreamableHTTPClientTransport : ModernTransport;
	const transport = new Transport(new URL('/mcp', url), { reconnectionOptions: RECONNECT });
	await client.connect(transport as any);
	return {
		session: transport.sessionId ?? '',
		async call(name, signal) {
			const params = { name, arguments: {} };
			const options = signal === undefined ? {} : { signal };
			const calling = client instanceof LegacyClient ? client.callTool(params, undefined, options) : client.callTool(params, options);
			return text(await calling);
		},
		[Symbol.asyncDispose]: () => client.close(),
	};
}

export interface Modern extends AsyncDisposable {
	readonly client: ModernClient;
	readonly inbox: Inbox<Notice>;
	call(tool: string, args?: Record<string, unknown>): Promise<string>;
}

/** `@modelcontextprotocol/client` 2.x, held to the 2026-07-28 revision. */
export async function modern(url: string, name = 'modern', heard: Heard = () => {}): Promise<Modern> {
	const client = new ModernClient({ name, version: '1.0.0' }, { versionNegotiation: { mode: { pin: '2026-07-28' } } });
	const inbox = new Inbox<Notice>();
	client.fallbackNotificationHandler = async (notice) => {
		heard(notice as Notice);
		inbox.push(notice as Notice);
	};
	await client.connect(new ModernTransport(new URL('/mcp', url)));
	return {
		client,
		inbox,
		call: async (tool, args = {}) => text(await client.callTool({ name: tool, arguments: args })),
		[Symbol.asyncDispose]: () => client.close(),
	};
}

function text(result: any): string {
	const first = result?.content?.[0]?.text;
	if (typeof first !== 'string') throw new Error(`no text in ${JSON.stringify(result)}`);
	return first;
}
