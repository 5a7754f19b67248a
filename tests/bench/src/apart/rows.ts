// The rows of a shared backend: the sender in another process than the holder of the streams.
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { Audience, ids, open } from '../audience.ts';
import { ALL, takeExactly } from '../frames.ts';
import { infoReads, infoSetAndGet } from '../rows/info.ts';
import { median, perSecond, quantile, times } from '../time.ts';
import type { Value } from '../row.ts';
import { nowUs, numbered, URI } from './sender.ts';
import type { SharedRow, Stage } from './stage.ts';

async function audience(stage: Stage, sessions: number): Promise<Audience> {
	const made = await Audience.open(stage.managers.streams, sessions);
	await stage.ready(sessions);
	return made;
}

const directed: SharedRow = {
	id: 'directed',
	figures: [
		{ name: 'directed, idle, p50', unit: 'µs', better: 'lower', aim: { redis: 0.71, postgres: 0.5 }, aimLive: { redis: 0.91, postgres: 0.5 } },
		{ name: 'directed, idle, p99', unit: 'µs', better: 'lower', aim: 0.5 },
	],
	history: true,
	relaxed: true,
	async run(stage) {
		const [id] = ids(1) as [string];
		const reader = await open(stage.managers.streams, id);
		await stage.ready(1);
		const took: number[] = [];
		const rounds = [200, 1_000];
		let seen = 0;
		for (const count of rounds) {
			const arrived: number[] = [];
			const sent = stage.send({ do: 'paced', id, session: 0, from: seen, count, everyMs: 1 });
			while (arrived.length < count) {
				const { value } = await reader.read();
				if (!value) throw new Error('the stream ended');
				const at = nowUs();
				for (let byte = 0; byte < value.length; arrived.push(at)) byte = takeExactly(value, byte, 0, seen++);
			}
			const times = await sent;
			took.splice(0, took.length, ...arrived.map((at, n) => at - times[n]!));
		}
		return [quantile(took, 0.5), quantile(took, 0.99)];
	},
};

const roundRobin: SharedRow = {
	id: 'round-robin',
	figures: [
		{ name: 'round robin to 1,000 sessions', unit: 'events/s', better: 'higher', aim: { redis: 1, postgres: 3 }, aimLive: { redis: 1.5, postgres: 3 } },
	],
	history: true,
	async run(stage) {
		const all = await audience(stage, 1_000);
		await stage.send({ do: 'ids', ids: all.ids });
		let turns = 0;
		const took = await times(
			async () => {
				const read = all.expect(1_000);
				await stage.send({ do: 'round', turn: turns++ });
				await read;
			},
			() => all.trust(),
		);
		await all.finish(turns);
		return [perSecond(1_000, took)];
	},
};

function broadcast(sessions: number): SharedRow {
	const name = sessions.toLocaleString('en');
	return {
		id: `broadcast-${sessions}`,
		figures: [{ name: `broadcast to ${name}, until the last`, unit: 'ms', better: 'lower', aim: sessions > 1_000 ? { redis: 10, postgres: 20 } : 1 }],
		history: true,
		async run(stage) {
			const all = await audience(stage, sessions);
			return [await broadcasts(stage, all, sessions)];
		},
	};
}

/** Longer than this nobody waits for a broadcast: not all peers' sessions are still there after ten seconds. */
const BROADCAST_LIMIT_MS = 10_000;

async function broadcasts(stage: Stage, all: Audience, sessions: number): Promise<Value> {
	let turns = 0;
	try {
		const took = await times(
			async () => {
				const read = all.expect(sessions);
				await stage.send({ do: 'all', turn: turns++ });
				const missing = await all.within(BROADCAST_LIMIT_MS, read);
				if (missing > 0) throw new Late(missing, sessions);
			},
			() => all.trust(),
		);
		await all.finish(turns);
		return median(took);
	} catch (error) {
		if (stage.side !== 'peer' || !(error instanceof Late)) throw error;
		return { atLeast: BROADCAST_LIMIT_MS, why: error.message };
	}
}

class Late extends Error {
	constructor(missing: number, sessions: number) {
		super(`${missing} of ${sessions} sessions had not got a broadcast after ${BROADCAST_LIMIT_MS / 1000} s`);
	}
}

/** Creating is not repeated beyond this. */
const CREATE_LIMIT_MS = 10_000;

const create: SharedRow = {
	id: 'create',
	figures: [{ name: 'create 1,000, until they can receive', unit: 'ms', better: 'lower', aim: { postgres: 5 } }],
	history: true,
	async run(stage) {
		const took: number[] = [];
		const begun = performance.now();
		for (let run = 0; run < 3 && (run === 0 || performance.now() - begun < CREATE_LIMIT_MS); run++) {
			const from = performance.now();
			const readers = await Promise.all(ids(1_000).map((id) => open(stage.managers.streams, id)));
			await stage.ready((run + 1) * 1_000);
			took.push(performance.now() - from);
			await stage.send({ do: 'all', turn: 0 });
			for (const reader of readers) {
				const { value } = await reader.read();
				if (!value || takeExactly(value, 0, ALL, 0) !== value.length) throw new Error('not what was sent');
			}
		}
		return [median(took)];
	},
};

