// `make demo`: two tmcp nodes behind a round-robin front, a real client of each era, and what happens between them,
// line by line. With BACKEND=redis or postgres each node is a process of its own, and one is killed; with cloudflare both are
// Workers in a real workerd, on the same Durable Objects. Ends with 0 only if all of it was seen to happen.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { legacy, modern, type Notice } from '../src/clients.ts';
import { asksForServer, startServer } from '../../support/servers.mjs';
import { startNode, type SpawnedNode } from '../src/cluster.ts';
import { Front } from '../src/front.ts';
import { startWorkers } from '../src/workerd.ts';

const DEADLINE_MS = 60_000;
const NAMES = ['A', 'B'] as const;

/** What each backend is called, and what is started for it: a real server, and a process for each node. */
const BACKENDS: Record<string, string> = {
	memory: `memory://demo-${randomUUID()}`,
	redis: 'redis://',
	postgres: 'postgresql://',
	cloudflare: 'worker:',
};

const started = performance.now();

function line(who: string, what: string): void {
	const seconds = ((performance.now() - started) / 1000).toFixed(2).padStart(6);
	console.log(`${seconds} s  ${who.padEnd(14)} ${what}`);
}

function describe({ method, params }: Notice): string {
	if (method === 'notifications/message') return `"${params.data}"`;
	return params?.uri ? `${params.uri} updated` : method.replace('notifications/', '').replace(/[/_]/g, ' ');
}

