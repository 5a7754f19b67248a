// One notification to every per-request subscription (MCP 2026-07-28) that asked for it.
import type { Row } from '../row.ts';
import { median, times } from '../time.ts';

const SUBSCRIPTIONS = 1_000;
const URI = 'file:///notes/today.md';

export const notify: Row = {
	id: 'notify',
	figures: [{ name: 'one notification to 1,000 subscriptions', unit: 'ms', better: 'lower' }],
	history: false,
	async run({ subscriptions }) {
		const seen = new Array<number>(SUBSCRIPTIONS).fill(0);
		let left = 0;
		let done = () => {};
		let failed: (error: unknown) => void = () => {};
		const got = (n: number, params: Record<string, unknown> | undefined) => {
			const turn = (params?._meta as { turn?: unknown } | undefined)?.turn;
			if (turn !== seen[n] || params?.uri !== URI) failed(new Error(`subscription ${n} got ${String(turn)} in place of ${seen[n]}`));
			seen[n]! += 1;
			if (--left === 0) done();
		};
		for (let n = 0; n < SUBSCRIPTIONS; n++) {
			const created = await subscriptions.create(
				{ id: n, origin: 'bench', filters: { resourceSubscriptions: [URI] } },
				{
					acknowledge: () => {},
					send: (notification) => got(n, notification.params as Record<string, unknown> | undefined),
					close: () => {},
				},
			);
			if (!created) throw new Error(`subscription ${n} was not created`);
		}
		let turn = 0;
		const took = await times(async () => {
			left = SUBSCRIPTIONS;
			const read = new Promise<void>((resolve, reject) => {
				done = resolve;
				failed = reject;
			});
			const params = { uri: URI, _meta: { turn: turn++ } };
			await subscriptions.send({ jsonrpc: '2.0', method: 'notifications/resources/updated', params });
			await read;
		});
		if (seen.some((it) => it !== turn)) throw new Error('not every subscription got every notification once');
		return [median(took)];
	},
};
