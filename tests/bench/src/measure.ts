// Runs rows, side by side, over several rounds.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Backend, Side } from './backend.ts';
import type { SharedRow } from './apart/stage.ts';
import type { Row, Value } from './row.ts';

/** A row of one process, or of two and a server. */
export type AnyRow = Row | SharedRow;

const CHILD = fileURLToPath(new URL('child.ts', import.meta.url));
const ONE_LIMIT_MS = 60_000;
const run = promisify(execFile);

/** What one side of a row came to: the values of each round. */
export interface Measured {
	readonly backend: Backend;
	readonly row: AnyRow;
	readonly side: Side;
	readonly rounds: (readonly Value[])[];
	/** Why it was given up. */
	error?: string;
}

export interface Bounds {
	readonly rounds: number;
	/** No round is begun that would end later than this, by `performance.now()`. */
	readonly until: number;
}

/** Every row by every side; the order changes with the round, so that nobody always goes first. */
export async function measure(backend: Backend, rows: readonly AnyRow[], bounds: Bounds, say: (text: string) => void): Promise<Measured[]> {
	const all = rows.flatMap((row) => sides(row, backend).map((side): Measured => ({ backend, row, side, rounds: [] })));
	for (let round = 0, took = 0; round < bounds.rounds; round++) {
		const begun = performance.now();
		if (begun + took > bounds.until) {
			say(`there is no time for round ${round + 1}`);
			break;
		}
		say(`round ${round + 1} of ${bounds.rounds} on ${backend.name}`);
		for (const row of rows) {
			const some = all.filter((it) => it.row === row && it.error === undefined);
			for (const one of round % 2 ? some.reverse() : some) await once(one);
		}
		took = performance.now() - begun;
	}
	return all;
}

function sides(row: AnyRow, on: Backend): Side[] {
	const all: Side[] = ['ours', 'peer'];
	if (row.history) all.push('live');
	if (on.relaxes && 'relaxed' in row && row.relaxed) all.push('relaxed');
	if ('floor' in row && row.floor && !on.run) all.push('floor');
	return all;
}

async function once(one: Measured): Promise<void> {
	const args = ['--expose-gc', '--import', 'tsx', CHILD, one.backend.name, one.side, one.row.id];
	try {
		const { stdout } = await run(process.execPath, args, { timeout: ONE_LIMIT_MS });
		one.rounds.push(JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Value[]);
	} catch (error) {
		const { killed, stderr } = error as { killed?: boolean; stderr?: string };
		one.error = killed ? `not done after ${ONE_LIMIT_MS / 1000} s: too slow, or not all that was sent has arrived` : stderr?.trim() || String(error);
	}
}
