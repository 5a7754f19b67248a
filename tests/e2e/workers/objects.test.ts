// What happens to the objects, with clients attached: they sleep, crash, are restarted, expire what is due.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Engine } from 'mcp-sessions';
import { legacy } from '../src/clients.ts';
import { Front } from '../src/front.ts';
import { tell } from '../src/node.ts';
import { initialize, openStream, type RawStream } from '../src/raw.ts';
import { startFleet, type Fleet } from '../src/workerd.ts';
import { until, within } from '../src/wait.ts';

const page = async (url: string, path: string): Promise<any> => (await fetch(url + path)).json();
const send = (url: string, to: string, data: unknown) => tell(url, { do: 'send', to: [to], data: [data] });
const urls = (fleet: Fleet) => fleet.urls as [string, string];

/** As the platform does with an object that has nothing to do: it is gone, its sockets stay. False when it is not let go of. */
async function putToSleep(fleet: Fleet, name: string): Promise<boolean> {
	for (let tries = 0; tries < 2; tries++) {
		// This workerd does it only once what referred to the object was collected.
		for (const url of fleet.urls) await tell(url, { do: 'garbage' });
		try {
			await fleet.miniflare.unsafeEvictDurableObject('A', 'SyncLayer', { name, webSockets: 'hibernate' });
			return true;
		} catch (error) {
			if (!/active references/.test(String(error))) throw error;
		}
	}
	return false;
}

test('an object that sleeps keeps its streams', async (t) => {
	await using fleet = await startFleet({ engine: { shards: 1 } });
	const [a, b] = urls(fleet);
	const session = await initialize(a);
	const stream = await openStream(b, { session });
	await send(a, session, 'before');
	await stream.until('before');
	const lives = await page(a, '/lives');
	if (await putToSleep(fleet, 'tmcp:sync-layer')) {
		await send(a, session, 'to it');
		await tell(b, { do: 'send', data: ['to all'] });
		assert.deepEqual(await stream.until('to all'), ['before', 'to it', 'to all']);
		assert.ok((await page(a, '/lives')) > lives, 'it was brought to life again');
	} else {
		t.skip('something in this workerd refers to the object still, which keeps it awake');
	}
	stream.abort();
});

test('an object that crashes ends its streams, and they resume without a loss', async () => {
	await using fleet = await startFleet();
	const [a, b] = urls(fleet);
	const session = await initialize(a);
	let stream = await openStream(a, { session });
	const all: unknown[] = [];
	for (let round = 0; round < 5; round++) {
		await send(b, session, `${round} before`);
		await stream.until(`${round} before`);
		await page(b, '/abort');
		await within(stream.ended, 'the end of the stream');
		all.push(...stream.messages);
		await send(b, session, `${round} after`);
		stream = await openStream(round % 2 ? a : b, { session, lastEventId: stream.lastEventId });
	}
	await stream.until('4 after');
	assert.deepEqual([...all, ...stream.messages], Array.from({ length: 10 }, (_, i) => `${i >> 1} ${i % 2 ? 'after' : 'before'}`));
	stream.abort();
});

test('workerd is restarted: real clients come back and miss nothing', async () => {
	const persist = mkdtempSync(join(tmpdir(), 'mcp-sessions-restart-'));
	const front = await Front.start([]);
	try {
		let fleet = await startFleet({ persist });
		const use = () => front.use(fleet.urls);
		use();
		await using client = await legacy(front.url);
		await front.opened(client.session);
		const engine = { missed: 0 };
		for (let round = 0; round < 2; round++) {
			const opens = front.opens(client.session);
			await send(fleet.urls[0]!, client.session, `${round} before`);
			await client.inbox.atLeast(++engine.missed, 'the event before');
			const open = front.hold();
			await fleet.close();
			fleet = await startFleet({ persist });
			use();
			await send(fleet.urls[1]!, client.session, `${round} missed`);
			engine.missed += 1;
			open();
			await front.changed.until(() => front.opens(client.session) > opens, 'it is back');
			await client.inbox.atLeast(engine.missed, 'what was missed');
		}
		assert.deepEqual(client.inbox.items.map((it) => it.params.data), ['0 before', '0 missed', '1 before', '1 missed']);
		await fleet.close();
	} finally {
		await front.close();
		rmSync(persist, { recursive: true, force: true });
	}
});

