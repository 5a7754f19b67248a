// Sessions (2025-06-18 and before) on two nodes: what one node learns the other knows, what one announces the
// other's clients hear.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { legacy } from '../src/clients.ts';
import { startCluster } from '../src/cluster.ts';
import type { Passed } from '../src/front.ts';
import { soon } from '../src/wait.ts';

const A = 0;
const B = 1;

/** initialize on A, the GET stream on B, everything else in turn. */
const apart = (request: Omit<Passed, 'node' | 'status'>) =>
	request.method === 'GET' ? B : request.session === undefined ? A : undefined;

test('initialize on one node, GET on the other, tool calls on both', async () => {
	await using cluster = await startCluster();
	cluster.front.route = apart;
	await using client = await legacy(cluster.front.url, 'wanderer');
	await cluster.front.opened(client.session);

	const answers = new Set<string>();
	for (let i = 0; i < 4; i++) answers.add(await client.call('echo', { text: 'hi' }));
	assert.deepEqual([...answers].sort(), ['A: hi', 'B: hi']);

	// what the client said to A at initialize, B knows
	cluster.front.route = () => B;
	const known = JSON.parse(await client.call('whoami'));
	assert.equal(known.node, 'B');
	assert.equal(known.session, client.session);
	assert.equal(known.clientInfo.name, 'wanderer');
	assert.deepEqual(known.clientCapabilities, { roots: { listChanged: true } });

	const get = cluster.front.passed.find((it) => it.method === 'GET');
	assert.deepEqual([get?.node, get?.status], [B, 200]);
	const first = cluster.front.passed.find((it) => it.method === 'POST');
	assert.deepEqual([first?.node, first?.status], [A, 200]);
	assert.deepEqual(client.errors, []);
});

test('a changed list is heard by the clients of both nodes, once', async () => {
	await using cluster = await startCluster();
	await using onA = await legacyOn(cluster.front, A);
	await using onB = await legacyOn(cluster.front, B);
	const all = ['tools', 'prompts', 'resources'] as const;
	const heard = all.map((what) => `notifications/${what}/list_changed`);

	for (const what of all) await cluster.a.control({ do: 'changed', what });
	for (const client of [onA, onB]) {
		await client.inbox.atLeast(3, 'three list changes from A');
		assert.deepEqual(client.inbox.drain().map((it) => it.method), heard);
	}
	// and in the other direction, from within a tool call
	cluster.front.route = () => B;
	for (const what of all) await onA.call('announce', { what });
	for (const client of [onA, onB]) {
		await client.inbox.atLeast(3, 'three list changes from B');
		assert.deepEqual(client.inbox.drain().map((it) => it.method), heard);
	}
});

test('resource updates reach subscribers only', async () => {
	await using cluster = await startCluster();
	await using one = await legacyOn(cluster.front, A);
	await using two = await legacyOn(cluster.front, B);
	cluster.front.route = () => A;
	await one.client.subscribeResource({ uri: 'note://a' });
	await two.client.subscribeResource({ uri: 'note://b' });
	cluster.front.route = () => B;
	await one.client.subscribeResource({ uri: 'note://c' });
	await two.client.subscribeResource({ uri: 'note://c' });

	await cluster.b.control({ do: 'touch', uri: 'note://a' });
	await cluster.b.control({ do: 'touch', uri: 'note://b' });
	await cluster.b.control({ do: 'touch', uri: 'note://c' });
	for (const client of [one, two]) await client.inbox.atLeast(2, 'both updates');
	await cluster.b.control({ do: 'changed', what: 'tools' });
	assert.deepEqual(await updates(one), ['note://a', 'note://c']);
	assert.deepEqual(await updates(two), ['note://b', 'note://c']);

	// no longer subscribed, said to the other node than the one that took the subscription
	cluster.front.route = () => B;
	await one.client.unsubscribeResource({ uri: 'note://a' });
	await cluster.a.control({ do: 'touch', uri: 'note://a' });
	await cluster.a.control({ do: 'touch', uri: 'note://c' });
	for (const client of [one, two]) await client.inbox.atLeast(1, 'the update');
	await cluster.a.control({ do: 'changed', what: 'tools' });
	assert.deepEqual(await updates(one), ['note://c']);
	assert.deepEqual(await updates(two), ['note://c']);
});

