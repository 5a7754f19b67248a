// One event at a time, from the call of `send` to the end of the read; each in a turn of the event loop of its own.
import { setImmediate as turn } from 'node:timers/promises';
import { ids, open } from '../audience.ts';
import { frame, FRAME_BYTES, take, takeExactly, TURNS } from '../frames.ts';
import type { Row } from '../row.ts';
import { quantile } from '../time.ts';

const WARM_UP = 10_000;
const EVENTS = 40_000;

/** To one session of `sessions`. */
export function directed(sessions: number): Row {
	const among = sessions === 1 ? '' : ` among ${sessions.toLocaleString('en')} sessions`;
	return {
		id: `directed-${sessions}`,
		figures: [
			{ name: `directed${among}, p50`, unit: 'µs', better: 'lower' },
			{ name: `directed${among}, p99`, unit: 'µs', better: 'lower' },
		],
		history: true,
		floor: true,
		async run({ streams }) {
			const all = ids(sessions);
			const readers = await Promise.all(all.map((id) => open(streams, id)));
			const session = Math.floor(sessions / 2);
			const reader = readers[session]!;
			const target = [all[session]!];
			const payloads = Array.from({ length: TURNS }, (_, turn) => frame(session, turn));
			const took: number[] = [];
			for (let n = 0; n < WARM_UP + EVENTS; n++) {
				await turn();
				const payload = payloads[n % TURNS]!;
				const from = performance.now();
				const read = reader.read();
				const sent = streams.send(target, payload);
				const { value } = await read;
				const us = (performance.now() - from) * 1000;
				await sent;
				if (!value) throw new Error(`the stream ended after ${n} events`);
				const end = (n < TURNS ? takeExactly : take)(value, 0, session, n);
				if (end !== value.length) throw new Error(`${value.length - end} bytes behind a frame of ${FRAME_BYTES}`);
				if (n >= WARM_UP) took.push(us);
			}
			return [quantile(took, 0.5), quantile(took, 0.99)];
		},
	};
}
