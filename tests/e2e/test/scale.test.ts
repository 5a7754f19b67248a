// A thousand sessions on two nodes: every tenth is a real client, the others speak HTTP themselves, which is all
// that a server sees of them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { legacy } from '../src/clients.ts';
import { inWorkers, startCluster } from '../src/cluster.ts';
import { del, initialize, openStream } from '../src/raw.ts';
import { soon } from '../src/wait.ts';

const SESSIONS = 1_000;

interface Peer {
	readonly session: string;
	/** What it has received, in order, once `last` is there. */
	until(last: string): Promise<string[]>;
	end(): Promise<unknown>;
}

test('1,000 sessions on two nodes', async () => {
	await using cluster = await startCluster();
	const { front } = cluster;
	const peers: Peer[] = new Array(SESSIONS);
	await inTurn(SESSIONS, async (i) => void (peers[i] = await (i % 10 ? raw(front.url) : real(front.url))));
	await front.changed.until(() => front.streams() === SESSIONS, () => `${SESSIONS} streams, got ${front.streams()}`);
	assert.equal(new Set(peers.map((it) => it.session)).size, SESSIONS);

	// to all from both nodes; to each one, from one node and from the other
	await cluster.a.control({ do: 'send', data: ['to all from A'] });
	await cluster.b.control({ do: 'send', data: ['to all from B'] });
	const each = peers.map(({ session }, i) => ({ to: [session], data: `to ${i}` }));
	await cluster.a.control({ do: 'sendEach', list: each.filter((_, i) => i % 3) });
	await cluster.b.control({ do: 'sendEach', list: each.filter((_, i) => !(i % 3)) });
	// to every other one
	await cluster.a.control({ do: 'send', to: peers.filter((_, i) => i % 2).map((it) => it.session), data: ['to half'] });
	await cluster.b.control({ do: 'send', data: ['last'] });
	const half = (i: number) => (i % 2 ? ['to half'] : []);
	for (const [i, peer] of peers.entries()) {
		assert.deepEqual(await peer.until('last'), ['to all from A', 'to all from B', `to ${i}`, ...half(i), 'last']);
	}

	await inTurn(SESSIONS, (i) => peers[i]!.end());
	await front.changed.until(() => front.streams() === 0, () => `the end of every stream; ${front.streams()} are left`);
	assert.ok(front.passed.every((it) => it.status === 200 || it.status === 202));
	for (const node of cluster.nodes) {
		const held = () => node.control({ do: 'has', session: peers[0]!.session });
		// An object hears a moment later of a client that went without a word.
		if (inWorkers) await soon('nobody holds the first one', async () => !(await held()));
		assert.equal(await held(), false);
	}
});

async function real(url: string): Promise<Peer> {
	const client = await legacy(url);
	return {
		session: client.session,
		async until(last) {
			await client.inbox.first((it) => it.params.data === last, `'${last}' at a real client`);
			return client.inbox.items.map((it) => it.params.data);
		},
		end: () => client.terminate(),
	};
}

async function raw(url: string): Promise<Peer> {
	const session = await initialize(url);
	const stream = await openStream(url, { session });
	return { session, until: (last) => stream.until(last), end: () => del(url, session) };
}

/** Does `work` for each number below `count`, fifty at a time. */
async function inTurn(count: number, work: (i: number) => Promise<unknown>): Promise<void> {
	let next = 0;
	const worker = async () => {
		while (next < count) await work(next++);
	};
	await Promise.all(Array.from({ length: 50 }, worker));
}
