// Connections break; clients come back, elsewhere, and get exactly what they missed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { legacy, type Legacy } from '../src/clients.ts';
import { inWorkers, startCluster, type Cluster } from '../src/cluster.ts';
import { initialize, openStream } from '../src/raw.ts';
import { within } from '../src/wait.ts';

const A = 0;
const B = 1;

test('a client that drops and resumes on the other node gets exactly what it missed', async () => {
	await using cluster = await startCluster();
	await using client = await streaming(cluster, A);
	const { front } = cluster;
	await cluster.a.control({ do: 'send', to: [client.session], data: [1, 2] });
	await cluster.b.control({ do: 'send', data: [3] });
	await client.inbox.atLeast(3, 'the events before the cut');

	const restore = front.hold();
	assert.equal(front.cut(client.session), 1);
	// missed: its own and everybody's, from both nodes
	await cluster.a.control({ do: 'send', to: [client.session], data: [4] });
	await cluster.b.control({ do: 'send', data: [5] });
	await cluster.b.control({ do: 'send', to: [client.session], data: [6] });
	front.route = () => B;
	restore();
	await client.inbox.atLeast(6, 'what was missed');
	await cluster.a.control({ do: 'send', to: [client.session], data: [7] });
	await client.inbox.atLeast(7, 'what comes live after it');
	assert.deepEqual(seen(client), [1, 2, 3, 4, 5, 6, 7]);

	const gets = front.passed.filter((it) => it.method === 'GET');
	assert.deepEqual(gets.map((it) => [it.node, it.status]), [[A, 200], [B, 200]]);
	assert.ok(gets[1]!.lastEventId, 'it named the last event that it had');
	assert.deepEqual(await cluster.b.control({ do: 'gaps' }), []);
});

test('a client that drops again and again, now on one node, now on the other', async () => {
	await using cluster = await startCluster();
	await using client = await streaming(cluster, A);
	const { front } = cluster;
	front.route = (request) => (request.method === 'GET' ? undefined : A);
	let sent = 0;
	for (let round = 0; round < 8; round++) {
		// odd rounds see nothing live: the cursor must survive a stream without events
		if (round % 2 === 0) {
			await cluster.a.control({ do: 'send', to: [client.session], data: [++sent] });
			await client.inbox.atLeast(sent, 'a live event');
		}
		const restore = front.hold();
		assert.equal(front.cut(client.session), 1);
		await cluster.b.control({ do: 'send', data: [++sent] });
		await cluster.a.control({ do: 'send', to: [client.session], data: [++sent] });
		restore();
		await client.inbox.atLeast(sent, 'what was missed');
		await front.opened(client.session);
	}
	assert.deepEqual(seen(client), Array.from({ length: sent }, (_, i) => i + 1));
	const gets = front.passed.filter((it) => it.method === 'GET');
	assert.equal(gets.length, 9);
	assert.ok(gets.every((it) => it.status === 200));
	assert.ok(gets.some((it) => it.node === A) && gets.some((it) => it.node === B));
});

test('a line that dies silently takes nothing with it', async () => {
	await using cluster = await startCluster();
	await using client = await streaming(cluster, A);
	const { front } = cluster;
	front.route = (request) => (request.method === 'GET' ? undefined : A);
	let gets = 1;
	const reconnected = () => front.changed.until(() => front.opens(client.session) === gets, `GET number ${gets} of the client`);
	for (let sent = 1; sent <= 6; sent++) {
		// The client has seen no event on this stream when its line dies; the node writes into it all the same.
		const restore = front.hold();
		assert.equal(front.cut(client.session, { silently: true }), 1);
		await cluster.nodes[sent % 2]!.control({ do: 'send', to: [client.session], data: [sent] });
		assert.equal(await cluster.b.control({ do: 'has', session: client.session }), true);
		gets++;
		restore();
		await reconnected();
		await client.inbox.atLeast(sent, 'what was sent into the dead stream');
		// and the next one brings nothing at all
		assert.equal(front.cut(client.session, { silently: true }), 1);
		gets++;
		await reconnected();
	}
	assert.deepEqual(seen(client), [1, 2, 3, 4, 5, 6]);
});

test('a node dies: its clients go on with the other one', { skip: inWorkers && 'one Worker of a workerd cannot be killed' }, async () => {
	await using cluster = await startCluster();
	await using client = await streaming(cluster, A);
	await cluster.a.control({ do: 'send', to: [client.session], data: [1] });
	await client.inbox.atLeast(1, 'the event before the death');

	const restore = cluster.front.hold();
	cluster.front.drop(A);
	await cluster.a.kill();
	await cluster.b.control({ do: 'send', to: [client.session], data: [2] });
	await cluster.b.control({ do: 'send', data: [3] });
	restore();
	await client.inbox.atLeast(3, 'what was missed');
	assert.deepEqual(seen(client), [1, 2, 3]);
	assert.equal(await client.call('echo', { text: 'still here' }), 'B: still here');
});

