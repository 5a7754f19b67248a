// Servers on the official SDKs behind `createSessionHandler`: two replicas, real clients.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { legacy, type Legacy } from '../src/clients.ts';
import { startCluster, type Cluster, type ClusterOptions } from '../src/cluster.ts';
import { call, del, initialize, openStream, post } from '../src/raw.ts';
import type { Sdk } from '../src/sdk-node.ts';
import { within } from '../src/wait.ts';

const A = 0;
const B = 1;

async function soon(what: string, check: () => Promise<boolean>): Promise<void> {
	await within(
		(async () => {
			while (!(await check())) await sleep(20);
		})(),
		what,
	);
}

const heard = (client: Legacy) => client.inbox.items.map((it) => it.params?.data);

for (const kind of ['sdk1', 'sdk2'] as Sdk[]) {
	const each = (name: string, run: () => Promise<void>) => test(`${kind}: ${name}`, run);
	const start = (options: ClusterOptions = {}) => startCluster({ kind, ...options });

	/** A client whose stream is on one replica, and whose session is at home on both. */
	async function everywhere({ front }: Cluster, node: number): Promise<Legacy> {
		front.route = (request) => (request.method === 'GET' ? node : undefined);
		const client = await legacy(front.url);
		await front.opened(client.session);
		const answers = new Set([await client.call('whoami'), await client.call('whoami')]);
		assert.deepEqual([...answers].sort(), ['A', 'B']);
		return client;
	}

	each('a real client is served by both replicas in turn', async () => {
		await using cluster = await start();
		await using client = await everywhere(cluster, A);
		for (let turn = 0; turn < 4; turn++) await client.call('shout');
		await client.inbox.atLeast(4, 'what both replicas said');
		assert.deepEqual(heard(client).sort(), ['from A', 'from A', 'from B', 'from B']);
		await client.terminate();
		assert.equal((await cluster.a.control({ do: 'stats' })).totalSessions, 0);
		for (const node of cluster.nodes) assert.deepEqual(await node.control({ do: 'errors' }), []);
	});

	each('a replica dies: its clients go on with the other one, and miss nothing', async () => {
		await using cluster = await start();
		await using client = await everywhere(cluster, A);
		const { front, a, b } = cluster;
		await a.control({ do: 'say', session: client.session, data: [1] });
		await client.inbox.atLeast(1, 'the event before the death');
		const restore = front.hold();
		front.drop(A);
		await a.kill();
		await b.control({ do: 'say', session: client.session, data: [2, 3] });
		restore();
		await client.inbox.atLeast(3, 'what was missed');
		await b.control({ do: 'say', session: client.session, data: [4] });
		await client.inbox.atLeast(4, 'what comes live after it');
		assert.deepEqual(heard(client), [1, 2, 3, 4]);
		const gets = front.passed.filter((it) => it.method === 'GET');
		assert.deepEqual([gets.at(-1)!.node, gets.at(-1)!.status], [B, 200]);
		assert.ok(gets.at(-1)!.lastEventId, 'it named the last event that it had');
		assert.equal(await client.call('whoami'), 'B');
		await client.terminate();
	});

	each('a session whose only replica dies goes on where it never was', async () => {
		await using cluster = await start();
		const { front, a } = cluster;
		front.route = () => A;
		await using client = await legacy(front.url);
		await front.opened(client.session);
		await a.control({ do: 'say', session: client.session, data: [1] });
		await client.inbox.atLeast(1, 'the event before the death');
		front.drop(A);
		await a.kill();
		assert.equal(await client.call('whoami'), 'B');
		await client.call('shout');
		await client.inbox.atLeast(2, 'what the other replica says');
		assert.deepEqual(heard(client), [1, 'from B']);
	});

	each('only its owner reaches a session, on both replicas', async () => {
		await using cluster = await start();
		const session = await initialize(cluster.a.url, undefined, 'ada');
		for (const { url, name } of cluster.nodes) {
			for (const token of ['bob', undefined]) {
				assert.equal((await call(url, session, 'whoami', {}, token)).status, 404);
				assert.equal((await openStream(url, { session, token })).status, 404);
				assert.equal((await del(url, session, token)).status, 404);
			}
			const answer = await call(url, session, 'whoami', {}, 'ada');
			assert.match(answer.body, new RegExp(`"text":"${name}"`));
		}
		assert.equal((await del(cluster.b.url, session, 'ada')).status, 200);
		for (const { url } of cluster.nodes) assert.equal((await call(url, session, 'whoami', {}, 'ada')).status, 404);
	});

	each('closed by its owner`s token on one replica, a session ends on the other', async () => {
		await using cluster = await start();
		const { front, a, b } = cluster;
		front.route = () => A;
		await using ada = await legacy(front.url, 'ada', undefined, 'ada');
		await using bob = await legacy(front.url, 'bob', undefined, 'bob');
		await front.opened(ada.session);
		await front.opened(bob.session);
		assert.equal(await b.control({ do: 'closeOwner', owner: 'ada' }), 1);
		await front.changed.until(() => front.streams(ada.session) === 0, 'the end of the stream');
		await soon('the end of the session', async () => (await a.control({ do: 'ended' })).length === 1);
		assert.deepEqual(await a.control({ do: 'ended' }), [[ada.session, 'revoked']]);
		await assert.rejects(ada.call('whoami'), (error: any) => error.code === 404);
		assert.equal(await bob.call('whoami'), 'A');
		assert.equal((await b.control({ do: 'stats' })).totalSessions, 1);
	});

	each('an idle session is swept on both replicas, one with an open stream is not', async () => {
		await using cluster = await start({ engine: { registry: { staleMs: 4_000, sweepMs: 100 } } });
		const idle = await initialize(cluster.a.url);
		const listening = await initialize(cluster.a.url);
		const stream = await openStream(cluster.b.url, { session: listening });
		// Looked at, but not accessed.
		await soon('the sweep', async () => (await cluster.b.control({ do: 'stats' })).totalSessions === 1);
		for (const { url } of cluster.nodes) assert.equal((await call(url, idle, 'whoami')).status, 404);
		for (const { url } of cluster.nodes) assert.equal((await call(url, listening, 'whoami')).status, 200);
		stream.abort();
		await soon('the next sweep', async () => (await cluster.a.control({ do: 'stats' })).totalSessions === 0);
		for (const { url } of cluster.nodes) assert.equal((await call(url, listening, 'whoami')).status, 404);
	});

	each('a replica shuts down under load: every call is answered, every session goes on', async () => {
		await using cluster = await start();
		const { a, b } = cluster;
		const urls = [a.url, b.url];
		const sessions = await Promise.all(Array.from({ length: 20 }, (_, i) => initialize(urls[i % 2]!)));
		const streams = await Promise.all(sessions.map((session) => openStream(a.url, { session })));
		let over = false;
		const answered = { A: 0, B: 0, elsewhere: 0 };
		const load = sessions.map(async (session) => {
			for (let turn = 0; !over; turn++) {
				const one = await call(urls[turn % 2]!, session, 'pause');
				// What the leaving replica does not take goes to the other one, as a load balancer has it.
				const answer = one.status === 503 ? await call(b.url, session, 'pause') : one;
				if (one.status === 503) answered.elsewhere++;
				assert.equal(answer.status, 200, answer.body);
				const [, text] = answer.body.match(/"text":"(A|B)"/) ?? [];
				answered[text as 'A' | 'B']++;
			}
		});
		await soon('calls on both', async () => answered.A > 20 && answered.B > 20);
		await a.control({ do: 'leave', deadlineMs: 30_000 });
		await Promise.all(streams.map((stream) => stream.ended));
		const { elsewhere } = answered;
		await soon('calls that go elsewhere', async () => answered.elsewhere > elsewhere + 20);
		over = true;
		await Promise.all(load);
		assert.equal((await b.control({ do: 'stats' })).totalSessions, 20);
		const [session] = sessions;
		const resumed = await openStream(b.url, { session: session!, lastEventId: streams[0]!.lastEventId });
		await b.control({ do: 'say', session: session!, data: ['still here'] });
		assert.deepEqual(await resumed.until('still here'), ['still here']);
		resumed.abort();
	});

	each('nobody reads another session by its event id', async () => {
		await using cluster = await start();
		const [victim, intruder] = [await initialize(cluster.a.url), await initialize(cluster.a.url)];
		const theirs = await openStream(cluster.a.url, { session: victim });
		await cluster.a.control({ do: 'say', session: victim, data: ['secret'] });
		await theirs.until('secret');
		for (const { url } of cluster.nodes) {
			for (const lastEventId of [theirs.lastEventId!, `${theirs.lastEventId}x`, '_GET_stream_1'])
				assert.equal((await openStream(url, { session: intruder, lastEventId })).status, 400);
		}
		theirs.abort();
	});

	each('a client that comes back at once is never told to wait', async () => {
		await using cluster = await start();
		const session = await initialize(cluster.a.url);
		let stream = await openStream(cluster.a.url, { session });
		for (let turn = 1; turn <= 20; turn++) {
			await cluster.a.control({ do: 'say', session, data: [turn] });
			assert.deepEqual(await stream.until(turn), [turn]);
			const { lastEventId } = stream;
			stream.abort(); // and no wait: the replica may not have noticed
			stream = await openStream(turn % 2 ? cluster.b.url : cluster.a.url, { session, lastEventId });
			assert.equal(stream.status, 200);
		}
		stream.abort();
	});

	each('what is no request of a session is refused', async () => {
		await using cluster = await start();
		assert.equal((await post(cluster.a.url, { id: 1, method: 'ping' })).status, 400);
		assert.equal((await call(cluster.a.url, 'nobody-knows-this-one', 'whoami')).status, 404);
		assert.equal((await openStream(cluster.a.url)).status, 400);
	});
}
