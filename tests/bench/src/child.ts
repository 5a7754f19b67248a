// One measurement, in a process of its own, so that heaps and what the compiler has learnt don't mix:
//
//     node --expose-gc --import tsx src/child.ts BACKEND SIDE ROW          (add --cpu-prof to see where time goes)
import { backend } from './backends/index.ts';
import type { Side } from './backend.ts';
import { floor } from './floor.ts';
import { sharedRows } from './apart/rows.ts';
import { setStage, type SharedRow } from './apart/stage.ts';
import type { AnyRow } from './measure.ts';
import type { Row } from './row.ts';
import { rows } from './rows/index.ts';

const [name = '', side = '', id = ''] = process.argv.slice(2);
const it = backend(name);
const among: readonly AnyRow[] = it.rows ?? (it.server ? sharedRows : rows);
const row = among.find((it) => it.id === id);
if (!row) throw new Error(`no such row: ${id}; there are: ${among.map((it) => it.id).join(', ')}`);
let ended = false;
// Nothing is left to do, and the row still waits for something.
process.once('exit', () => ended || console.error('not all that was sent has arrived'));
const work = async () => {
	if (it.run) return it.run(side as Side, id);
	if (it.server) return (row as SharedRow).run(await setStage(it, side as Side, process.env['BENCH_URL'] ?? ''));
	return (row as Row).run(side === 'floor' ? floor() : await it.managers(side as Side));
};
// Waiting for what another process sends is nothing that keeps this one alive.
if (it.server) setInterval(() => {}, 1_000);
const values = await work().finally(() => {
	ended = true;
});
process.stdout.write(`${JSON.stringify(values)}\n`, () => process.exit(0));
