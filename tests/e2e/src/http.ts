// Node's http on one side, fetch's Request and Response on the other: streams both ways, waits for a slow
// reader, and tells the handler when the client has gone (request.signal, then the body's cancel).
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';

export type Handler = (request: Request) => Promise<Response | null>;

export interface Listening {
	readonly url: string;
	readonly server: Server;
	close(): Promise<void>;
}

/** Serves `handler` on a free port of 127.0.0.1. */
export async function serve(handler: Handler): Promise<Listening> {
	return listen(createServer((incoming, outgoing) => void answer(handler, incoming, outgoing)));
}

export async function listen(server: Server): Promise<Listening> {
	server.listen(0, '127.0.0.1');
	await once(server, 'listening');
	const { port } = server.address() as AddressInfo;
	return {
		url: `http://127.0.0.1:${port}`,
		server,
		async close() {
			const closed = once(server, 'close');
			server.close();
			server.closeAllConnections();
			await closed;
		},
	};
}

async function answer(handler: Handler, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
	const gone = new AbortController();
	outgoing.on('close', () => {
		if (!outgoing.writableFinished) gone.abort(new Error('the client has gone'));
	});
	outgoing.on('error', () => {}); // 'close' follows, and says all there is to say
	try {
		const response = await handler(toRequest(incoming, gone.signal));
		await write(response ?? new Response('Not found', { status: 404 }), outgoing, gone.signal);
	} catch (error) {
		if (gone.signal.aborted) return;
		if (outgoing.headersSent) outgoing.destroy();
		else outgoing.writeHead(500, { 'content-type': 'text/plain' }).end(String(error));
	}
}

function toRequest(incoming: IncomingMessage, signal: AbortSignal): Request {
	const headers = new Headers();
	for (let i = 0; i < incoming.rawHeaders.length; i += 2) {
		headers.append(incoming.rawHeaders[i]!, incoming.rawHeaders[i + 1]!);
	}
	const url = `http://${incoming.headers.host ?? '127.0.0.1'}${incoming.url ?? '/'}`;
	const method = incoming.method ?? 'GET';
	if (method === 'GET' || method === 'HEAD') return new Request(url, { method, headers, signal });
	const body = Readable.toWeb(incoming) as ReadableStream<Uint8Array>;
	return new Request(url, { method, headers, signal, body, duplex: 'half' });
}

async function write(response: Response, outgoing: ServerResponse, gone: AbortSignal): Promise<void> {
	outgoing.writeHead(response.status, [...response.headers].flat());
	if (!response.body) return void outgoing.end();
	outgoing.flushHeaders();
	const reader = response.body.getReader();
	const cancel = () => void reader.cancel(gone.reason).catch(() => {});
	if (gone.aborted) return cancel();
	gone.addEventListener('abort', cancel, { once: true });
	try {
		for (;;) {
			const { done, value } = await reader.read();
			if (gone.aborted) return;
			if (done) return void outgoing.end();
			if (!outgoing.write(value)) await drained(outgoing, gone);
		}
	} finally {
		gone.removeEventListener('abort', cancel);
	}
}

function drained(outgoing: ServerResponse, gone: AbortSignal): Promise<void> {
	return new Promise((resolve) => {
		const done = () => {
			outgoing.off('drain', done);
			gone.removeEventListener('abort', done);
			resolve();
		};
		outgoing.once('drain', done);
		gone.addEventListener('abort', done, { once: true });
	});
}
