// Who is let in: unknown, ended, doubled and hostile sessions; and what the plain change of import does.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { spawnNode, startCluster } from '../src/cluster.ts';
import { legacy } from '../src/clients.ts';
import { call, del, initialize, openStream, post } from '../src/raw.ts';

test('an unknown session gets 404, on every node', async () => {
	await using cluster = await startCluster({ resumable: { unknownSessions: 'reject' } });
	const session = 'nobody-knows-this-one';
	for (const { url } of cluster.nodes) {
		assert.equal((await openStream(url, { session })).status, 404);
		assert.equal((await call(url, session, 'whoami')).status, 404);
		assert.equal((await del(url, session)).status, 404);
	}
	// and one that a node knows is known to both
	const known = await initialize(cluster.a.url);
	for (const { url } of cluster.nodes) assert.equal((await call(url, known, 'whoami')).status, 200);
	const stream = await openStream(cluster.b.url, { session: known });
	assert.equal(stream.status, 200);
	stream.abort();
});

test('an ended session gets 404, on every node', async () => {
	await using cluster = await startCluster({ resumable: { unknownSessions: 'reject' } });
	const session = await initialize(cluster.a.url);
	const stream = await openStream(cluster.a.url, { session });
	await cluster.b.control({ do: 'send', to: [session], data: ['last'] });
	await stream.until('last');

	assert.equal((await del(cluster.b.url, session)).status, 200);
	await stream.ended;
	for (const { url } of cluster.nodes) {
		assert.equal((await openStream(url, { session })).status, 404);
		assert.equal((await openStream(url, { session, lastEventId: stream.lastEventId })).status, 404);
		assert.equal((await call(url, session, 'whoami')).status, 404);
		assert.equal((await del(url, session)).status, 404);
	}
});

test('a real client learns that its session is gone', async () => {
	await using cluster = await startCluster({ resumable: { unknownSessions: 'reject' } });
	await using client = await legacy(cluster.front.url);
	await cluster.front.opened(client.session);
	await del(cluster.b.url, client.session);
	await assert.rejects(client.call('whoami'), (error: any) => error.code === 404);
});

test('with conflict: reject a second GET gets 409 while the first lives', async () => {
	await using cluster = await startCluster({ resumable: { conflict: 'reject' } });
	const session = await initialize(cluster.a.url);
	const first = await openStream(cluster.a.url, { session });
	await cluster.a.control({ do: 'send', to: [session], data: ['one'] });
	await first.until('one');
	for (const { url } of cluster.nodes) assert.equal((await openStream(url, { session })).status, 409);
	await cluster.b.control({ do: 'send', to: [session], data: ['two'] });
	assert.deepEqual(await first.until('two'), ['one', 'two']);
	first.abort();
});

test('without resumable: the changed import alone', async () => {
	await using cluster = await startCluster({ resumable: false });
	const { front } = cluster;
	front.route = (request) => (request.method === 'GET' ? 1 : undefined);
	await using client = await legacy(front.url);
	await front.opened(client.session);
	const answers = new Set([await client.call('echo', { text: 'x' }), await client.call('echo', { text: 'x' })]);
	assert.deepEqual([...answers].sort(), ['A: x', 'B: x']);

	await client.client.subscribeResource({ uri: 'note://a' });
	await cluster.a.control({ do: 'changed', what: 'tools' });
	await cluster.a.control({ do: 'touch', uri: 'note://b' });
	await cluster.a.control({ do: 'touch', uri: 'note://a' });
	await client.inbox.atLeast(2, 'the list change and the update');
	assert.deepEqual(
		client.inbox.items.map((it) => it.params?.uri ?? it.method),
		['notifications/tools/list_changed', 'note://a'],
	);
	// as in tmcp: an open stream is a conflict, and a session that nobody has seen is welcome
	assert.equal((await openStream(cluster.a.url, { session: client.session })).status, 409);
	const stranger = await openStream(cluster.a.url, { session: 'stranger' });
	assert.equal(stranger.status, 200);
	stranger.abort();
	// DELETE on the node that does not hold the stream ends it where it is
	await del(cluster.a.url, client.session);
	await front.changed.until(() => front.streams(client.session) === 0, 'the end of the stream');
});