const size: SharedRow = {
	id: 'size',
	figures: [
		{ name: 'process memory a session (rss)', unit: 'B', better: 'lower' },
		{ name: 'server memory a session', unit: 'B', better: 'lower' },
		{ name: 'keys or rows a session', unit: '', better: 'lower' },
	],
	history: true,
	async run(stage) {
		const { streams } = stage.managers;
		const sessions = 2_000;
		for (const id of ids(100)) await open(streams, id);
		await stage.ready(100);
		const [process0, server0] = [await settled(), await stage.size()];
		const readers = await Promise.all(ids(sessions).map((id) => open(streams, id)));
		const reads = readers.map((reader) => reader.read());
		await stage.ready(sessions + 100);
		const [process1, server1] = [await settled(), await stage.size()];
		if (reads.length !== sessions) throw new Error('the readers are gone');
		const a = (to: number, from: number) => (to - from) / sessions;
		return [a(process1, process0), a(server1.bytes, server0.bytes), a(server1.entries, server0.entries)];
	},
};

async function settled(): Promise<number> {
	for (let i = 0; i < 5; i++) {
		globalThis.gc?.();
		await turn();
	}
	return process.memoryUsage().rss;
}

const setGet: SharedRow = {
	...infoSetAndGet,
	figures: infoSetAndGet.figures.map((it) => ({ ...it, aim: { redis: 1.3, postgres: 5 } })),
	run: ({ managers }) => infoSetAndGet.run(managers),
};

const reads: SharedRow = {
	...infoReads,
	figures: infoReads.figures.map((it) => ({ ...it, aim: { redis: 10, postgres: 20 } })),
	run: ({ managers }) => infoReads.run(managers),
};

const cluttered: SharedRow = {
	id: 'cluttered',
	figures: [
		{ name: 'info.delete with 100k unrelated keys', unit: 'ms', better: 'lower', aim: { redis: 500 } },
		{ name: 'broadcast to 100 with 100k unrelated keys', unit: 'ms', better: 'lower', aim: 10 },
	],
	history: false,
	async run(stage) {
		const { info } = stage.managers;
		await stage.clutter(100_000);
		const all = await audience(stage, 100);
		const told = await broadcasts(stage, all, 100);
		const took: number[] = [];
		for (const id of ids(5)) {
			await info.setClientInfo(id, { name: 'a client', version: '1' });
			await info.setLogLevel(id, 'warning');
			await info.addSubscription(id, URI);
			const from = performance.now();
			await info.delete(id);
			took.push(performance.now() - from);
		}
		return [median(took), told];
	},
};

const subscription: SharedRow = {
	id: 'subscription',
	figures: [
		{ name: 'subscription, idle, p50', unit: 'µs', better: 'lower' },
		{ name: 'subscription, 64 in flight', unit: 'notifications/s', better: 'higher', aim: { postgres: 3 } },
	],
	history: false,
	async run({ managers: { subscriptions }, send }) {
		const arrived: number[] = [];
		let [left, done] = [0, () => {}];
		let failed: (error: unknown) => void = () => {};
		const created = await subscriptions.create(
			{ id: 1, origin: 'bench', filters: { resourceSubscriptions: [URI] } },
			{
				acknowledge: () => {},
				send: (notification) => {
					const n = (notification.params as ReturnType<typeof numbered>['params'])._meta.turn;
					arrived[n] = nowUs();
					if (--left === 0) done();
				},
				close: (reason) => failed(new Error(`the subscription ended: ${reason}`)),
			},
		);
		if (!created) throw new Error('the subscription was not created');
		await sleep(100);
		const expect = (count: number) => {
			left = count;
			return new Promise<void>((resolve, reject) => {
				done = resolve;
				failed = reject;
			});
		};
		let from = 0;
		const paced = async (count: number) => {
			const all = expect(count);
			const begun = from;
			from += count;
			const sent = await send({ do: 'notify', from: begun, count, everyMs: 1, inFlight: 1 });
			await all;
			return sent.map((at, n) => arrived[begun + n]! - at);
		};
		await paced(100);
		const latencies = await paced(500);
		const count = 5_000;
		const took = await times(async () => {
			const all = expect(count);
			const begun = from;
			from += count;
			await send({ do: 'notify', from: begun, count, everyMs: 0, inFlight: 64 });
			await all;
		});
		if (arrived.filter((it) => it !== undefined).length !== from) throw new Error('not every notification came');
		return [quantile(latencies, 0.5), perSecond(count, took)];
	},
};

export const sharedRows: readonly SharedRow[] = [
	directed,
	roundRobin,
	broadcast(1_000),
	broadcast(5_000),
	create,
	size,
	setGet,
	reads,
	cluttered,
	subscription,
];

