// What goes wrong with the managers that came before (the rows of a comparison are named), and must not here.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { del, initialize, openStream, post } from '../src/raw.ts';
import { tell } from '../src/node.ts';
import { startFleet, type Fleet } from '../src/workerd.ts';
import { until } from '../src/wait.ts';

let fleet: Fleet;
let a: string;
let b: string;
before(async () => {
	fleet = await startFleet();
	[a, b] = fleet.urls as [string, string];
});
after(() => fleet.close());

const on = (target: 'streams' | 'info' | 'registry') => (url: string, method: string, ...args: unknown[]) =>
	tell(url, { do: 'call', on: target, method, args });
const info = on('info');
const streams = on('streams');
const registry = on('registry');
const kv = (method: string, ...args: unknown[]) => tell(a, { do: 'kv', method, args });
const refused = (what: Promise<unknown>, says: RegExp) => assert.rejects(what, says);
let ids = 0;
const id = () => `case-${ids++}`;

describe('streams', () => {
	test('an id is one id, whatever is in it, and nobody else hears', async () => {
		const names = ['a', 'a&b', 'a&session_id=b', 'a#b', 'a%26b', 'a:b', 'a/b?c', "a'b", 'a"b', `${'x'.repeat(256)}`];
		const all = await Promise.all(names.map((session) => openStream(a, { session })));
		for (const session of names) {
			await until(async () => await tell(b, { do: 'has', session }), `${session} is held`);
			await tell(b, { do: 'send', to: [session], data: [session] });
		}
		await tell(b, { do: 'send', data: ['last'] });
		for (const [at, stream] of all.entries()) assert.deepEqual(await stream.until('last'), [names[at], 'last']);
		for (const stream of all) stream.abort();
	});

	test('a client that goes away without a word is gone', async () => {
		const session = await initialize(a);
		const stream = await openStream(a, { session });
		await tell(b, { do: 'send', to: [session], data: ['x'] });
		await stream.until('x');
		assert.equal(await tell(b, { do: 'has', session }), true);
		stream.abort();
		await until(async () => !(await tell(b, { do: 'has', session })), 'nobody holds it');
		// and what is sent meanwhile waits
		await tell(b, { do: 'send', to: [session], data: ['later'] });
		const again = await openStream(b, { session, lastEventId: stream.lastEventId });
		assert.deepEqual(await again.until('later'), ['later']);
		again.abort();
	});

	test('deleting a stream on another Worker closes it', async () => {
		const session = await initialize(a);
		const stream = await openStream(a, { session });
		await until(async () => await tell(b, { do: 'has', session }), 'it is held');
		await streams(b, 'delete', session);
		await stream.ended;
		assert.equal(await tell(a, { do: 'has', session }), false);
		const again = await openStream(b, { session });
		assert.equal(again.status, 200);
		await del(a, session);
		await again.ended;
	});

	test('events that come before a stream opens are given to it; those of nobody cost nothing', async () => {
		const session = await initialize(a);
		await tell(b, { do: 'send', to: [session, 'nobody-knows-me'], data: ['early'] });
		const stream = await openStream(b, { session });
		assert.deepEqual(await stream.until('early'), ['early']);
		stream.abort();
		assert.equal(await streams(a, 'known', 'nobody-knows-me'), false);
	});

	test('a payload is as large as it may be, and no larger', async () => {
		const session = await initialize(a);
		const stream = await openStream(a, { session });
		const large = 'x'.repeat(3 << 20);
		await tell(b, { do: 'send', to: [session], data: [large] });
		assert.deepEqual(await stream.until(large), [large]);
		stream.abort();
		await tell(b, { do: 'send', to: [session], data: ['x'.repeat(5 << 20)] });
		assert.match(((await tell(b, { do: 'errors' })) as string[]).join(), /TooLargeError/);
	});
});

