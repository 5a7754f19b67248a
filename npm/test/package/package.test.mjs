// The tarball: packs, installs and runs in an empty folder.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startRedis } from '../../../tests/support/servers.mjs'

const npmFolder = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const MAX_PACKED_BYTES = 6 * 1024 * 1024
/** What the README's example leaves to its reader. */
const TMCP = ['tmcp', '@tmcp/session-manager', '@tmcp/transport-http', '@tmcp/adapter-zod', 'zod']

let temporary
let app
let packed

before(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'mcp-sessions-package-'))
  const { out } = await must('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', temporary], npmFolder)
  packed = JSON.parse(out)[0]
  app = join(temporary, 'app')
  await mkdir(app)
  await writeFile(join(app, 'package.json'), '{ "name": "app", "private": true }\n')
  const flags = ['install', '--offline', '--ignore-scripts', '--no-audit', '--no-fund', '--silent']
  await must('npm', [...flags, join(temporary, packed.filename)], app)
})

after(() => rm(temporary, { recursive: true, force: true }))

test('it installs offline, by itself, without scripts', async () => {
  const installed = await readdir(join(app, 'node_modules'))
  assert.deepEqual(
    installed.filter((name) => !name.startsWith('.')),
    ['mcp-sessions'],
  )
  const { scripts = {} } = JSON.parse(await readFile(join(app, 'node_modules/mcp-sessions/package.json'), 'utf8'))
  for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) assert.equal(scripts[name], undefined)
})

test('nothing unexpected is in the tarball, and nothing is missing', async (t) => {
  const { files, size, unpackedSize } = packed
  t.diagnostic(`${packed.filename}: ${files.length} files, ${size} bytes packed, ${unpackedSize} bytes unpacked`)
  const paths = files.map(({ path }) => path)
  const expected = [
    /^package\.json$/,
    /^README\.md$/,
    /^LICENSE$/,
    /^dist\/(?:(?:tmcp|sdk)\/)?[a-z-]+\.(?:js|d\.ts)$/,
    /^dist\/(?:index|sdk|tmcp)\.(?:mjs|d\.mts)$/,
    /^dist\/(?:cloudflare\/[a-z-]+|cloudflare)\.(?:mjs|d\.mts)$/,
    /^worker\/sync-layer\.(?:mjs|d\.mts|wasm)$/,
    /^platforms\/[a-z0-9-]+\/mcp-sessions\.[a-z0-9-]+\.node$/,
  ]
  assert.deepEqual(
    paths.filter((path) => !expected.some((one) => one.test(path))),
    [],
  )
  const entries = ['index', 'sdk', 'tmcp'].flatMap((name) =>
    ['js', 'mjs', 'd.ts', 'd.mts'].map((suffix) => `dist/${name}.${suffix}`),
  )
  const worker = ['dist/cloudflare.mjs', 'worker/sync-layer.mjs', 'worker/sync-layer.wasm']
  for (const path of ['package.json', ...entries, ...worker]) assert.ok(paths.includes(path), `${path} is missing`)
  assert.equal(paths.filter((path) => path.endsWith('.node')).length, 1, 'the addon of this machine, once')
  assert.ok(size <= MAX_PACKED_BYTES, `${size} bytes are too many`)
})

test('no text speaks of the machine it was built on', async () => {
  const machine = [npmFolder, process.env.HOME].filter((path) => path !== undefined && path.length > 1)
  // An addon names the sources of its panics, wherever those were.
  for (const { path } of packed.files.filter((file) => !file.path.endsWith('.node'))) {
    const bytes = await readFile(join(app, 'node_modules/mcp-sessions', path))
    for (const place of machine) assert.equal(bytes.includes(`${place}/`), false, `${path} names ${place}`)
  }
})

const BODY = `
  const engine = Engine.memory()
  const stream = await engine.streams.open('s1')
  await engine.streams.send('s1', 'hello')
  console.log((await stream.next()).payload, new InMemoryStreamSessionManager({ engine }) instanceof InMemoryStreamSessionManager)
  await engine.shutdown()
`