test('a malicious session id reaches nobody and breaks nothing', async () => {
	await using cluster = await startCluster();
	const victim = await initialize(cluster.a.url);
	const stream = await openStream(cluster.b.url, { session: victim });
	const hostile = [
		"'; drop table sessions; --",
		`${victim}'`,
		`${victim}:${victim}`,
		`${victim}*`,
		'*',
		`{${victim}}`,
		'../../etc/passwd',
		'a&b=c',
		'%00',
		'__proto__',
		'constructor',
		'id with spaces',
		'\u00e9t\u00e9',
		'x'.repeat(257),
		'x'.repeat(4096),
	];
	for (const session of hostile) {
		for (const { url } of cluster.nodes) {
			const got = await openStream(url, { session });
			const legal = /^[\x21-\x7e]{1,256}$/.test(session);
			assert.ok(legal ? [200, 404].includes(got.status) : got.status >= 400 && got.status < 500, `${session}: ${got.status}`);
			await call(url, session, 'whoami');
			// a message to it is nobody else's
			await cluster.a.control({ do: 'send', to: [session], data: ['for the intruder'] }).catch(() => {});
			await del(url, session);
			got.abort();
		}
	}
	await cluster.a.control({ do: 'send', to: [victim], data: ['for the victim'] });
	assert.deepEqual(await stream.until('for the victim'), ['for the victim']);
	stream.abort();
});

test('nobody reads another session by its event id', async () => {
	await using cluster = await startCluster();
	const victim = await initialize(cluster.a.url);
	const intruder = await initialize(cluster.a.url);
	const theirs = await openStream(cluster.a.url, { session: victim });
	await cluster.a.control({ do: 'send', to: [victim], data: ['secret 1'] });
	await theirs.until('secret 1');
	const lastEventId = theirs.lastEventId!;
	await cluster.a.control({ do: 'send', to: [victim], data: ['secret 2'] });

	for (const id of [lastEventId, lastEventId.slice(0, -1), `${lastEventId}x`, 'garbage', '0', 'x'.repeat(65)]) {
		const stream = await openStream(cluster.b.url, { session: intruder, lastEventId: id });
		if (stream.status === 200) {
			await cluster.a.control({ do: 'send', to: [intruder], data: ['yours'] });
			assert.ok((await stream.until('yours')).every((it) => it === 'yours'), id);
			stream.abort();
		} else {
			assert.equal(stream.status, 400, id);
		}
	}
	theirs.abort();
});

test('a rejection that nobody awaits does not end the process', async () => {
	const node = await spawnNode({ name: 'A', backend: 'memory://unawaited' });
	try {
		const session = await initialize(node.url);
		// tmcp does not await what it stores at initialize: too large, then no engine at all
		await initialize(node.url, { name: 'x'.repeat(100_000), version: '1.0.0' });
		await post(node.url, { id: 'big', method: 'resources/subscribe', params: { uri: `note://${'x'.repeat(10_000)}` } }, { session });
		assert.ok((await node.control({ do: 'errors' })).length >= 2, 'onError heard of both');

		await node.control({ do: 'closeEngine' });
		await post(node.url, { id: 1, method: 'logging/setLevel', params: { level: 'error' } }, { session });
		await post(node.url, { id: 2, method: 'resources/subscribe', params: { uri: 'note://a' } }, { session });
		await node.control({ do: 'changed', what: 'tools' });
		await node.control({ do: 'touch', uri: 'note://a' });
		// it still answers: the process is alive
		assert.ok((await node.control({ do: 'errors' })).length >= 4);
		assert.equal(node.child.exitCode, null);
		assert.doesNotMatch(node.stderr(), /unhandled/i);
	} finally {
		await node.kill();
	}
});