describe('info', () => {
	test('all of it is read as it was set, on the other Worker, at once', async () => {
		const session = id();
		await refused(info(b, 'getClientInfo', session), new RegExp(`Client info not found for session ${session}`));
		await refused(info(b, 'getClientCapabilities', session), /Client capabilities not found/);
		await refused(info(b, 'getLogLevel', session), /Log Level not found/);
		for (let round = 0; round < 20; round++) {
			const [here, there] = round % 2 ? [a, b] : [b, a];
			await info(here, 'setClientInfo', session, { name: 'client', version: String(round) });
			await info(here, 'setLogLevel', session, round % 2 ? 'warning' : 'error');
			assert.deepEqual(await info(there, 'getClientInfo', session), { name: 'client', version: String(round) });
			assert.equal(await info(there, 'getLogLevel', session), round % 2 ? 'warning' : 'error');
		}
		await refused(info(a, 'setLogLevel', session, 'loud'), /a log level is one of/);
	});

	test('the keys are those of the seed, and have a time to live', async () => {
		const session = id();
		await info(a, 'setClientInfo', session, { name: 'x', version: '1' });
		await info(a, 'setClientCapabilities', session, { roots: {} });
		await info(a, 'setLogLevel', session, 'notice');
		await info(a, 'addSubscription', session, 'note://ttl');
		assert.equal(await kv('get', `tmcp:client_info:${session}`), '{"name":"x","version":"1"}');
		assert.equal(await kv('get', `tmcp:client_capabilities:${session}`), '{"roots":{}}');
		assert.equal(await kv('get', `tmcp:log_level:${session}`), 'notice');
		assert.equal(await kv('get', `tmcp:subscriptions:note://ttl:${session}`), session);
		for (const name of ['client_info', 'client_capabilities', 'log_level', 'subscriptions']) {
			const { keys } = await kv('list', { prefix: `tmcp:${name}:` });
			const own = keys.filter((it: { name: string }) => it.name.endsWith(session));
			assert.equal(own.length, 1);
			assert.ok(own.every((it: { expiration?: number }) => (it.expiration ?? 0) > Date.now() / 1_000), name);
		}
		await info(b, 'delete', session);
		await refused(info(a, 'getClientInfo', session), /not found/);
		assert.equal(await kv('get', `tmcp:client_info:${session}`), null);
		assert.equal(await kv('get', `tmcp:subscriptions:note://ttl:${session}`), null);
	});

	test('a session subscribes once, to this very resource, and is removed from no other', async () => {
		const [one, other] = [id(), 'with:colon'];
		for (let i = 0; i < 3; i++) await info(a, 'addSubscription', one, 'u1');
		await info(a, 'addSubscription', one, 'u1:x');
		await info(b, 'addSubscription', other, 'u1:x');
		await info(b, 'addSubscription', 'x:with', 'u1');
		assert.deepEqual((await info(b, 'getSubscriptions', 'u1')).sort(), [one, 'x:with'].sort());
		assert.deepEqual((await info(a, 'getSubscriptions', 'u1:x')).sort(), [one, other].sort());
		assert.deepEqual(await info(a, 'getSubscriptions', 'u'), []);
		await info(b, 'removeSubscription', one, 'u1');
		assert.deepEqual(await info(a, 'getSubscriptions', 'u1'), ['x:with']);
		assert.deepEqual((await info(a, 'getSubscriptions', 'u1:x')).sort(), [one, other].sort());
		await info(a, 'delete', one);
		assert.deepEqual(await info(b, 'getSubscriptions', 'u1:x'), [other]);
	});

	test('what a Worker with the older package wrote to KV is read', async () => {
		const session = id();
		await kv('put', `tmcp:client_info:${session}`, '{"name":"old","version":"0"}');
		await kv('put', `tmcp:log_level:${session}`, '"debug"');
		await kv('put', `tmcp:subscriptions:note://old:${crypto.randomUUID()}`, session);
		await kv('put', `tmcp:subscriptions:note://old:${crypto.randomUUID()}`, session);
		assert.deepEqual(await info(a, 'getClientInfo', session), { name: 'old', version: '0' });
		assert.equal(await info(b, 'getLogLevel', session), 'debug');
		assert.deepEqual(await info(b, 'getSubscriptions', 'note://old'), [session]);
		await info(b, 'removeSubscription', session, 'note://old');
		assert.deepEqual(await info(b, 'getSubscriptions', 'note://old'), []);
	});

	test('more than a thousand subscribers', async () => {
		const sessions = Array.from({ length: 1_200 }, (_, i) => `many-${i}`);
		for (let at = 0; at < sessions.length; at += 100) {
			await Promise.all(sessions.slice(at, at + 100).map((session, i) => info(i % 2 ? a : b, 'addSubscription', session, 'note://many')));
		}
		assert.deepEqual((await info(a, 'getSubscriptions', 'note://many')).sort(), sessions.toSorted());
	});
});

describe('registry', () => {
	test('create, owner, requests, close: on both Workers', async () => {
		const owned = await registry(a, 'create', { owner: 'secret-token', metadata: { plan: 'free' } });
		const free = await registry(b, 'create');
		assert.match(owned, /^[0-9a-f]{64}$/);
		const record = await registry(b, 'get', owned, { owner: 'secret-token' });
		assert.deepEqual([record.id, record.state, record.metadata], [owned, 'active', { plan: 'free' }]);
		assert.ok(!JSON.stringify(record).includes('secret-token'));
		assert.equal(await registry(b, 'get', owned, { owner: 'guess' }), null);
		assert.equal(await registry(b, 'get', owned), null);
		assert.equal((await registry(b, 'get', owned, { trusted: true })).id, owned);
		assert.equal((await registry(a, 'get', free)).id, free);
		assert.equal((await registry(b, 'getByOwner', 'secret-token')).id, owned);
		await refused(registry(a, 'create', { id: owned }), /exists, or was closed/);
		const stream = await openStream(a, { session: owned });
		await until(async () => (await registry(b, 'peek', owned)).activeRequests === 1, 'its stream is a request');
		assert.deepEqual([(await registry(a, 'stats')).total, (await registry(a, 'list')).sessions.length], [2, 2]);
		assert.equal(await registry(b, 'close', owned, 'logout'), true);
		await stream.ended;
		assert.equal(await registry(a, 'close', owned), false);
		assert.equal(await registry(a, 'has', owned), false);
		assert.deepEqual([(await registry(a, 'peek', owned)).state, (await registry(a, 'peek', owned)).reason], ['closed', 'logout']);
		assert.equal(await registry(a, 'closeByOwner', 'secret-token'), 0);
		assert.equal(await registry(a, 'close', free), true);
		assert.equal((await post(a, { id: 1, method: 'ping' }, { session: owned })).status, 200);
	});
});