test('an abort without DELETE, and a GET at once: never 409', async () => {
	await using cluster = await startCluster();
	const session = await initialize(cluster.a.url);
	let stream = await openStream(cluster.a.url, { session });
	for (let i = 1; i <= 20; i++) {
		await cluster.a.control({ do: 'send', to: [session], data: [i] });
		assert.deepEqual(await stream.until(i), [i]);
		const lastEventId = stream.lastEventId;
		stream.abort(); // and no wait: the node may not have noticed
		stream = await openStream(i % 2 ? cluster.b.url : cluster.a.url, { session, lastEventId });
		assert.equal(stream.status, 200);
	}
	stream.abort();
});

test('a dead connection that nobody noticed is replaced', async () => {
	await using cluster = await startCluster();
	const session = await initialize(cluster.a.url);
	const first = await openStream(cluster.a.url, { session });
	await cluster.a.control({ do: 'send', to: [session], data: ['one'] });
	await first.until('one');

	// the first connection is still open: as after a change of network
	const second = await openStream(cluster.b.url, { session, lastEventId: first.lastEventId });
	assert.equal(second.status, 200);
	await within(first.ended, 'the end of the replaced stream');
	await cluster.a.control({ do: 'send', to: [session], data: ['two'] });
	assert.deepEqual(await second.until('two'), ['two']);
	assert.deepEqual(first.messages, ['one']);
	second.abort();
});

test('what can no longer be replayed is reported', async () => {
	await using cluster = await startCluster({
		engine: { retention: { events: 2 }, broadcastRetention: { events: 2 } },
	});
	const session = await initialize(cluster.a.url);
	const first = await openStream(cluster.a.url, { session });
	await cluster.a.control({ do: 'send', to: [session], data: [1] });
	await first.until(1);
	first.abort();
	await cluster.a.control({ do: 'send', to: [session], data: [2, 3, 4, 5] });

	const second = await openStream(cluster.b.url, { session, lastEventId: first.lastEventId });
	assert.equal(second.status, 200);
	assert.deepEqual(await second.until(5), [4, 5]);
	assert.equal(second.headers['mcp-sessions-gap'], 'true');
	assert.ok(second.frames.items.some((it) => it.comment?.startsWith('gap')), 'a comment says so, too');
	assert.deepEqual(await cluster.b.control({ do: 'gaps' }), [session]);
	second.abort();
});

test('a client is told when to come back', async () => {
	await using cluster = await startCluster({ resumable: { retryMs: 1234 } });
	const stream = await openStream(cluster.a.url, { session: await initialize(cluster.a.url) });
	assert.equal((await stream.frames.first((it) => it.retry !== undefined, 'the retry field')).retry, 1234);
	stream.abort();
});

test('a client that does not read ends alone, and resumes', async () => {
	await using cluster = await startCluster({
		engine: { queue: { events: 64 }, retention: { events: 4096, bytes: 256 << 20 } },
	});
	const slow = await initialize(cluster.a.url);
	const quick = await initialize(cluster.a.url);
	const slowStream = await openStream(cluster.a.url, { session: slow });
	const quickStream = await openStream(cluster.a.url, { session: quick });
	await cluster.b.control({ do: 'send', to: [slow], data: ['first'] });
	await slowStream.until('first');
	slowStream.pause();

	// more than its socket, both ends' buffers and its queue can hold
	const filler = 'x'.repeat(256 << 10);
	const blocks = Array.from({ length: 100 }, (_, i) => ({ i, filler }));
	for (const block of blocks) await cluster.b.control({ do: 'send', to: [slow, quick], data: [block] });
	await quickStream.frames.changed.until(() => quickStream.messages.at(-1)?.i === 99, 'all of it at the quick client');
	assert.deepEqual(quickStream.messages.map((it) => it.i), blocks.map((it) => it.i));

	slowStream.resume();
	await within(slowStream.ended, 'the end of the slow stream');
	const read = slowStream.messages.length - 1; // without 'first'
	assert.ok(read < 100, `it was cut off, after ${read}`);
	const again = await openStream(cluster.b.url, { session: slow, lastEventId: slowStream.lastEventId });
	await again.frames.changed.until(() => again.messages.at(-1)?.i === 99, 'the rest after the overflow');
	assert.deepEqual([...slowStream.messages.slice(1), ...again.messages].map((it) => it.i), blocks.map((it) => it.i));
	again.abort();
	quickStream.abort();
});

/** A client whose GET stream is open on the given node. */
async function streaming(cluster: Cluster, node: number): Promise<Legacy> {
	cluster.front.route = () => node;
	const client = await legacy(cluster.front.url);
	await cluster.front.opened(client.session);
	return client;
}

const seen = (client: Legacy) => client.inbox.items.map((it) => it.params.data);