async function demo(backend: string): Promise<void> {
	const options = { resumable: { unknownSessions: 'reject', retryMs: 50 } } as const;
	const nodes = backend.startsWith('worker:')
		? await startWorkers(NAMES, options)
		: await Promise.all(NAMES.map((name) => startNode({ name, backend, ...options })));
	const [a, b] = [nodes[0]!, nodes[1]!];
	const front = await Front.start(nodes.map((node) => node.url));
	for (const node of [a, b]) line(`node ${node.name}`, `${node.url}${'child' in node ? `, process ${(node as SpawnedNode).child.pid}` : ''}`);
	line('front', `${front.url}, in turn to A and B`);

	const old = await legacy(front.url, 'legacy-client', (notice) => line('legacy client', `<- ${describe(notice)}`));
	await front.opened(old.session);
	const where = (wanted: (it: (typeof front.passed)[number]) => boolean) => NAMES[front.passed.findLast(wanted)!.node]!;
	const holder = where((it) => it.method === 'GET');
	line('legacy client', `initialized on ${NAMES[front.passed[0]!.node]}, its stream is on ${holder} (@modelcontextprotocol/sdk 1.32)`);
	const young = await modern(front.url, 'modern-client', (notice) => line('modern client', `<- ${describe(notice)}`));
	await young.client.listen({ toolsListChanged: true, promptsListChanged: true, resourceSubscriptions: ['note://a'] });
	const listensOn = where((it) => it.mcpMethod === 'subscriptions/listen');
	line('modern client', `listens on ${listensOn} (@modelcontextprotocol/client 2.4, 2026-07-28)`);

	line('', '-- tool calls go to both nodes, which know the same session');
	const answers = [await old.call('echo', { text: 'hello' }), await old.call('echo', { text: 'hello' })];
	for (const answer of answers) line('legacy client', `<- ${answer}`);
	assert.deepEqual(answers.toSorted(), ['A: hello', 'B: hello']);
	await old.client.subscribeResource({ uri: 'note://a' });

	line('', '-- notifications cross nodes: each node announces, both clients hear it');
	line('node A', '-> tools changed');
	await a.control({ do: 'changed', what: 'tools' });
	await Promise.all([old.inbox.atLeast(1, "A's change"), young.inbox.atLeast(1, "A's change")]);
	line('node B', '-> prompts changed');
	await b.control({ do: 'changed', what: 'prompts' });
	await Promise.all([old.inbox.atLeast(2, "B's change"), young.inbox.atLeast(2, "B's change")]);
	const changes = ['notifications/tools/list_changed', 'notifications/prompts/list_changed'];
	assert.deepEqual(old.inbox.drain().map((it) => it.method), changes);
	assert.deepEqual(young.inbox.drain().map((it) => it.method), changes);

	line('', '-- the connection of the legacy client is cut, and three events are missed');
	const other = holder === 'A' ? b : a;
	const restore = front.hold();
	assert.equal(front.cut(old.session), 1);
	line('front', `cut the stream from ${holder}; the line is down`);
	line(`node ${holder}`, '-> note://a updated');
	await (holder === 'A' ? a : b).control({ do: 'touch', uri: 'note://a' });
	line(`node ${other.name}`, '-> "while you were away", to this session alone');
	await other.control({ do: 'send', to: [old.session], data: ['while you were away'] });
	line(`node ${other.name}`, '-> tools changed');
	await other.control({ do: 'changed', what: 'tools' });
	await young.inbox.atLeast(2, 'what the modern client listens to, which nobody cut');
	assert.deepEqual(young.inbox.drain().map(describe), ['note://a updated', 'tools list changed']);
	assert.deepEqual(old.inbox.items, [], 'the legacy client has missed them');

	line('', `-- the client comes back, on ${other.name}, and gets exactly what it missed`);
	front.route = (request) => (request.method === 'GET' ? NAMES.indexOf(other.name as 'A' | 'B') : undefined);
	line('front', 'the line is up again');
	restore();
	await front.changed.until(() => front.passed.filter((it) => it.method === 'GET').length > 1, 'the GET of the client');
	const get = front.passed.findLast((it) => it.method === 'GET')!;
	line('front', `GET with Last-Event-ID ${get.lastEventId} is answered by ${NAMES[get.node]}: ${get.status}`);
	await old.inbox.atLeast(3, 'the three missed events');
	line(`node ${holder}`, '-> "live again"');
	await (holder === 'A' ? a : b).control({ do: 'send', to: [old.session], data: ['live again'] });
	await old.inbox.atLeast(4, 'what comes after the replay');
	// tmcp does not wait for what it announces, so two nodes' announcements have no order of their own.
	const heard = old.inbox.items.map(describe);
	assert.deepEqual(heard.slice(0, 3).toSorted(), ['"while you were away"', 'note://a updated', 'tools list changed']);
	assert.deepEqual(heard.slice(3), ['"live again"']);
	assert.ok(get.lastEventId);
	assert.equal(NAMES[get.node], other.name);

	if ('child' in other) {
		old.inbox.drain();
		const left = other === a ? b : a;
		line('', `-- node ${other.name}, which holds the stream, is killed with -9`);
		const again = front.hold();
		const last = front.passed.filter((it) => it.method === 'GET').length;
		front.drop(NAMES.indexOf(other.name as 'A' | 'B'));
		await other.kill();
		line(`node ${other.name}`, `process ${(other as SpawnedNode).child.pid} is gone: ${(other as SpawnedNode).child.signalCode}`);
		line(`node ${left.name}`, '-> "sent while nobody held the stream", to this session alone');
		await left.control({ do: 'send', to: [old.session], data: ['sent while nobody held the stream'] });
		line(`node ${left.name}`, '-> resources changed');
		await left.control({ do: 'changed', what: 'resources' });
		assert.deepEqual(old.inbox.items, []);
		front.route = () => undefined;
		again();
		await front.changed.until(() => front.passed.filter((it) => it.method === 'GET').length > last, 'the GET of the client');
		const resumed = front.passed.findLast((it) => it.method === 'GET')!;
		line('front', `GET with Last-Event-ID ${resumed.lastEventId} is answered by ${NAMES[resumed.node]}: ${resumed.status}`);
		await old.inbox.atLeast(2, 'both missed events');
		line(`node ${left.name}`, '-> "and on it goes"');
		await left.control({ do: 'send', to: [old.session], data: ['and on it goes'] });
		await old.inbox.atLeast(3, 'what comes after the replay');
		assert.deepEqual(old.inbox.items.map(describe), ['"sent while nobody held the stream"', 'resources list changed', '"and on it goes"']);
		assert.equal(await old.call('echo', { text: 'still the same session' }), `${left.name}: still the same session`);
		line('legacy client', `<- ${left.name}: still the same session`);
	}

	await young.client.close();
	await old.terminate();
	await front.close();
	await Promise.all(nodes.map((node) => node.stop()));
	line('', 'all of it happened: nothing lost, nothing doubled, nothing out of order');
}

const name = process.env['BACKEND'] || 'memory';
const asked = BACKENDS[name];
if (!asked) {
	console.error(`BACKEND=${name}: no such backend yet; there is: ${Object.keys(BACKENDS).join(', ')}`);
	process.exit(2);
}
setTimeout(() => {
	console.error(`the demo has not ended within ${DEADLINE_MS / 1000} s`);
	process.exit(1);
}, DEADLINE_MS).unref();
const server = asksForServer(asked) ? await startServer(asked) : undefined;
if (server) line('server', `${server.url}, process ${server.pid}`);
demo(server?.url ?? asked).then(
	async () => {
		await server?.stop();
		process.exit(0);
	},
	(error) => {
		console.error(`the demo failed: ${error.stack ?? error}`);
		process.exit(1);
	},
);
