// The examples of the package with real clients: alone, and as two replicas where processes can share a backend.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { legacy, modern } from '../src/clients.ts';
import { apart, backendUrl } from '../src/cluster.ts';
import { runExample } from '../src/examples.ts';
import { Front } from '../src/front.ts';
import { call, initialize, post } from '../src/raw.ts';

test('Express: owners by their bearer tokens, news outside of requests, a good end', async () => {
	await using app = await runExample('express.mjs', 'one', backendUrl());
	await using client = await legacy(app.url, 'ada', undefined, 'ada.1');
	assert.equal(await client.call('whoami'), 'ada at one');
	await client.call('announce');
	await client.inbox.first((it) => it.params?.data === 'news from one', 'the news');
	// Another token of the same subject is the same owner; another subject is nobody.
	assert.equal((await call(app.url, client.session, 'whoami', {}, 'ada.2')).status, 200);
	assert.equal((await call(app.url, client.session, 'whoami', {}, 'bob.1')).status, 404);
	assert.equal((await call(app.url, client.session, 'whoami')).status, 401);
	assert.equal(((await (await fetch(`${app.url}/stats`)).json()) as any).totalSessions, 1);
	await client.terminate();
	assert.equal(await app.leave(), 0);
});

test('Hono: clients of both eras', async () => {
	await using app = await runExample('hono.mjs', 'one', backendUrl());
	await using old = await legacy(app.url);
	await using young = await modern(app.url);
	assert.deepEqual([await old.call('whoami'), await young.call('whoami')], ['one', 'one']);
	await old.call('announce');
	await old.inbox.first((it) => it.params?.data === 'news from one', 'the news');
	assert.equal((await post(app.url, { id: 1, method: 'ping' })).status, 400);
	assert.equal(((await (await fetch(`${app.url}/stats`)).json()) as any).totalSessions, 1);
	await old.terminate();
	assert.equal(await app.leave(), 0);
});

if (apart) {
	for (const file of ['express.mjs', 'hono.mjs']) {
		test(`${file}: a replica is killed, another one deployed, and the client goes on`, async () => {
			const backend = backendUrl();
			await using one = await runExample(file, 'one', backend);
			await using two = await runExample(file, 'two', backend);
			const front = await Front.start([one.url, two.url]);
			try {
				front.route = () => 0;
				await using client = await legacy(front.url, 'ada', undefined, 'ada.1');
				await front.opened(client.session);
				await client.call('announce');
				await client.inbox.atLeast(1, 'the first news');
				front.drop(0);
				await one.kill();
				assert.match(await client.call('whoami'), /two$/);
				await client.call('announce');
				await client.inbox.atLeast(2, 'the next news');
				assert.deepEqual(client.inbox.items.map((it) => it.params?.data), ['news from one', 'news from two']);
				// What leaves in good order leaves its sessions to the others.
				const session = await initialize(two.url, undefined, 'ada.1');
				assert.equal(await two.leave(), 0);
				await using three = await runExample(file, 'three', backend);
				assert.match((await call(three.url, session, 'whoami', {}, 'ada.1')).body, /three/);
			} finally {
				await front.close();
			}
		});
	}
}