test('an ES module runs', async () => {
  const head =
    "import { Engine } from 'mcp-sessions'\nimport { InMemoryStreamSessionManager } from 'mcp-sessions/tmcp'\n"
  assert.equal(await runs('app.mjs', head + BODY), 'hello true\n')
})

test('a CommonJS module runs', async () => {
  const head =
    "const { Engine } = require('mcp-sessions')\nconst { InMemoryStreamSessionManager } = require('mcp-sessions/tmcp')\n"
  assert.equal(await runs('app.cjs', `${head}void (async () => {${BODY}})()`), 'hello true\n')
})

test("the README's tmcp example serves a session there", async (t) => {
  const redis = await startRedis()
  t.after(() => redis.stop())
  for (const name of TMCP) {
    const place = join(app, 'node_modules', name)
    await mkdir(dirname(place), { recursive: true })
    await symlink(join(npmFolder, 'node_modules', name), place)
  }
  const example = await readmeExample(redis.url)
  const head = `
    import { ZodJsonSchemaAdapter } from '@tmcp/adapter-zod'
    import { McpServer } from 'tmcp'
    // As the socket of a server does: the engine alone keeps no process alive.
    const alive = setInterval(() => {}, 1_000)
    const server = new McpServer({ name: 'example', version: '1.0.0' }, { adapter: new ZodJsonSchemaAdapter(), capabilities: { logging: {} } })
  `
  const use = `
    const post = (body, id) => transport.respond(new Request('http://localhost/mcp', {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', ...(id && { 'mcp-session-id': id }) },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, ...body }),
    }))
    const params = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'c', version: '1' } }
    const initialized = await post({ method: 'initialize', params })
    await initialized.text()
    const id = initialized.headers.get('mcp-session-id')
    console.log(initialized.status, (await post({ method: 'ping' }, id)).status, (await post({ method: 'ping' }, 'stranger')).status)
    const get = (more) => transport.respond(new Request('http://localhost/mcp', { headers: { accept: 'text/event-stream', 'mcp-session-id': id, ...more } }))
    async function read(response, wanted) {
      const reader = response.body.getReader()
      let text = ''
      while (!text.includes(wanted)) text += new TextDecoder().decode((await reader.read()).value)
      await reader.cancel()
      return text
    }
    const send = (text) => sessionManager.streams.send([id], 'data: ' + text + '\\n\\n')
    const first = await get()
    await send('one')
    const cursor = (await read(first, 'data: one')).match(/id: (.*)\\ndata: one/)[1]
    await send('two')
    const second = await read(await get({ 'last-event-id': cursor }), 'data: two')
    console.log(/^retry: \\d+$/m.test(second), second.includes('data: one'))
    clearInterval(alive)
  `
  assert.equal(await runs('readme.mjs', head + example + use), '200 200 404\ntrue false\n')
})

/** The first TypeScript block of "Under tmcp", at this server; it is JavaScript as well. */
async function readmeExample(url) {
  const readme = await readFile(join(npmFolder, '..', 'README.md'), 'utf8')
  const [, example] = readme.match(/^## Under tmcp\n+```ts\n([\s\S]*?)^```/m) ?? []
  assert.notEqual(example, undefined, 'the README has no example for tmcp')
  const there = example.replace('redis://localhost:6379', url)
  assert.notEqual(there, example, 'the example names a server')
  return there
}

async function runs(name, source) {
  await writeFile(join(app, name), source)
  assert.ok((await stat(join(app, name))).isFile())
  return (await must(process.execPath, [name], app)).out
}

function must(command, args, cwd) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 120_000,
      killSignal: 'SIGKILL',
    })
    let out = ''
    let err = ''
    child.stdout.on('data', (data) => (out += data))
    child.stderr.on('data', (data) => (err += data))
    child.on('error', reject)
    child.on('close', (status, signal) => {
      if (status === 0) resolve({ out, err })
      else reject(new Error(`${command} ${args.join(' ')} ended with ${status ?? signal}:\n${out}\n${err}`))
    })
  })
}
