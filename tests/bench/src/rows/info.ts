// Session info: what `initialize` writes and every POST reads.
import { ids } from '../audience.ts';
import type { Managers, Row } from '../row.ts';
import { perSecond, times } from '../time.ts';

type Info = Managers['info'];

const SESSIONS = 1_000;
const IN_FLIGHT = 64;
const BATCHES = 16;
const AIM = 0.3;

/** Does `one` for session after session, so many at a time. */
async function inFlight(sessions: readonly string[], one: (id: string, n: number) => Promise<void>): Promise<void> {
	let next = 0;
	for (let batch = 0; batch < BATCHES; batch++) {
		const pending: Promise<void>[] = [];
		for (let i = 0; i < IN_FLIGHT; i++, next++) pending.push(one(sessions[next % SESSIONS]!, next));
		await Promise.all(pending);
	}
}

/** A set is not awaited: tmcp's transports don't. */
async function setAndGet(info: Info, id: string, version: string): Promise<void> {
	void info.setClientInfo(id, { name: 'a client', version });
	const got = await info.getClientInfo(id);
	if (got?.version !== version || got.name !== 'a client') throw new Error(`set ${version}, got ${JSON.stringify(got)}`);
}

export const infoSetAndGet: Row = {
	id: 'info-set-get',
	figures: [{ name: 'info set and get, 64 in flight', unit: 'pairs/s', better: 'higher', aim: AIM }],
	history: false,
	async run({ info }) {
		const sessions = ids(SESSIONS);
		let turn = 0;
		const took = await times(async () => {
			const version = String(turn++);
			await inFlight(sessions, (id, n) => setAndGet(info, id, `${version}.${n}`));
		});
		return [perSecond(IN_FLIGHT * BATCHES, took)];
	},
};

/** As tmcp's transport reads, one after the other. */
async function readThree(info: Info, id: string): Promise<void> {
	const capabilities = await info.getClientCapabilities(id).catch(() => undefined);
	const client = await info.getClientInfo(id).catch(() => undefined);
	const level = await info.getLogLevel(id).catch(() => undefined);
	// Of tmcp's managers on a server, `getLogLevel` fails after every `setLogLevel`: the read is made all the same.
	if (client?.version !== id || (level ?? 'warning') !== 'warning' || !capabilities?.sampling) throw new Error(`the info of ${id} is wrong`);
}

export const infoReads: Row = {
	id: 'info-reads',
	figures: [{ name: 'info, the three reads of a POST, 64 in flight', unit: 'POSTs/s', better: 'higher', aim: AIM }],
	history: false,
	async run({ info }) {
		const sessions = ids(SESSIONS);
		for (const id of sessions) {
			await info.setClientInfo(id, { name: 'a client', version: id });
			await info.setClientCapabilities(id, { sampling: {}, elicitation: {} });
			await info.setLogLevel(id, 'warning');
		}
		const took = await times(() => inFlight(sessions, (id) => readThree(info, id)));
		return [perSecond(IN_FLIGHT * BATCHES, took)];
	},
};