test('a log level set on one node holds on the other', async () => {
	await using cluster = await startCluster();
	await using client = await legacyOn(cluster.front, A);
	const levels = ['debug', 'info', 'warning', 'error', 'alert'];

	cluster.front.route = () => B;
	await client.call('log', { levels });
	assert.deepEqual(client.inbox.drain().map((it) => it.params.level), ['info', 'warning', 'error', 'alert']);

	cluster.front.route = () => A;
	await client.client.setLoggingLevel('error');
	cluster.front.route = () => B;
	// B has read it before, and is told of the change.
	await soon('B knows', async () => JSON.parse(await client.call('whoami')).logLevel === 'error');
	await client.call('log', { levels });
	assert.deepEqual(
		client.inbox.drain().map((it) => it.params.data),
		['error on B', 'alert on B'],
	);
});

test('of two clients one disconnects: the other hears everything', async () => {
	await using cluster = await startCluster();
	await using stays = await legacyOn(cluster.front, B);
	const drops = await legacyOn(cluster.front, B);
	const ends = await legacyOn(cluster.front, B);
	cluster.front.route = () => A;

	await cluster.a.control({ do: 'send', data: ['all here'] });
	for (const client of [stays, drops, ends]) await client.inbox.atLeast(1, 'the message to all');

	await drops.client.close();
	await cluster.a.control({ do: 'send', data: ['one dropped'] });
	await ends.terminate();
	await cluster.a.control({ do: 'send', data: ['one ended'] });
	await cluster.a.control({ do: 'send', to: [drops.session, stays.session, ends.session], data: ['to a list'] });
	await cluster.a.control({ do: 'send', to: [stays.session], data: ['to you'] });

	await stays.inbox.atLeast(5, 'all that was sent');
	assert.deepEqual(
		stays.inbox.items.map((it) => it.params.data),
		['all here', 'one dropped', 'one ended', 'to a list', 'to you'],
	);
	assert.deepEqual(stays.errors, []);
	assert.equal(await cluster.a.control({ do: 'has', session: stays.session }), true);
	assert.equal(await cluster.a.control({ do: 'has', session: ends.session }), false);
});

test('events that come before the stream opens are not lost', async () => {
	await using cluster = await startCluster();
	const open = cluster.front.hold();
	await using client = await legacy(cluster.front.url);
	await cluster.a.control({ do: 'send', to: [client.session], data: ['early'] });
	await cluster.b.control({ do: 'changed', what: 'tools' });
	open();
	await client.inbox.atLeast(2, 'both early events');
	assert.deepEqual(
		client.inbox.items.map((it) => it.params.data ?? it.method),
		['early', 'notifications/tools/list_changed'],
	);
});

type Front = Awaited<ReturnType<typeof startCluster>>['front'];

/** A client whose GET stream is open on the given node. */
async function legacyOn(front: Front, node: number) {
	front.route = (request) => (request.method === 'GET' ? node : undefined);
	const client = await legacy(front.url);
	await front.opened(client.session);
	return client;
}

/**
 * The updated resources received up to a change of the tools, which is the last thing sent. They are sorted, and the
 * caller waits for them first: tmcp looks up who is subscribed to each, and sends when it knows.
 */
async function updates(client: Awaited<ReturnType<typeof legacy>>): Promise<string[]> {
	await client.inbox.first((it) => it.method === 'notifications/tools/list_changed', 'the change sent last');
	const notices = client.inbox.drain().slice(0, -1);
	assert.ok(notices.every((it) => it.method === 'notifications/resources/updated'));
	return notices.map((it) => it.params.uri).sort();
}
