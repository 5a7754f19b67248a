// What goes wrong with processes apart, and must not: each of these ends the process, or loses or doubles something,
// with the session managers that came before.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freePort } from '../../support/servers.mjs';
import { anotherServer, cutConnections, serverUrl } from '../src/backend.ts';
import { legacy } from '../src/clients.ts';
import { apart, inWorkers, spawnNode, startCluster, type Cluster } from '../src/cluster.ts';
import { call, del, initialize, openStream, post } from '../src/raw.ts';
import { soon, within } from '../src/wait.ts';

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

test('one replica with a stream of its own sends to it, and to all', async () => {
	await using cluster = await startCluster({ nodes: 1 });
	await using client = await legacy(cluster.front.url);
	await cluster.front.opened(client.session);
	await cluster.a.control({ do: 'send', to: [client.session], data: ['to you'] });
	await cluster.a.control({ do: 'send', data: ['to all'] });
	await client.call('announce', { what: 'tools' });
	await client.inbox.atLeast(3, 'all three');
	assert.deepEqual(client.inbox.items.map((it) => it.params?.data ?? it.method), ['to you', 'to all', 'notifications/tools/list_changed']);
	await healthy(cluster);
});

test('right after the stream opens, nothing is missed', async () => {
	await using cluster = await startCluster();
	const session = await initialize(cluster.a.url);
	const stream = await openStream(cluster.a.url, { session });
	await cluster.b.control({ do: 'send', to: [session], data: numbers(500) });
	assert.deepEqual(await stream.until(499), numbers(500));
	stream.abort();
});

test('many sends at once leave together, and arrive in order', async () => {
	await using cluster = await startCluster();
	const sessions = [await initialize(cluster.a.url), await initialize(cluster.b.url)];
	const streams = [await openStream(cluster.a.url, { session: sessions[0] }), await openStream(cluster.b.url, { session: sessions[1] })];
	const list = numbers(200).flatMap((data) => sessions.map((session) => ({ to: [session], data })));
	await cluster.a.control({ do: 'sendEach', list });
	for (const stream of streams) {
		assert.deepEqual(await stream.until(199), numbers(200));
		stream.abort();
	}
});

test('a reader that goes away without a word ends nothing: the next sends find the others', async () => {
	await using cluster = await startCluster();
	const goes = await initialize(cluster.a.url);
	const stays = await initialize(cluster.a.url);
	const gone = await openStream(cluster.a.url, { session: goes });
	const stream = await openStream(cluster.a.url, { session: stays });
	gone.abort();
	for (const data of numbers(50)) {
		await cluster.b.control({ do: 'send', to: [goes, stays], data: [data] });
		await cluster.a.control({ do: 'send', data: [`all ${data}`] });
	}
	await stream.until('all 49');
	assert.equal(stream.messages.length, 100);
	stream.abort();
	await healthy(cluster);
});

test('DELETE ends the stream, and a GET right after it is never a conflict', async () => {
	await using cluster = await startCluster();
	for (const round of numbers(10)) {
		const session = await initialize(cluster.a.url);
		const holder = cluster.nodes[round % 2]!.url;
		const stream = await openStream(holder, { session });
		assert.equal((await del(round % 3 ? cluster.a.url : cluster.b.url, session)).status, 200);
		await within(stream.ended, 'the end of the stream');
		const again = await openStream(holder, { session });
		assert.equal(again.status, 200);
		await cluster.b.control({ do: 'send', to: [session], data: ['again'] });
		assert.deepEqual(await again.until('again'), ['again']);
		again.abort();
	}
});

test('many processes start at once on an empty backend', async () => {
	await using cluster = await startCluster({ nodes: apart ? 5 : 8 });
	const session = await initialize(cluster.a.url);
	const answers = await Promise.all(cluster.nodes.map((node) => call(node.url, session, 'whoami')));
	assert.deepEqual(answers.map((it) => it.status), answers.map(() => 200));
	const stream = await openStream(cluster.b.url, { session });
	for (const node of cluster.nodes) await node.control({ do: 'send', to: [session], data: [node.name] });
	await stream.until(cluster.nodes.at(-1)!.name);
	assert.deepEqual(stream.messages, cluster.nodes.map((it) => it.name));
	stream.abort();
});

test('the holder is killed: has turns false by itself, and the session goes on elsewhere', { skip: inWorkers && 'one Worker of a workerd cannot be killed' }, async () => {
	await using cluster = await startCluster();
	const session = await initialize(cluster.a.url);
	const stream = await openStream(cluster.a.url, { session });
	await cluster.b.control({ do: 'send', to: [session], data: [1] });
	await stream.until(1);
	assert.equal(await cluster.b.control({ do: 'has', session }), true);
	cluster.front.drop(0);
	await cluster.a.kill();
	await within(stream.ended, 'the end of the stream');
	await cluster.b.control({ do: 'send', to: [session], data: [2] });
	const resumed = await openStream(cluster.b.url, { session, lastEventId: stream.lastEventId });
	assert.equal(resumed.status, 200);
	await cluster.b.control({ do: 'send', to: [session], data: [3] });
	assert.deepEqual(await resumed.until(3), [2, 3]);
	resumed.abort();
	await soon('nobody holds it', async () => !(await cluster.b.control({ do: 'has', session })));
});

