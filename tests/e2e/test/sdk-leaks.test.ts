// Ten thousand sessions of servers on an official SDK come and go: nothing of them is left, in no process and in no
// backend.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { stored } from '../src/backend.ts';
import { apart, startCluster, type Cluster } from '../src/cluster.ts';
import { openStream } from '../src/raw.ts';
import type { Usage } from '../src/sdk-node.ts';
import { DEADLINE_MS, within } from '../src/wait.ts';

const SESSIONS = 10_000;
/** Sessions that make the processes what they are after some use: compiled, with pools and caches. */
const WARM = 1_000;
const AT_ONCE = 32;
const MOST_BYTES_A_SESSION = 400;
const TOMBSTONE_MS = 1_000;

const PARAMS = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'many', version: '1.0.0' } };
const HEADERS = { accept: 'application/json, text/event-stream', 'content-type': 'application/json', authorization: 'Bearer ada' };

test('10,000 sessions leave nothing', { timeout: 300_000 }, async () => {
	await using cluster = await startCluster({ kind: 'sdk1', engine: { registry: { tombstoneMs: TOMBSTONE_MS, sweepMs: 500 } } });
	const empty = await stored(cluster.backend);
	await comeAndGo(cluster, WARM, 0);
	const before = await Promise.all(cluster.nodes.map((node) => rested(node)));
	const storedBefore = await settled(cluster, empty);

	await comeAndGo(cluster, SESSIONS, SESSIONS);
	const after = await Promise.all(cluster.nodes.map((node, i) => rested(node, before[i])));
	for (const [i, { heapBytes, handles }] of after.entries()) {
		const grown = heapBytes - before[i]!.heapBytes;
		assert.ok(grown < SESSIONS * MOST_BYTES_A_SESSION, `replica ${i} grew by ${grown} bytes`);
		// In one process with its clients there are the handles of those, too.
		if (apart) assert.deepEqual(more(handles, before[i]!.handles), []);
	}
	assert.equal(await settled(cluster, storedBefore), storedBefore);
});

/** Sessions are opened on both replicas, used, partly streamed, and closed in each of the ways. */
async function comeAndGo({ a, b }: Cluster, count: number, expected: number): Promise<void> {
	const urls = [a.url, b.url];
	const sessions: string[] = [];
	await inTurn(count, async (i) => {
		const answer = await post(urls[i % 2]!, { id: 0, method: 'initialize', params: PARAMS });
		assert.equal(answer.status, 200);
		sessions[i] = answer.headers.get('mcp-session-id')!;
	});
	if (expected > 0) {
		const stats = await a.control({ do: 'stats' });
		assert.equal(stats.totalSessions, expected);
		assert.equal(stats.localSessions, expected / 2);
	}
	// Some are at home on both, and some have a stream.
	await inTurn(count / 10, async (i) => {
		const call = { id: 1, method: 'tools/call', params: { name: 'whoami', arguments: {} } };
		assert.equal((await post(urls[(i + 1) % 2]!, call, sessions[i])).status, 200);
	});
	const streams = await Promise.all(
		sessions.slice(-100).map((session) => openStream(a.url, { session, token: 'ada' })),
	);
	assert.ok(streams.every((stream) => stream.status === 200));
	// A quarter by DELETE, wherever; the others by their owner, from one replica.
	await inTurn(count / 4, async (i) => {
		const response = await fetch(`${urls[i % 2]}/mcp`, { method: 'DELETE', headers: { ...HEADERS, 'mcp-session-id': sessions[i]! } });
		assert.equal(response.status, 200);
	});
	assert.equal(await b.control({ do: 'closeOwner', owner: 'ada' }), count - count / 4);
	await Promise.all(streams.map((stream) => within(stream.ended, 'the end of a stream')));
}

async function post(url: string, message: object, session?: string): Promise<Response> {
	const headers = session === undefined ? HEADERS : { ...HEADERS, 'mcp-session-id': session };
	const response = await fetch(`${url}/mcp`, { method: 'POST', headers, body: JSON.stringify({ jsonrpc: '2.0', ...message }) });
	await response.text();
	return response;
}

/** What a replica holds once everything has ended, and it holds no more than `before`, or it is too late for that. */
async function rested(node: Cluster['a'], before?: Usage): Promise<Usage> {
	const deadline = Date.now() + DEADLINE_MS;
	for (;;) {
		const usage: Usage = await node.control({ do: 'usage' });
		const ended = usage.sessions === 0 && usage.streams === 0;
		const fine = !apart || before === undefined || more(usage.handles, before.handles).length === 0;
		if (ended && (fine || Date.now() > deadline)) return usage;
		await sleep(50);
	}
}

/** The handles that were not there before. */
function more(handles: string[], before: string[]): string[] {
	const left = [...before];
	return handles.filter((handle) => {
		const at = left.indexOf(handle);
		if (at >= 0) left.splice(at, 1);
		return at < 0;
	});
}

/** Keys or rows once tombstones are gone: `expected`, or what there is when it is too late. */
async function settled({ backend }: Cluster, expected: number | undefined): Promise<number | undefined> {
	const deadline = Date.now() + DEADLINE_MS;
	for (;;) {
		const now = await stored(backend);
		if (now === expected || Date.now() > deadline) return now;
		await sleep(200);
	}
}

/** Does `work` for each number below `count`, some at a time. */
async function inTurn(count: number, work: (i: number) => Promise<unknown>): Promise<void> {
	let next = 0;
	const worker = async () => {
		while (next < count) await work(next++);
	};
	await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
