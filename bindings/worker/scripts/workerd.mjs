// Workers in workerd, by miniflare: the package as it is built, bundled as wrangler does it, and storage on disk
// where asked for.

import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { Miniflare } from 'miniflare'

const here = join(dirname(fileURLToPath(import.meta.url)), '..')

/** Runs a Worker whose script is an ES module of this folder; `instead` has files to take for what is imported. */
export async function workerd({ script, port = 0, persist, bindings = {}, kv = [], instead = {} }) {
  const miniflare = new Miniflare({
    host: '127.0.0.1',
    port,
    compatibilityDate: '2026-03-01',
    compatibilityFlags: ['nodejs_compat'],
    modules: await bundled(script, instead),
    bindings,
    kvNamespaces: kv,
    durableObjects: { TMCP_DURABLE_OBJECT: { className: 'SyncLayer', useSQLite: true } },
    durableObjectsPersist: persist ?? false,
    kvPersist: persist ?? false,
  })
  const url = await miniflare.ready
  return { url, miniflare, dispose: () => miniflare.dispose() }
}

/** A script's modules: what it imports is in it, but for the wasm. */
async function bundled(script, instead) {
  const modules = []
  const replaced = {
    name: 'replaced',
    setup: ({ onResolve }) =>
      onResolve({ filter: /./ }, ({ path }) => (Object.hasOwn(instead, path) ? { path: instead[path] } : undefined)),
  }
  const wasm = {
    name: 'wasm',
    setup: ({ onResolve }) =>
      onResolve({ filter: /\.wasm$/ }, ({ path, resolveDir }) => {
        modules.push({ type: 'CompiledWasm', path: 'sync-layer.wasm', contents: readFileSync(join(resolveDir, path)) })
        return { path: './sync-layer.wasm', external: true }
      }),
  }
  const { outputFiles } = await build({
    stdin: { contents: script, resolveDir: here },
    bundle: true,
    write: false,
    format: 'esm',
    target: 'es2022',
    external: ['cloudflare:*', 'node:*'],
    plugins: [replaced, wasm],
    logLevel: 'error',
  })
  return [{ type: 'ESModule', path: 'index.mjs', contents: outputFiles[0].text }, ...modules]
}