test('without resumable, a killed holder is forgotten within its lease', { skip: inWorkers && 'one Worker of a workerd cannot be killed' }, async () => {
	await using cluster = await startCluster({ resumable: false });
	const session = await initialize(cluster.a.url);
	await openStream(cluster.a.url, { session });
	// Its headers come before it is claimed.
	await soon('it is held', () => cluster.b.control({ do: 'has', session }));
	await cluster.a.kill();
	await soon('nobody holds it', async () => !(await cluster.b.control({ do: 'has', session })));
	const stream = await openStream(cluster.b.url, { session });
	assert.equal(stream.status, 200);
	await cluster.b.control({ do: 'send', to: [session], data: ['here'] });
	await stream.until('here');
	stream.abort();
});

if (apart) {
	test('the server is down at construction: the process lives, says so, and recovers by itself', async () => {
		const port = await freePort();
		const backend = serverUrl!.replace(/:\d+(?=\/|$|\?)/, `:${port}`);
		const node = await spawnNode({ name: 'A', backend });
		try {
			const params = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'early', version: '1' } };
			assert.equal((await post(node.url, { id: 1, method: 'initialize', params })).status, 503);
			await node.control({ do: 'send', data: ['to nobody'] });
			assert.match((await node.control({ do: 'errors' })).join(), /UnavailableError/);
			const server = await anotherServer({ port });
			try {
				await soon('it can be reached', async () => (await post(node.url, { id: 1, method: 'initialize', params })).status === 200);
				const session = await initialize(node.url);
				const stream = await openStream(node.url, { session });
				await node.control({ do: 'send', to: [session], data: ['hello'] });
				assert.deepEqual(await stream.until('hello'), ['hello']);
				stream.abort();
				await node.stop();
			} finally {
				await server.stop();
			}
			assert.doesNotMatch(node.stderr(), /unhandled/i);
		} finally {
			await node.kill();
		}
	});

	test('every connection to the server is cut, again and again: nothing is lost or doubled', async () => {
		const server = await anotherServer();
		const nodes = [];
		try {
			for (const name of ['A', 'B']) nodes.push(await spawnNode({ name, backend: server.url }));
			const [a, b] = nodes as [(typeof nodes)[number], (typeof nodes)[number]];
			const session = await initialize(a.url);
			const stream = await openStream(a.url, { session });
			for (const round of numbers(5)) {
				await cutConnections(server.url);
				// Refused while the connections come back, by one of them or the other: sent again until accepted.
				await soon('both nodes are back', async () => {
					const has = [a, b].map((node) => node.control({ do: 'has', session }).catch(() => undefined));
					return (await Promise.all(has)).every((it) => it === true);
				});
				await b.control({ do: 'send', to: [session], data: [round] });
				await a.control({ do: 'send', data: [`all ${round}`] });
				await stream.until(`all ${round}`);
			}
			assert.deepEqual(stream.messages, numbers(5).flatMap((round) => [round, `all ${round}`]));
			stream.abort();
			for (const node of nodes) {
				assert.equal(node.child.exitCode, null);
				await node.stop();
			}
		} finally {
			for (const node of nodes) await node.kill();
			await server.stop();
		}
	});

	test('the server is killed and comes back: the processes live, and sessions go on', async () => {
		const server = await anotherServer();
		const nodes = [];
		try {
			for (const name of ['A', 'B']) nodes.push(await spawnNode({ name, backend: server.url, engine: { operationTimeoutMs: 2_000 } }));
			const [a, b] = nodes as [(typeof nodes)[number], (typeof nodes)[number]];
			const session = await initialize(a.url);
			await openStream(a.url, { session });
			await server.kill();
			// tmcp awaits none of these
			await post(a.url, { id: 1, method: 'logging/setLevel', params: { level: 'error' } }, { session });
			await b.control({ do: 'changed', what: 'tools' });
			await a.control({ do: 'touch', uri: 'note://a' });
			await server.restart();
			for (const node of nodes) {
				// A connection that reads may be back before one that writes: a stream that opens needs both.
				await soon('the node is back', async () => {
					const session = await initialize(node.url).catch(() => undefined);
					if (session === undefined) return false;
					const probe = await openStream(node.url, { session });
					probe.abort();
					return probe.status === 200;
				});
			}
			const fresh = await initialize(a.url);
			const stream = await openStream(b.url, { session: fresh });
			await a.control({ do: 'send', to: [fresh], data: ['hello'] });
			assert.deepEqual(await stream.until('hello'), ['hello']);
			stream.abort();
			for (const node of nodes) {
				assert.equal(node.child.exitCode, null);
				assert.doesNotMatch(node.stderr(), /unhandled/i);
				await node.stop();
			}
		} finally {
			for (const node of nodes) await node.kill();
			await server.stop();
		}
	});
}

/** All nodes answer, and told of no failure. */
async function healthy(cluster: Cluster): Promise<void> {
	for (const node of cluster.nodes) assert.deepEqual(await node.control({ do: 'errors' }), []);
}
