// What a Worker does, as often as it can within a request's patience.
import { ids, open } from '../audience.ts';
import { frame, takeExactly } from '../frames.ts';
import type { Managers, Row } from '../row.ts';
import { broadcast } from '../rows/broadcast.ts';
import { creating } from '../rows/create.ts';
import { infoReads } from '../rows/info.ts';
import { notify } from '../rows/notify.ts';
import { roundRobin } from '../rows/round-robin.ts';

/** A Worker's clock stands still between two messages, and counts whole milliseconds. */
const EVENTS = 1_000;

/** One event after the other, from the call of `send` to the end of the read. */
const directed: Row = {
	id: 'directed',
	figures: [{ name: 'directed, mean', unit: 'µs', better: 'lower' }],
	history: true,
	async run({ streams }) {
		const [id] = ids(1) as [string];
		const reader = await open(streams, id);
		let from = 0;
		for (let n = 0; n < 2 * EVENTS; n++) {
			if (n === EVENTS) from = performance.now();
			const read = reader.read();
			await streams.send([id], frame(0, n));
			const { value } = await read;
			if (!value || takeExactly(value, 0, 0, n) !== value.length) throw new Error(`event ${n} is not what came`);
		}
		return [((performance.now() - from) * 1_000) / EVENTS];
	},
};

export const workerRows: readonly Row[] = [
	roundRobin(1_000, 3),
	broadcast(1_000, 3),
	directed,
	creating(1_000),
	// A set and a get beside each other has no row: the peer does not read what it has just set.
	{
		...infoReads,
		figures: infoReads.figures.map((it) => ({ ...it, aim: 1 })),
		run: (managers) => infoReads.run({ ...managers, info: settled(managers.info) }),
	},
	notify,
];

/** Waits until what is set can be read: the peer sets behind its caller's back. */
function settled(info: Managers['info']): Managers['info'] {
	const until = async (read: () => Promise<unknown>) => {
		while (!(await read().catch(() => undefined))) await new Promise((wake) => setTimeout(wake, 1));
	};
	const waiting = {
		setClientInfo: async (id: string, it: Parameters<typeof info.setClientInfo>[1]) => {
			await info.setClientInfo(id, it);
			await until(() => info.getClientInfo(id));
		},
		setClientCapabilities: async (id: string, it: Parameters<typeof info.setClientCapabilities>[1]) => {
			await info.setClientCapabilities(id, it);
			await until(() => info.getClientCapabilities(id));
		},
	};
	return new Proxy(info, {
		get: (_, name) => {
			const own = (waiting as Record<string | symbol, unknown>)[name] ?? (info as unknown as Record<string | symbol, unknown>)[name];
			return typeof own === 'function' ? own.bind(info) : own;
		},
	});
}
