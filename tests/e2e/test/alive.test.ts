// Sessions that last: nothing about them is refreshed one by one, and nothing runs out under them.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startCluster } from '../src/cluster.ts';
import { del, initialize, openStream } from '../src/raw.ts';

// Waiting costs nothing: these run beside each other, and beside the other files.
describe('idle sessions', { concurrency: true }, () => {
	for (const seconds of [12, 60]) {
		test(`still alive after ${seconds} s`, async () => {
			await using cluster = await startCluster();
			const sessions = await Promise.all(Array.from({ length: 10 }, (_, i) => initialize(cluster.nodes[i % 2]!.url)));
			const streams = await Promise.all(sessions.map((session, i) => openStream(cluster.nodes[(i >> 1) % 2]!.url, { session })));
			// one of them ends early: that is no one else's end
			await del(cluster.a.url, sessions[0]!);
			await streams[0]!.ended;

			await sleep(seconds * 1000);
			for (const [i, session] of sessions.entries()) {
				for (const node of cluster.nodes) assert.equal(await node.control({ do: 'has', session }), i > 0);
			}
			await cluster.a.control({ do: 'send', data: ['to all'] });
			await cluster.b.control({ do: 'send', to: sessions.slice(1), data: ['to a list'] });
			for (const stream of streams.slice(1)) {
				assert.deepEqual(await stream.until('to a list'), ['to all', 'to a list']);
				stream.abort();
			}
			assert.deepEqual(streams[0]!.messages, []);
		});
	}
});
