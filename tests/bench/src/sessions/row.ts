// One figure, and the work that gives it.
import { quantile } from '../time.ts';

export interface Row {
	name: string;
	value: number;
	unit: string;
	/** Microseconds, of single calls. */
	p50?: number;
	p99?: number;
	/** Another's figure for the same work, and who it is. */
	peer?: number;
	peerName?: string;
	note?: string;
}

/** Calls under way at once. */
export const AT_ONCE = 64;
const LONGEST_MS = 10_000;

/** Calls `work` for number after number, `AT_ONCE` at a time; stops early, and says so, when it takes long. */
export async function row(name: string, calls: number, work: (n: number) => Promise<unknown>, longestMs = LONGEST_MS): Promise<Row> {
	const took: number[] = [];
	let next = 0;
	const from = performance.now();
	const worker = async () => {
		while (next < calls && performance.now() - from < longestMs) {
			const begun = performance.now();
			await work(next++);
			took.push(performance.now() - begun);
		}
	};
	await Promise.all(Array.from({ length: Math.min(AT_ONCE, calls) }, worker));
	const seconds = (performance.now() - from) / 1000;
	const early = took.length < calls ? { note: `stopped after ${took.length} of ${calls}` } : {};
	return { name, value: took.length / seconds, unit: '/s', p50: quantile(took, 0.5) * 1000, p99: quantile(took, 0.99) * 1000, ...early };
}

export function shown({ name, value, unit, p50, p99, peer, peerName, note }: Row): string {
	const figure = (number: number) => Number(number.toPrecision(3)).toLocaleString('en', { maximumFractionDigits: 3 });
	const times = p50 === undefined ? '' : `p50 ${figure(p50)} µs, p99 ${figure(p99!)} µs`;
	const ratio = peer === undefined ? '' : `${peerName}: ${figure(peer)} ${unit}, ${figure(value / peer)}×`;
	const more = [times, ratio, note].filter(Boolean).join('; ');
	return `  ${name.padEnd(46)} ${`${figure(value)} ${unit}`.padStart(16)}   ${more}`;
}
