// The registry with many sessions alive.
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Engine } from 'mcp-sessions';
import type { Load } from './load.ts';
import { row, type Row } from './row.ts';

const CALLS = 100_000;
const CREATE_LIMIT_MS = 60_000;
const CLOSE_LIMIT_MS = 60_000;
const IDLE_MS = 12_000;
const OWNER = 'token-of-ada';
/** The engine's defaults: accesses are noted once in a 20th of the time after which a session is stale. */
const TOUCH_MS = 1_800_000 / 20;

export async function registryRows(engine: Engine, url: string, sessions: number, load: Load | undefined, add: (row: Row) => void): Promise<void> {
	const { registry } = engine;
	const wanted = Array.from({ length: sessions }, () => randomBytes(32).toString('base64url'));
	const create = await row('create', sessions, (n) => registry.create({ id: wanted[n]!, owner: OWNER }), CREATE_LIMIT_MS);
	add(create);
	const { total } = await registry.stats();
	const ids = wanted.slice(0, total);
	const id = (n: number) => ids[n % ids.length]!;
	add({ name: 'alive', value: total, unit: 'sessions' });

	add(await row('get (no write)', CALLS, async (n) => there(await registry.get(id(n), { owner: OWNER }))));
	await touches(url, id, add);
	add(await row('begin and end a request', CALLS, async (n) => (await registry.beginRequest(id(n))).end()));
	add(await row('stats', 50, () => registry.stats()));
	add(await row('list a page of 100', 200, () => registry.list()));
	add(await row('sweep (nothing is stale)', 20, () => registry.sweepStale()));
	await alive(engine, ids.length, load, add);
	add(await row('close', ids.length, async (n) => there(await registry.close(id(n))), CLOSE_LIMIT_MS));
}

/** A node for which every access is worth a write. */
async function touches(url: string, id: (n: number) => string, add: (row: Row) => void): Promise<void> {
	const eager = await Engine.connect(url, { registry: { staleMs: 20, sweepMs: 3_600_000 } });
	add(await row('get that touches (one write each)', CALLS, async (n) => there(await eager.registry.get(id(n), { owner: OWNER }))));
	await eager.shutdown();
}

/** What sessions cost that are alive and do nothing, and the most they cost however much they do. */
async function alive(engine: Engine, count: number, load: Load | undefined, add: (row: Row) => void): Promise<void> {
	if (load !== undefined) {
		const [begun, from] = [await load(), performance.now()];
		await sleep(IDLE_MS);
		const seconds = (performance.now() - from) / 1000;
		add({
			name: 'alive and idle: the whole load of the backend',
			value: ((await load()) - begun) / seconds,
			unit: 'operations/s',
			note: 'the lease of the node, and asking for this',
		});
	}
	add({
		name: 'alive and busy: touches at the most',
		value: count / (TOUCH_MS / 1000),
		unit: 'writes/s',
		note: `one a session each ${TOUCH_MS / 1000} s, however often it is accessed`,
	});
	if ((await engine.registry.stats()).total !== count) throw new Error('a session is gone');
}

function there(found: unknown): void {
	if (!found) throw new Error('a session is gone');
}
