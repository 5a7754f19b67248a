// One measurement, in a process of its own, so that heaps and what the compiler has learnt don't mix:
//
//     node --expose-gc --import tsx src/child.ts BACKEND SIDE ROW          (add --cpu-prof to see where time goes)
import { backend } from './backends/index.ts';
import type { Side } from './backend.ts';
import { rows } from './rows/index.ts';

const [name = '', side = '', id = ''] = process.argv.slice(2);
const row = rows.find((it) => it.id === id);
if (!row) throw new Error(`no such row: ${id}; there are: ${rows.map((it) => it.id).join(', ')}`);
let ended = false;
// Nothing is left to do, and the row still waits for something.
process.once('exit', () => ended || console.error('not all that was sent has arrived'));
const managers = await backend(name).managers(side as Side);
const values = await row.run(managers).finally(() => {
	ended = true;
});
process.stdout.write(`${JSON.stringify(values)}\n`, () => process.exit(0));
