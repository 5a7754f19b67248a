// A workerd for one measurement, with both sides' objects and namespaces in it and storage on disk.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { Miniflare } from 'miniflare';

interface Module {
	type: 'ESModule' | 'CompiledWasm';
	path: string;
	contents: string | Uint8Array<ArrayBuffer>;
}

/** Does a row in a Worker; its values. */
export async function runInWorker(side: string, row: string): Promise<readonly number[]> {
	const folder = mkdtempSync(join(tmpdir(), 'mcp-sessions-bench-'));
	const object = (className: string, useSQLite: boolean) => ({ className, useSQLite });
	const miniflare = new Miniflare({
		modules: await bundled(),
		compatibilityDate: '2026-03-01',
		compatibilityFlags: ['nodejs_compat'],
		kvNamespaces: { TMCP_SESSION_INFO: 'ours', PEER_INFO: 'peer' },
		// Each as its page says.
		durableObjects: { TMCP_DURABLE_OBJECT: object('SyncLayer', true), PEER: object('PeerLayer', false) },
		durableObjectsPersist: folder,
		kvPersist: folder,
		unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }],
	});
	try {
		const url = await miniflare.unsafeGetDirectURL();
		const response = await fetch(`${url.origin}/?side=${side}&row=${row}`);
		const { values, error } = (await response.json()) as { values?: number[]; error?: string };
		if (values === undefined) throw new Error(error);
		return values;
	} finally {
		await miniflare.dispose();
		rmSync(folder, { recursive: true, force: true });
	}
}

/** As wrangler bundles it. */
async function bundled(): Promise<Module[]> {
	const modules: Module[] = [];
	const wasm: Plugin = {
		name: 'wasm',
		setup({ onResolve }) {
			onResolve({ filter: /\.wasm$/ }, ({ path, resolveDir }) => {
				modules.push({ type: 'CompiledWasm', path: 'sync-layer.wasm', contents: new Uint8Array(readFileSync(join(resolveDir, path))) });
				return { path: './sync-layer.wasm', external: true };
			});
		},
	};
	const { outputFiles } = await build({
		entryPoints: [fileURLToPath(new URL('bench.ts', import.meta.url))],
		bundle: true,
		write: false,
		format: 'esm',
		target: 'es2022',
		platform: 'browser',
		mainFields: ['module', 'main'],
		conditions: ['workerd', 'worker', 'browser'],
		external: ['cloudflare:*', 'node:*'],
		plugins: [wasm],
		logLevel: 'error',
	});
	return [{ type: 'ESModule', path: 'index.mjs', contents: outputFiles[0]!.text }, ...modules];
}
