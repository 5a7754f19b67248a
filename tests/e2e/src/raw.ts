// HTTP without a client library: what a test needs to see the bytes, to misbehave, and to be a thousand clients.
import { request, type ClientRequest, type IncomingMessage } from 'node:http';
import { Inbox, within } from './wait.ts';

export interface Frame {
	readonly id?: string;
	readonly event?: string;
	readonly data?: string;
	readonly retry?: number;
	readonly comment?: string;
}

/** An open event stream, read as it comes. */
export class RawStream {
	readonly status: number;
	readonly headers: IncomingMessage['headers'];
	readonly frames = new Inbox<Frame>();
	/** Resolves when the stream has ended, whoever ended it. */
	readonly ended: Promise<void>;
	readonly #request: ClientRequest;
	readonly #response: IncomingMessage;

	constructor(outgoing: ClientRequest, response: IncomingMessage) {
		this.#request = outgoing;
		this.#response = response;
		this.status = response.statusCode ?? 0;
		this.headers = response.headers;
		this.ended = new Promise((resolve) => response.on('close', resolve));
		let rest = '';
		response.setEncoding('utf8');
		response.on('error', () => {});
		response.on('data', (text: string) => {
			const parts = (rest + text).split('\n\n');
			rest = parts.pop()!;
			for (const part of parts) this.frames.push(parseFrame(part));
		});
	}

	/** The `data` of every message in the log notifications received so far; other events are no messages. */
	get messages(): any[] {
		const messages = this.frames.items.filter((it) => it.data && (it.event ?? 'message') === 'message');
		return messages.map((it) => JSON.parse(it.data!).params?.data);
	}

	get lastEventId(): string | undefined {
		return this.frames.items.findLast((it) => it.id !== undefined)?.id;
	}

	/** Waits until the last of the messages is `data`, and gives them all. */
	async until(data: unknown): Promise<any[]> {
		await this.frames.changed.until(
			() => this.messages.some((it) => JSON.stringify(it) === JSON.stringify(data)),
			() => `message ${JSON.stringify(data)}; got ${JSON.stringify(this.frames.items)}`,
		);
		return this.messages;
	}

	/** Stops reading: the socket fills up. */
	pause(): void {
		this.#response.pause();
	}

	resume(): void {
		this.#response.resume();
	}

	/** Goes away without a word. */
	abort(): void {
		this.#request.destroy();
	}
}

export function parseFrame(text: string): Frame {
	const frame: Record<string, any> = {};
	for (const line of text.split('\n')) {
		const colon = line.indexOf(':');
		const name = colon < 0 ? line : line.slice(0, colon);
		const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
		if (name === '') frame['comment'] = value;
		else if (name === 'retry') frame['retry'] = Number(value);
		else frame[name] = name === 'data' && 'data' in frame ? `${frame['data']}\n${value}` : value;
	}
	return frame;
}

export interface RawHeaders {
	session?: string | undefined;
	lastEventId?: string | undefined;
	/** A bearer token. */
	token?: string | undefined;
}

/** Opens the GET stream of a session. The status may be any; the stream of an error has no frames. */
export async function openStream(url: string, { session, lastEventId, token }: RawHeaders = {}): Promise<RawStream> {
	const headers: Record<string, string> = { accept: 'text/event-stream' };
	if (token !== undefined) headers['authorization'] = `Bearer ${token}`;
	if (session !== undefined) headers['mcp-session-id'] = session;
	if (lastEventId !== undefined) headers['last-event-id'] = lastEventId;
	const outgoing = request(new URL('/mcp', url), { method: 'GET', headers, agent: false });
	outgoing.on('error', () => {});
	const response = await within(
		new Promise<IncomingMessage>((resolve, reject) => {
			outgoing.on('response', resolve);
			outgoing.on('error', reject);
			outgoing.end();
		}),
		'the answer to a GET',
	);
	return new RawStream(outgoing, response);
}

export interface RawAnswer {
	readonly status: number;
	readonly session: string | undefined;
	readonly body: string;
}

/** Posts one JSON-RPC message. */
export function post(url: string, message: object, { session, token }: RawHeaders = {}): Promise<RawAnswer> {
	return send('POST', url, session, token, JSON.stringify({ jsonrpc: '2.0', ...message }));
}

/** Ends a session. */
export function del(url: string, session: string, token?: string): Promise<RawAnswer> {
	return send('DELETE', url, session, token);
}

async function send(
	method: string,
	url: string,
	session: string | undefined,
	token: string | undefined,
	body?: string,
): Promise<RawAnswer> {
	const headers: Record<string, string> = { accept: 'application/json, text/event-stream', 'content-type': 'application/json' };
	if (session !== undefined) headers['mcp-session-id'] = session;
	if (token !== undefined) headers['authorization'] = `Bearer ${token}`;
	const outgoing = request(new URL('/mcp', url), { method, headers, agent: false });
	const response = await within(
		new Promise<IncomingMessage>((resolve, reject) => {
			outgoing.on('response', resolve);
			outgoing.on('error', reject);
			outgoing.end(body);
		}),
		`the answer to a ${method}`,
	);
	let text = '';
	for await (const chunk of response.setEncoding('utf8')) text += chunk;
	const id = response.headers['mcp-session-id'];
	return { status: response.statusCode ?? 0, session: Array.isArray(id) ? id[0] : id, body: text };
}

let requests = 0;

/** Initializes a session; gives its id. */
export async function initialize(
	url: string,
	clientInfo: object = { name: 'raw', version: '1.0.0' },
	token?: string,
): Promise<string> {
	const params = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo };
	const answer = await post(url, { id: ++requests, method: 'initialize', params }, { token });
	if (answer.status !== 200 || !answer.session) throw new Error(`initialize: ${answer.status} ${answer.body}`);
	await post(url, { method: 'notifications/initialized' }, { session: answer.session, token });
	return answer.session;
}

/** Calls a tool; gives the answer as it came. */
export function call(url: string, session: string, tool: string, args: object = {}, token?: string): Promise<RawAnswer> {
	return post(url, { id: ++requests, method: 'tools/call', params: { name: tool, arguments: args } }, { session, token });
}
