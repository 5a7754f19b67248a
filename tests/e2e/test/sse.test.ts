// The older HTTP+SSE transport: every answer comes over the one stream, which another node may hold.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { legacySse } from '../src/clients.ts';
import { spawnNode, startCluster } from '../src/cluster.ts';

for (const resumable of [false, {}] as const) {
	test(`HTTP+SSE: the stream on one node, the posts on the other (${resumable ? 'resumable' : 'the changed import alone'})`, async () => {
		await using cluster = await startCluster({ resumable });
		const { front } = cluster;
		front.route = (request) => (request.method === 'GET' ? 0 : 1);
		await using client = await legacySse(front.url);
		assert.equal(await client.call('echo', { text: 'over there' }), 'B: over there');
		assert.equal(JSON.parse(await client.call('whoami')).clientInfo.name, 'legacy-sse');

		await client.client.subscribeResource({ uri: 'note://a' });
		await client.call('touch', { uri: 'note://b' });
		await client.call('touch', { uri: 'note://a' });
		await client.call('announce', { what: 'prompts' });
		await cluster.a.control({ do: 'changed', what: 'tools' });
		await client.inbox.first((it) => it.method === 'notifications/tools/list_changed', 'the last change');
		assert.deepEqual(
			client.inbox.items.map((it) => it.params?.uri ?? it.method),
			['note://a', 'notifications/prompts/list_changed', 'notifications/tools/list_changed'],
		);
		assert.ok(front.passed.filter((it) => it.method === 'POST').every((it) => it.node === 1 && it.status === 202));
	});

	test(`HTTP+SSE: two clients, one goes (${resumable ? 'resumable' : 'the changed import alone'})`, async () => {
		await using cluster = await startCluster({ resumable });
		await using stays = await legacySse(cluster.front.url);
		const goes = await legacySse(cluster.front.url);
		await goes.client.close();
		await cluster.b.control({ do: 'changed', what: 'tools' });
		await stays.inbox.atLeast(1, 'the change');
		assert.match(await stays.call('echo', { text: 'x' }), /: x$/);
		assert.equal(stays.inbox.items.length, 1);
	});
}

test('HTTP+SSE: what cannot be sent is told, and the process goes on', async () => {
	const node = await spawnNode({ name: 'A', backend: 'memory://unsent', engine: { maxPayloadBytes: 1 << 16 }, resumable: false });
	try {
		await using client = await legacySse(node.url);
		// tmcp awaits nothing of what it logs: a line that is too large, a session id that is none
		await client.call('shout', { bytes: 1 << 17 });
		const params = { name: 'log', arguments: { levels: ['error'] } };
		const response = await fetch(`${node.url}/message?session_id=no%20such%20id`, {
			method: 'POST',
			headers: { 'content-type': 'application/json' },
			body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params }),
		});
		assert.equal(response.status, 400);
		await response.text();

		assert.equal(await client.call('echo', { text: 'alive' }), 'A: alive');
		const errors: string[] = await node.control({ do: 'errors' });
		assert.match(errors.join(), /TooLargeError.*InvalidInputError/);
		assert.deepEqual(client.inbox.items, []);
		assert.equal(node.child.exitCode, null);
	} finally {
		await node.kill();
	}
});
