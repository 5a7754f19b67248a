// How long things take: repeated work, timed after a warm-up, with a turn of the event loop between two runs.
import { setImmediate as turn } from 'node:timers/promises';

const WARM_UP_MS = 500;
const MEASURE_MS = 750;
const LEAST_RUNS = 3;
/** What takes long is not repeated beyond this. */
const LIMIT_MS = 15_000;

/** Times `work` again and again: milliseconds a run. The first run is part of the warm-up, whatever it takes. */
export async function times(work: () => Promise<unknown>, warm: () => void = () => {}): Promise<number[]> {
	const begun = performance.now();
	do {
		await work();
		warm();
		await turn();
	} while (performance.now() - begun < WARM_UP_MS);
	const until = performance.now() + LIMIT_MS;

	const took: number[] = [];
	let sum = 0;
	while (sum < MEASURE_MS || took.length < LEAST_RUNS) {
		if (took.length > 0 && performance.now() > until) break;
		const from = performance.now();
		await work();
		const ms = performance.now() - from;
		took.push(ms);
		sum += ms;
		await turn();
	}
	return took;
}

/** Things a second, when a run does `things`. */
export function perSecond(things: number, took: readonly number[]): number {
	return (things * took.length * 1000) / took.reduce((sum, ms) => sum + ms, 0);
}

/** The value below which `share` of them are. */
export function quantile(values: readonly number[], share: number): number {
	const sorted = values.toSorted((a, b) => a - b);
	return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export function median(values: readonly number[]): number {
	return (quantile(values, 0.5) + quantile(values, 0.5 - 1e-9)) / 2;
}
