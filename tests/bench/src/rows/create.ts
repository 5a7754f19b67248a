// Opening the streams of many sessions, until the last is ready to receive.
import { ids, open, type Reader } from '../audience.ts';
import { ALL, frame, takeExactly } from '../frames.ts';
import type { Managers, Row } from '../row.ts';
import { median } from '../time.ts';

const RUNS = 3;

export const create = creating(10_000);

export function creating(sessions: number): Row {
	return {
		id: 'create',
		figures: [{ name: `create ${sessions.toLocaleString('en')} sessions`, unit: 'ms', better: 'lower' }],
		history: true,
		floor: true,
		async run({ streams }) {
			await once(streams, sessions);
			const took: number[] = [];
			for (let run = 0; run < RUNS; run++) took.push(await once(streams, sessions));
			return [median(took)];
		},
	};
}

async function once(streams: Managers['streams'], sessions: number): Promise<number> {
	const all = ids(sessions);
	globalThis.gc?.();

	const from = performance.now();
	const readers = await Promise.all(all.map((id) => open(streams, id)));
	const ready = await streams.has(all[sessions - 1]!);
	const took = performance.now() - from;

	if (!ready) throw new Error('the last session is not there');
	await streams.send(undefined, frame(ALL, 0));
	await Promise.all(readers.map(readOne));
	for (const id of all) await streams.delete(id);
	return took;
}

/** What is ready to receive receives. */
async function readOne(reader: Reader, session: number): Promise<void> {
	const { value } = await reader.read();
	if (!value) throw new Error(`the stream of session ${session} ended`);
	if (takeExactly(value, 0, session, 0) !== value.length) throw new Error(`session ${session} got more than was sent`);
}
