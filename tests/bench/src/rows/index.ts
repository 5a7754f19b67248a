import type { Row } from '../row.ts';
import { broadcast } from './broadcast.ts';
import { create } from './create.ts';
import { directed } from './directed.ts';
import { infoReads, infoSetAndGet } from './info.ts';
import { memory } from './memory.ts';
import { notify } from './notify.ts';
import { roundRobin } from './round-robin.ts';

export const rows: readonly Row[] = [
	roundRobin(1_000, 8),
	roundRobin(5_000, 30),
	broadcast(1_000, 1.5),
	broadcast(5_000, 1.5),
	directed(1),
	directed(1_000),
	create,
	memory,
	infoSetAndGet,
	infoReads,
	notify,
];
