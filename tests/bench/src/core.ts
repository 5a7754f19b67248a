// The core alone, in Rust: criterion's figures, against the targets of the design.
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Better } from './row.ts';
import type { Result } from './result.ts';

const run = promisify(execFile);

interface Estimates {
	readonly median: { readonly point_estimate: number };
}

/** Builds and runs the core's bench. */
export async function core(root: string): Promise<Result[]> {
	const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
	const args = ['bench', '-p', 'mcp-sessions', '--bench', 'engine', '--', 'directed|broadcast'];
	const { stdout } = await run('cargo', args, { cwd: root, maxBuffer: 1 << 26 }).catch((error: { stderr?: string }) => {
		throw new Error(`cargo ${args.join(' ')}:\n${error.stderr || String(error)}`);
	});
	/** Nanoseconds a run. */
	const median = async (bench: string): Promise<number> => {
		const file = join(target, 'criterion', bench, 'new', 'estimates.json');
		return (JSON.parse(await readFile(file, 'utf8')) as Estimates).median.point_estimate;
	};
	const p99 = /directed latency: p50 \d+ ns, p99 (\d+) ns/.exec(stdout)?.[1];
	if (p99 === undefined) throw new Error(`the core's bench said nothing of latency:\n${stdout}`);
	const perSecond = async (bench: string, events: number) => (events * 1e9) / (await median(bench));
	return [
		against('core, directed', 'events/s', 'higher', await perSecond('directed/history', 1), 1_000_000),
		against('core, directed, history off', 'events/s', 'higher', await perSecond('directed/live-only', 1), 1_000_000),
		against('core, directed, p99', 'µs', 'lower', Number(p99) / 1000, 20),
		against('core, broadcast to 1,000 streams', 'deliveries/s', 'higher', await perSecond('broadcast/1000 streams', 1_000), 2_000_000),
		against('core, broadcast to 5,000 streams', 'deliveries/s', 'higher', await perSecond('broadcast/5000 streams', 5_000), 2_000_000),
	];
}

function against(name: string, unit: string, better: Better, ours: number, target: number): Result {
	return { name, backend: 'memory', unit, better, ours: [ours], peer: [target], peerName: 'target', aim: 1 };
}
