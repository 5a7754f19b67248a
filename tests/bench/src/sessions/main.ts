// The registry and the event log: what they do a second with many sessions alive, and what those cost a backend
// that nobody asks for anything. It is the second part of `make bench`; alone: `make bench-sessions`.
//
//     BACKEND=memory           memory, redis, postgres (a server is started)
//     SESSIONS=100000          how many sessions are alive
//
// Writes target/bench-sessions.json; fails if a session or an event was lost.
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Engine } from 'mcp-sessions';
import { startServer } from '../../../support/servers.mjs';
import { eventRows } from './events.ts';
import { loadOf } from './load.ts';
import { registryRows } from './registry.ts';
import { shown, type Row } from './row.ts';

const ROOT = fileURLToPath(new URL('../../../..', import.meta.url));
const ASKED: Record<string, string | undefined> = { memory: undefined, redis: 'redis://', postgres: 'postgresql://' };
/** One access counts in this part of the time after which a session is stale. */
const OPTIONS = { registry: { sweepMs: 60_000 }, retention: { events: 256 } };

const name = process.env['BACKEND'] || 'memory';
if (!(name in ASKED)) throw new Error(`no such backend: ${name}; there are: ${Object.keys(ASKED).join(', ')}`);
const sessions = Number(process.env['SESSIONS'] || 100_000);
if (!Number.isInteger(sessions) || sessions < 64) throw new Error(`SESSIONS: ${process.env['SESSIONS']} is no number over 63`);

const asked = ASKED[name];
const server = asked === undefined ? undefined : await startServer(asked, { durable: true });
const url = server?.url ?? 'memory://bench';
const engine = await Engine.connect(url, OPTIONS);
const rows: Row[] = [];
const add = (row: Row) => {
	rows.push(row);
	console.log(shown(row));
};
try {
	console.log(`registry and event log, ${name}, ${sessions.toLocaleString('en')} sessions`);
	await eventRows(engine, add);
	await registryRows(engine, url, sessions, loadOf(server?.url), add);
} finally {
	await engine.shutdown();
	await server?.stop();
}
const [cpu] = cpus();
console.log(`Node ${process.version}, ${cpus().length} cores (${cpu?.model.trim() || 'unknown'}), one node; ratios over 1: this library is better.`);
await mkdir(join(ROOT, 'target'), { recursive: true });
await writeFile(join(ROOT, 'target/bench-sessions.json'), `${JSON.stringify(rows.map((row) => ({ backend: name, ...row })), undefined, 2)}\n`);
