// One event to each session, one `send` each: what a server with many sessions does all day.
import { Audience } from '../audience.ts';
import { frames, TURNS } from '../frames.ts';
import type { Row } from '../row.ts';
import { perSecond, times } from '../time.ts';

export function roundRobin(sessions: number, aim: number): Row {
	return {
		id: `round-robin-${sessions}`,
		figures: [
			{ name: `round robin to ${sessions.toLocaleString('en')} sessions`, unit: 'events/s', better: 'higher', aim },
		],
		history: true,
		floor: true,
		async run({ streams }) {
			const audience = await Audience.open(streams, sessions);
			const targets = audience.ids.map((id) => [id]);
			const payloads = frames(sessions);
			let turn = 0;
			const round = async () => {
				const read = audience.expect(sessions);
				const now = payloads[turn++ % TURNS]!;
				const sent: (void | Promise<void>)[] = [];
				for (let session = 0; session < sessions; session++) {
					sent.push(streams.send(targets[session], now[session]!));
				}
				await Promise.all(sent);
				await read;
			};
			const took = await times(round, () => audience.trust());
			await audience.finish(turn);
			return [perSecond(sessions, took)];
		},
	};
}
