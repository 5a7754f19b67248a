// 2026-07-28: no sessions; a change on one node reaches the `subscriptions/listen` streams of the other.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { legacy, modern, type Modern } from '../src/clients.ts';
import { startCluster } from '../src/cluster.ts';
import type { Front } from '../src/front.ts';
import { within } from '../src/wait.ts';

const A = 0;
const B = 1;

/** Listen streams on one node, everything else on the other. */
function listenOn(front: Front, node: number): void {
	front.route = (request) => (request.mcpMethod === 'subscriptions/listen' ? node : 1 - node);
}

test('a change on one node reaches a listen stream on the other', async () => {
	await using cluster = await startCluster();
	listenOn(cluster.front, B);
	await using client = await modern(cluster.front.url);
	const subscription = await client.client.listen({ toolsListChanged: true, resourceSubscriptions: ['note://a'] });
	assert.deepEqual(subscription.honoredFilter, { toolsListChanged: true, resourceSubscriptions: ['note://a'] });

	// from outside a request, from within one, and from the node that holds the stream: only what was asked for
	await cluster.a.control({ do: 'changed', what: 'prompts' });
	await cluster.a.control({ do: 'touch', uri: 'note://b' });
	await cluster.a.control({ do: 'touch', uri: 'note://a' });
	await client.call('announce', { what: 'resources' });
	await client.call('announce', { what: 'tools' });
	await client.inbox.atLeast(2, 'the update and the list change');
	await cluster.b.control({ do: 'touch', uri: 'note://a' });
	await client.inbox.atLeast(3, 'a change where the stream is');
	assert.deepEqual(heard(client), ['note://a', 'notifications/tools/list_changed', 'note://a']);

	const posts = cluster.front.passed;
	assert.deepEqual(posts.filter((it) => it.mcpMethod === 'subscriptions/listen').map((it) => it.node), [B]);
	assert.deepEqual(posts.filter((it) => it.mcpMethod === 'tools/call').map((it) => it.node), [A, A]);
	await subscription.close();
	assert.equal(await subscription.closed, 'local');
});

test('two clients with the same subscription id stay apart', async () => {
	await using cluster = await startCluster();
	listenOn(cluster.front, B);
	await using one = await modern(cluster.front.url, 'one');
	await using two = await modern(cluster.front.url, 'two');
	// both name their first subscription alike
	const first = await one.client.listen({ resourceSubscriptions: ['note://a'] });
	const second = await two.client.listen({ resourceSubscriptions: ['note://b'], promptsListChanged: true });
	await cluster.a.control({ do: 'touch', uri: 'note://a' });
	await cluster.a.control({ do: 'touch', uri: 'note://b' });
	await one.inbox.atLeast(1, 'its update');
	await two.inbox.atLeast(1, 'its update');

	await first.close();
	await cluster.a.control({ do: 'touch', uri: 'note://a' });
	await cluster.a.control({ do: 'changed', what: 'prompts' });
	await two.inbox.atLeast(2, 'what it still listens to');
	assert.deepEqual(heard(one), ['note://a']);
	assert.deepEqual(heard(two), ['note://b', 'notifications/prompts/list_changed']);
	await second.close();
});

test('listen streams end when their node closes them, and can be opened again elsewhere', async () => {
	await using cluster = await startCluster();
	listenOn(cluster.front, B);
	await using client = await modern(cluster.front.url);
	const subscription = await client.client.listen({ toolsListChanged: true });
	await cluster.b.control({ do: 'closeListens' });
	assert.equal(await within(subscription.closed, 'the end of the subscription'), 'remote');

	listenOn(cluster.front, A);
	const again = await client.client.listen({ toolsListChanged: true });
	await cluster.b.control({ do: 'changed', what: 'tools' });
	await client.inbox.atLeast(1, 'the change, on the new stream');
	assert.deepEqual(heard(client), ['notifications/tools/list_changed']);
	await again.close();
});

test('there are no sessions to be unknown', async () => {
	await using cluster = await startCluster({ resumable: { unknownSessions: 'reject' } });
	await using client = await modern(cluster.front.url);
	const answers = [await client.call('echo', { text: 'x' }), await client.call('echo', { text: 'x' })];
	assert.deepEqual(answers.sort(), ['A: x', 'B: x']);
	const subscription = await client.client.listen({ toolsListChanged: true });
	await client.call('announce', { what: 'tools' });
	await client.inbox.atLeast(1, 'the change');
	await subscription.close();
});

test('a stuck subscription still closes, and holds nobody up', async () => {
	await using cluster = await startCluster();
	listenOn(cluster.front, B);
	await using client = await modern(cluster.front.url);
	await cluster.b.control({ do: 'stick', id: 'listen:1' });
	await cluster.b.control({ do: 'stick', id: 1 });
	const subscription = await client.client.listen({ toolsListChanged: true });

	await cluster.a.control({ do: 'changed', what: 'tools' });
	await client.inbox.atLeast(1, 'the change, past the stuck ones');
	assert.equal(await within(cluster.b.control({ do: 'unstick', id: 'listen:1' }), 'the close of a stuck subscription'), true);
	assert.equal(await within(cluster.b.control({ do: 'unstick', id: 1 }), 'the close of the other one'), true);
	assert.equal(await cluster.b.control({ do: 'unstick', id: 1 }), false);

	await cluster.a.control({ do: 'changed', what: 'tools' });
	await client.inbox.atLeast(2, 'the next change');
	await subscription.close();
});

test('both eras hear of one change', async () => {
	await using cluster = await startCluster();
	listenOn(cluster.front, B);
	await using young = await modern(cluster.front.url);
	await using old = await legacy(cluster.front.url);
	await cluster.front.opened(old.session);
	const subscription = await young.client.listen({ promptsListChanged: true });
	assert.match(await young.call('echo', { text: 'hi' }), /^A: hi$/);
	await old.call('announce', { what: 'prompts' });
	await Promise.all([old.inbox.atLeast(1, 'the change, on a session'), young.inbox.atLeast(1, 'the change, on a listen stream')]);
	assert.deepEqual(heard(young), ['notifications/prompts/list_changed']);
	assert.deepEqual(old.inbox.items.map((it) => it.method), ['notifications/prompts/list_changed']);
	await subscription.close();
});

const heard = (client: Modern) => client.inbox.items.map((it) => it.params?.uri ?? it.method);
