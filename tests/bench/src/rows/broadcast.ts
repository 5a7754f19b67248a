// One event to all sessions, until the last of them has read it.
import { Audience } from '../audience.ts';
import { ALL, frame, TURNS } from '../frames.ts';
import type { Row } from '../row.ts';
import { median, times } from '../time.ts';

export function broadcast(sessions: number, aim: number): Row {
	return {
		id: `broadcast-${sessions}`,
		figures: [{ name: `broadcast to ${sessions.toLocaleString('en')} sessions`, unit: 'ms', better: 'lower', aim }],
		history: true,
		floor: true,
		async run({ streams }) {
			const audience = await Audience.open(streams, sessions);
			const payloads = Array.from({ length: TURNS }, (_, turn) => frame(ALL, turn));
			let turn = 0;
			const took = await times(
				async () => {
					const read = audience.expect(sessions);
					await streams.send(undefined, payloads[turn++ % TURNS]!);
					await read;
				},
				() => audience.trust(),
			);
			await audience.finish(turn);
			return [median(took)];
		},
	};
}
