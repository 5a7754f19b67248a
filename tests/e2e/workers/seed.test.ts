// The seed's Worker with only its import changed, in two instances on the same objects.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { legacy, modern } from '../src/clients.ts';
import { Front } from '../src/front.ts';
import { startFleet } from '../src/workerd.ts';

const heard = ['notifications/tools/list_changed'];

for (const older of [false, true]) {
	test(`the seed's Worker, in two instances, with clients of both eras (${older ? 'new_classes' : 'new_sqlite_classes'})`, async () => {
		await using fleet = await startFleet({ entry: 'seed.js', older });
		const front = await Front.start(fleet.urls);
		try {
			await using old = await legacy(front.url);
			await front.opened(old.session);
			await using young = await modern(front.url);
			await young.client.listen({ toolsListChanged: true });
			// In turn to both instances, whose module scopes know nothing of each other.
			for (let i = 0; i < 2; i++) assert.equal(await old.call('example_tool'), 'Hello from the edge!');
			for (let i = 1; i <= 2; i++) {
				await old.call('announce');
				await old.inbox.atLeast(i, 'the change on the old stream');
				await young.inbox.atLeast(i, 'the change on the subscription');
			}
			assert.deepEqual(old.inbox.items.map((it) => it.method), [...heard, ...heard]);
			assert.deepEqual(young.inbox.items.map((it) => it.method), [...heard, ...heard]);
			assert.deepEqual(old.errors, []);
			const nodes = new Set(front.passed.map((it) => it.node));
			assert.deepEqual([...nodes].sort(), [0, 1]);
		} finally {
			await front.close();
		}
	});
}
