// Workers in a real workerd, by miniflare: bundled as wrangler does it, with storage on disk.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { Miniflare } from 'miniflare';
import type { WorkerOptions } from 'mcp-sessions/cloudflare';
import type { NodeOptions, RunningNode } from './node.ts';
import { tell } from './node.ts';

/** What a Worker of src/worker/node.ts is told when it starts. */
export interface Settings {
	name: string;
	engine?: WorkerOptions;
	resumable?: NodeOptions['resumable'];
}

interface Module {
	type: 'ESModule' | 'CompiledWasm';
	path: string;
	contents: string | Uint8Array<ArrayBuffer>;
}

const bundles = new Map<string, Promise<Module[]>>();

/** A Worker's modules: what wrangler makes of them without being told anything. */
export function bundled(entry: string): Promise<Module[]> {
	const known = bundles.get(entry) ?? bundle(entry);
	bundles.set(entry, known);
	return known;
}

async function bundle(entry: string): Promise<Module[]> {
	const modules: Module[] = [];
	const wasm: Plugin = {
		name: 'wasm',
		setup({ onResolve }) {
			onResolve({ filter: /\.wasm$/ }, ({ path, resolveDir }) => {
				const name = path.split('/').at(-1)!;
				modules.push({ type: 'CompiledWasm', path: name, contents: new Uint8Array(readFileSync(join(resolveDir, path))) });
				return { path: `./${name}`, external: true };
			});
		},
	};
	const { outputFiles } = await build({
		entryPoints: [fileURLToPath(new URL(`worker/${entry}`, import.meta.url))],
		bundle: true,
		write: false,
		format: 'esm',
		target: 'es2022',
		platform: 'browser',
		mainFields: ['module', 'main'],
		conditions: ['workerd', 'worker', 'browser'],
		external: ['cloudflare:*', 'node:*'],
		define: { 'process.env.NODE_ENV': '"production"' },
		plugins: [wasm],
		logLevel: 'error',
	});
	return [{ type: 'ESModule', path: 'index.mjs', contents: outputFiles[0]!.text }, ...modules];
}

export interface FleetOptions {
	/** In src/worker. */
	entry?: string;
	names?: readonly string[];
	engine?: WorkerOptions;
	resumable?: NodeOptions['resumable'];
	/** Storage that outlives the fleet; else it is in a folder of its own. */
	persist?: string;
	/** As objects are made with `new_classes`. */
	older?: boolean;
	compatibilityFlags?: string[];
	/** Modules in place of what `entry` is bundled to. */
	modules?: Module[];
}

export interface Fleet extends AsyncDisposable {
	readonly miniflare: Miniflare;
	/** A Worker's own address. */
	readonly urls: string[];
	close(): Promise<void>;
}

/** Workers with the same objects and the same KV namespace, on a port each. */
export async function startFleet(options: FleetOptions = {}): Promise<Fleet> {
	const { entry = 'node.ts', names = ['A', 'B'], engine = {}, resumable, older = false } = options;
	const modules = options.modules ?? (await bundled(entry));
	const folder = options.persist ?? mkdtempSync(join(tmpdir(), 'mcp-sessions-workers-'));
	const miniflare = new Miniflare({
		durableObjectsPersist: folder,
		kvPersist: folder,
		workers: names.map((name) => ({
			name,
			modules,
			compatibilityDate: '2026-03-01',
			compatibilityFlags: options.compatibilityFlags ?? ['nodejs_compat'],
			bindings: { SETTINGS: JSON.parse(JSON.stringify({ name, engine, resumable })) },
			kvNamespaces: { TMCP_SESSION_INFO: 'info' },
			durableObjects: { TMCP_DURABLE_OBJECT: { className: 'SyncLayer', scriptName: names[0]!, useSQLite: !older } },
			unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }],
		})),
	});
	await miniflare.ready;
	const urls = await Promise.all(names.map(async (name) => (await miniflare.unsafeGetDirectURL(name)).origin));
	const close = async () => {
		await miniflare.dispose();
		if (options.persist === undefined) rmSync(folder, { recursive: true, force: true });
	};
	return { miniflare, urls, close, [Symbol.asyncDispose]: close };
}

/** Nodes that are Workers; a fleet lasts as long as the last of them. */
export async function startWorkers(names: readonly string[], options: Omit<NodeOptions, 'name' | 'backend'>): Promise<RunningNode[]> {
	const fleet = await startFleet({ names, ...(options.engine && { engine: options.engine }), ...('resumable' in options && { resumable: options.resumable }) });
	let left = names.length;
	const stop = async () => {
		left -= 1;
		if (left === 0) await fleet.close();
	};
	return names.map((name, at) => ({
		name,
		url: fleet.urls[at]!,
		control: (command) => tell(fleet.urls[at]!, command),
		stop,
		kill() {
			throw new Error('one Worker of a workerd cannot be killed');
		},
	}));
}