test('alarms leave nothing behind, and close what is stale', async () => {
	const short = { ageMs: 500 };
	await using fleet = await startFleet({
		engine: { sessionTtlMs: 1_000, retention: short, broadcastRetention: short, registry: { staleMs: 1_000, tombstoneMs: 1_000 } },
	});
	const [a, b] = urls(fleet);
	const registered = await tell(a, { do: 'call', on: 'registry', method: 'create', args: [{ owner: 'o' }] });
	for (let i = 0; i < 20; i++) {
		const session = await initialize(i % 2 ? a : b);
		await tell(b, { do: 'call', on: 'info', method: 'addSubscription', args: [session, 'note://a'] });
		const stream = await openStream(a, { session });
		await send(b, session, 'x'.repeat(1_500));
		await tell(a, { do: 'call', on: 'streams', method: 'delete', args: [session] });
		await stream.ended;
	}
	await tell(a, { do: 'send', data: ['to all'] });
	const rows = async () => ((await page(a, '/rows')) as string[]).map((it) => it.replace('A', ''));
	assert.ok((await rows()).join('').length > 20);
	// At most one of each: the topic, the count of owner epochs, the limits of Workers, the key of owners; an alarm may be set.
	let left: string[] = [];
	const nothing = async () => {
		left = await rows();
		return left.every((it) => /^E?G?SY?$/.test(it));
	};
	await until(nothing, 'all else is gone', 60_000).catch(() => assert.equal(left.join(' '), 'nothing but topics, counts, limits and the key'));
	assert.equal(await tell(b, { do: 'call', on: 'registry', method: 'peek', args: [registered] }), null);
});

test('a Worker and a process outside serve one session', async () => {
	await using fleet = await startFleet({ engine: { shards: 1 } });
	const [a] = urls(fleet);
	const engine = await Engine.connect(`cloudflare://${new URL(a).host}/sessions?tls=off&token=correct-horse`);
	try {
		const session = await initialize(a, { name: 'seen by both', version: '1' });
		assert.deepEqual(await engine.info.getClientInfo(session), { name: 'seen by both', version: '1' });
		const inWorker = await openStream(a, { session });
		await until(async () => await engine.streams.has(session), 'the Worker has it');
		const frame = (data: string) => `event: message\ndata: ${JSON.stringify({ params: { data } })}\n\n`;
		await engine.streams.send(session, frame('from outside'));
		await engine.streams.send(undefined, frame('to all from outside'));
		assert.deepEqual(await inWorker.until('to all from outside'), ['from outside', 'to all from outside']);
		// The process takes over, with the cursor of the Worker's stream.
		const outside = await engine.streams.open(session, { after: inWorker.lastEventId! });
		await within(inWorker.ended, 'the end of the stream that was replaced');
		await tell(a, { do: 'send', to: [session], data: ['from the Worker'] });
		assert.match((await outside.next())!.payload, /from the Worker/);
		// And back.
		const back = await openStream(a, { session, lastEventId: outside.cursor });
		assert.equal(await outside.ended, 'replaced');
		await engine.streams.send(session, frame('again'));
		assert.deepEqual(await back.until('again'), ['again']);
		const id = await engine.registry.create({ owner: 'same-token' });
		const record = await tell(a, { do: 'call', on: 'registry', method: 'get', args: [id, { owner: 'same-token' }] });
		assert.equal(record.id, id);
		back.abort();
	} finally {
		await engine[Symbol.asyncDispose]();
	}
});

test('2,000 sessions on two Workers', async () => {
	await using fleet = await startFleet({ engine: { shards: 8 } });
	const [a, b] = urls(fleet);
	const sessions: string[] = [];
	const streams: RawStream[] = [];
	for (let at = 0; at < 2_000; at += 50) {
		const some = await Promise.all(Array.from({ length: 50 }, (_, i) => initialize(i % 2 ? a : b)));
		sessions.push(...some);
		streams.push(...(await Promise.all(some.map((session, i) => openStream(i % 3 ? a : b, { session })))));
	}
	await tell(a, { do: 'send', data: ['to all from A'] });
	await tell(b, { do: 'send', data: ['to all from B'] });
	for (let at = 0; at < 2_000; at += 100) {
		const list = sessions.slice(at, at + 100).map((session, i) => ({ to: [session], data: `to ${at + i}` }));
		await tell(at % 200 ? a : b, { do: 'sendEach', list });
	}
	await tell(b, { do: 'send', to: sessions.filter((_, i) => i % 2), data: ['to half'] });
	await tell(a, { do: 'send', data: ['last'] });
	for (const [i, stream] of streams.entries()) {
		const half = i % 2 ? ['to half'] : [];
		assert.deepEqual(await stream.until('last'), ['to all from A', 'to all from B', `to ${i}`, ...half, 'last']);
		stream.abort();
	}
});
