// `make bench`: this library beside its peers, on the same work, in one run.
//
//     ROWS=round-robin,core    only the rows whose id begins so (`core` is the Rust core alone)
//     ROUNDS=5                 how often each is measured; the median counts
//     BACKEND=memory           where sessions are shared: memory, redis, postgres, cloudflare (a server is started)
//
// Writes target/bench.json and target/bench.md; fails if anything was lost, doubled or out of order.
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backend } from './backends/index.ts';
import { core } from './core.ts';
import { measure } from './measure.ts';
import { json, results, table, type Result } from './result.ts';
import { sharedRows } from './apart/rows.ts';
import type { AnyRow } from './measure.ts';
import { rows } from './rows/index.ts';
import { startServer } from '../../support/servers.mjs';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
/** Rounds stop in time for the core, which takes half a minute, to come out within six minutes. */
const ROUNDS_LIMIT_MS = 270_000;

const say = (text: string) => console.log(text);
const asked = (process.env.ROWS ?? '').split(/[\s,]+/).filter(Boolean);
const rounds = Number(process.env.ROUNDS || 5);
if (!Number.isInteger(rounds) || rounds < 1) throw new Error(`ROUNDS: ${process.env.ROUNDS} is not a number of rounds`);
const chosen = (id: string) => asked.length === 0 || asked.some((it) => id.startsWith(it));
const on = backend(process.env.BACKEND || 'memory');
const all: readonly AnyRow[] = on.rows ?? (on.server ? sharedRows : rows);
const hasCore = !on.server && !on.run;
const known = [...all.map((it) => it.id), ...(hasCore ? ['core'] : [])];
const unknown = asked.filter((it) => !known.some((id) => id.startsWith(it)));
if (unknown.length > 0) throw new Error(`ROWS: no such row: ${unknown.join(', ')}; there are: ${known.join(', ')}`);

const server = on.server && (await startServer(on.server.asked, { durable: true }));
if (server) process.env['BENCH_URL'] = server.url;
const errors: string[] = [];
const measured = await measure(
	on,
	all.filter((it) => chosen(it.id)),
	{ rounds, until: ROUNDS_LIMIT_MS },
	say,
);
// What a peer can't do is told in the table; what this library can't is a fault.
for (const { row, side, error } of measured) if (error && side !== 'peer') errors.push(`${row.id}, ${side}: ${error}`);

await server?.stop();
const figures: Result[] = results(measured);
if (hasCore && chosen('core')) {
	say('the core alone');
	await core(ROOT).then((it) => figures.push(...it), (error: Error) => errors.push(`core: ${error.message}`));
}

const [cpu] = cpus();
const about = `Node ${process.version}, ${cpus().length} cores (${cpu?.model.trim() || 'unknown'}), 512-byte events, median of ${
	Math.max(0, ...measured.map((it) => it.rounds.length))
} rounds`;
await mkdir(join(ROOT, 'target'), { recursive: true });
await writeFile(join(ROOT, 'target/bench.json'), json(figures));
await writeFile(join(ROOT, 'target/bench.md'), `${table(figures)}\n\n${about}.\n`);
say(`\n${table(figures)}\n\n${about}. Ratios over 1: this library is better.`);
for (const error of errors) console.error(`\nFAIL  ${error}`);
process.exit(errors.length > 0 ? 1 : 0);
