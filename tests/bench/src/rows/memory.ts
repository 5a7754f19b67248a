// What an idle session with an open stream and a waiting reader costs the process.
import { setImmediate as turn } from 'node:timers/promises';
import { ids, open } from '../audience.ts';
import type { Row } from '../row.ts';

const SESSIONS = 10_000;
const WARM_UP = 200;

export const memory: Row = {
	id: 'memory',
	figures: [
		{ name: 'process memory a session (rss)', unit: 'B', better: 'lower' },
		{ name: 'JavaScript memory a session (heap, external)', unit: 'B', better: 'lower' },
	],
	history: true,
	floor: true,
	async run({ streams }) {
		for (const id of ids(WARM_UP)) {
			await open(streams, id);
			await streams.delete(id);
		}
		const all = ids(SESSIONS);
		const waiting = new Array<unknown>(SESSIONS).fill(undefined);
		const before = await settled();
		for (let session = 0; session < SESSIONS; session++) {
			const reader = await open(streams, all[session]!);
			waiting[session] = reader.read();
		}
		const after = await settled();
		if (!(await streams.has(all[SESSIONS - 1]!))) throw new Error('the last session is not there');
		if (waiting.length !== SESSIONS) throw new Error('the readers are gone');
		const js = (it: NodeJS.MemoryUsage) => it.heapUsed + it.external;
		return [(after.rss - before.rss) / SESSIONS, (js(after) - js(before)) / SESSIONS];
	},
};

async function settled(): Promise<NodeJS.MemoryUsage> {
	if (!globalThis.gc) throw new Error('needs node --expose-gc');
	for (let i = 0; i < 5; i++) {
		globalThis.gc();
		await turn();
	}
	return process.memoryUsage();
}
