// Who sends: a process of its own, told over IPC what to send, and when.
//
//     node --import tsx src/apart/sender.ts BACKEND SIDE URL
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { backend } from '../backends/index.ts';
import type { Side } from '../backend.ts';
import { ALL, flat, frame, frames, TURNS } from '../frames.ts';

export type Order =
	/** Whom rounds go to. */
	| { do: 'ids'; ids: readonly string[] }
	| { do: 'round'; turn: number }
	| { do: 'all'; turn: number }
	| { do: 'paced'; id: string; session: number; from: number; count: number; everyMs: number }
	| { do: 'notify'; from: number; count: number; everyMs: number; inFlight: number };

/** Now, in microseconds of a clock that all processes of the machine share. */
export const nowUs = (): number => Number(process.hrtime.bigint()) / 1000;

export const URI = 'file:///notes/today.md';
export const numbered = (n: number) => ({
	jsonrpc: '2.0' as const,
	method: 'notifications/resources/updated' as const,
	params: { uri: URI, _meta: { turn: n } },
});

if (process.send) await serve();

async function serve(): Promise<void> {
	const [name = '', side = '', url = ''] = process.argv.slice(2);
	const it = backend(name);
	const { streams, subscriptions } = await it.managers(side as Side, url);
	const payload = (text: string) => (side === 'peer' && it.quoted ? it.quoted(text) : text);
	await streams.has('warm-up');
	let [targets, rounds]: [string[][], string[][]] = [[], []];

	const obey = async (order: Order): Promise<number[]> => {
		const times: number[] = [];
		switch (order.do) {
			case 'ids':
				targets = order.ids.map((id) => [flat(id)]);
				rounds = frames(order.ids.length).map((all) => all.map((it) => flat(payload(it))));
				break;
			case 'round': {
				const now = rounds[order.turn % TURNS]!;
				const sent: (void | Promise<void>)[] = [];
				for (let n = 0; n < targets.length; n++) sent.push(streams.send(targets[n], now[n]!));
				await Promise.all(sent);
				break;
			}
			case 'all':
				await streams.send(undefined, payload(frame(ALL, order.turn)));
				break;
			case 'paced':
				for (let n = order.from; n < order.from + order.count; n++) {
					await sleep(order.everyMs);
					times.push(nowUs());
					await streams.send([order.id], payload(frame(order.session, n)));
				}
				break;
			case 'notify': {
				let next = order.from;
				const worker = async () => {
					while (next < order.from + order.count) {
						const n = next++;
						if (order.everyMs > 0) await sleep(order.everyMs);
						times.push(nowUs());
						await subscriptions.send(numbered(n));
					}
				};
				await Promise.all(Array.from({ length: order.inFlight }, worker));
				break;
			}
		}
		return times;
	};
	let before: Promise<unknown> = turn();
	process.on('message', (order: Order) => {
		before = before.then(async () => process.send!(await obey(order)));
		before.catch((error) => {
			console.error(error);
			process.exit(1);
		});
	});
	process.on('disconnect', () => process.exit(0));
	process.send!('ready');
}
