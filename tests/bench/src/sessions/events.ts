// The event store that the SDKs' transports get, beside the SDK's own example, which keeps events in one process.
import { InMemoryEventStore } from '@modelcontextprotocol/sdk/examples/shared/inMemoryEventStore.js';
import type { Engine } from 'mcp-sessions';
import { eventStore } from 'mcp-sessions/sdk';
import { version } from '../peer.ts';
import { row, type Row } from './row.ts';

const APPENDS = 50_000;
const SESSIONS = 64;
const REPLAYS = 2_000;
/** What a client missed, out of what is kept. */
const MISSED = 100;
const KEPT = 256;
const LIMIT_MS = 5_000;
const STREAM = '_GET_stream';

/** What both kinds of stores do. */
interface Store {
	storeEvent(streamId: string, message: any): Promise<string>;
	replayEventsAfter(id: string, to: { send: (id: string, message: any) => Promise<void> }): Promise<string>;
}

const message = (n: number) => ({ jsonrpc: '2.0' as const, method: 'notifications/message', params: { level: 'info', data: `${n} ${'x'.repeat(440)}` } });

export async function eventRows(engine: Engine, add: (row: Row) => void): Promise<void> {
	const peerName = `InMemoryEventStore of @modelcontextprotocol/sdk ${version('@modelcontextprotocol/sdk')}`;
	const ours = () => eventStore(engine).eventStore as Store;
	// Theirs keeps all events for ever: one a session, as one transport has it.
	const theirs = () => new InMemoryEventStore() as unknown as Store;
	for (const [name, work] of [
		['append an event of 512 bytes, 64 sessions', appends],
		[`replay ${MISSED} missed events of ${KEPT}`, replays],
	] as const) {
		const peer = await work(name, theirs);
		const one = await work(name, ours);
		add({ ...one, peer: peer.value, peerName });
	}
}

async function appends(name: string, make: () => Store): Promise<Row> {
	const stores = Array.from({ length: SESSIONS }, make);
	return row(name, APPENDS, (n) => stores[n % SESSIONS]!.storeEvent(STREAM, message(n)), LIMIT_MS);
}

async function replays(name: string, make: () => Store): Promise<Row> {
	const store = make();
	let after = '';
	for (let n = 0; n < KEPT; n++) {
		const id = await store.storeEvent('stream', message(n));
		if (n === KEPT - MISSED - 1) after = id;
	}
	return row(
		name,
		REPLAYS,
		async () => {
			let sent = 0;
			await store.replayEventsAfter(after, { send: async () => void sent++ });
			// The example sorts ids that were made in one millisecond by chance: what it replays is not counted.
			if (sent !== MISSED && !(store instanceof InMemoryEventStore)) throw new Error(`${sent} of ${MISSED} events were replayed`);
		},
		LIMIT_MS,
	);
}
