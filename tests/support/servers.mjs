// Real servers for tests, the demo and the bench: children of this process, on free ports, in folders of their own.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const START_MS = 60_000
const run = promisify(execFile)

/** What is started for a URL's scheme without a host, such as `redis://`. */
const KINDS = { redis: startRedis, postgresql: startPostgres, postgres: startPostgres, cloudflare: startWorkerd }

/** Whether a URL asks for a server of its own. */
export function asksForServer(url) {
  return /^(redis|postgresql|postgres|cloudflare):\/\/$/.test(url)
}

/** Starts the server that a URL such as `redis://` asks for. */
export function startServer(url, options = {}) {
  const start = KINDS[url.split(':')[0]]
  if (start === undefined) throw new Error(`no server of this kind: ${url}`)
  return start(options)
}

/** A free port. Somebody else may take it first: who starts a server on it tries again. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

/** A Redis server without persistence; `port` is for one that is to come back where it was. */
export async function startRedis({ port, args = [] } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'mcp-sessions-redis-'))
  const start = (port) => {
    const settings = ['--port', port, '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no', ...args]
    return started('redis-server', settings.map(String), /Ready to accept connections/, 'stdout')
  }
  return serving(start, port, folder, (port) => `redis://127.0.0.1:${port}`)
}

/** A PostgreSQL cluster; `durable: false` trades what a crash of the machine would lose for speed. */
export async function startPostgres({ port, durable = false, args = [] } = {}) {
  const bin = postgresFolder()
  const folder = mkdtempSync(join(tmpdir(), 'mcp-sessions-postgres-'))
  const data = join(folder, 'data')
  // Neither initdb nor postgres runs as root.
  const who = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}
  if (who.uid !== undefined) chownSync(folder, who.uid, who.gid)
  const env = { ...process.env, LC_ALL: 'C', TZ: 'UTC' }
  // What initdb leaves to be written later would be written beside the first commits.
  const lazily = durable ? [] : ['--no-sync']
  await run(join(bin, 'initdb'), ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', ...lazily], {
    ...who,
    env,
    cwd: folder,
  })
  const start = (port) => {
    const settings = { listen_addresses: '127.0.0.1', unix_socket_directories: folder }
    if (!durable) Object.assign(settings, { fsync: 'off', full_page_writes: 'off' })
    const set = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const all = ['-D', data, '-p', String(port), ...set, ...args]
    return started(join(bin, 'postgres'), all, /database system is ready to accept connections/, 'stderr', {
      ...who,
      env,
      cwd: folder,
    })
  }
  return serving(start, port, folder, (port) => `postgresql://postgres@127.0.0.1:${port}/postgres`)
}

/** The newest PostgreSQL that is installed. */
function postgresFolder() {
  const root = '/usr/lib/postgresql'
  const versions = existsSync(root) ? readdirSync(root).filter((name) => /^\d+$/.test(name)) : []
  const newest = versions.sort((a, b) => Number(b) - Number(a))[0]
  if (newest === undefined) throw new Error('PostgreSQL is not installed: no /usr/lib/postgresql/*/bin')
  return join(root, newest, 'bin')
}

/** workerd with the Worker of the package in it, and its storage on disk. */
export async function startWorkerd({ port } = {}) {
  const script = join(dirname(fileURLToPath(import.meta.url)), '../../bindings/worker/scripts/serve.mjs')
  const folder = mkdtempSync(join(tmpdir(), 'mcp-sessions-workerd-'))
  const start = (port) => {
    const settings = [script, `--port=${port}`, '--token=correct-horse', `--persist=${folder}`]
    return started(process.execPath, settings, /^ready /, 'stdout', { stdio: ['pipe', 'pipe', 'pipe'] })
  }
  return serving(start, port, folder, (port) => `cloudflare://127.0.0.1:${port}?tls=off&token=correct-horse`)
}

async function serving(start, wanted, folder, urlOf) {
  let port = wanted
  let child
  for (let tries = 0; child === undefined; tries++) {
    port = wanted ?? (await freePort())
    try {
      child = await start(port)
    } catch (error) {
      if (wanted === undefined && tries < 4) continue
      rmSync(folder, { recursive: true, force: true })
      throw error
    }
  }
  const end = async (signal) => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.ref()
    // One that has an input ends with it: killed, it would leave children of its own behind.
    if (child.stdin === null) child.kill(signal)
    else child.stdin.end()
    await exited
  }
  // A test that is ended from outside must not leave its server behind.
  const last = () => child.stdin === null && child.kill('SIGKILL')
  process.once('exit', last)
  return {
    port,
    url: urlOf(port),
    get pid() {
      return child.pid
    },
    /** As `kill -9`. */
    kill: () => end('SIGKILL'),
    /** Starts it again where it was. */
    async restart() {
      child = await start(port)
    },
    async stop() {
      // For PostgreSQL the fast way out: it does not wait for clients.
      await end('SIGINT')
      process.off('exit', last)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Resolves once the server says that it is ready. */
async function started(command, args, ready, on, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  const said = []
  let timer
  try {
    await new Promise((resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`${command} was not ready within ${START_MS} ms`)), START_MS)
      child.on('error', reject)
      child.on('exit', (code) => reject(new Error(`${command} ended with ${code}:\n${said.join('\n')}`)))
      for (const stream of [child.stdout, child.stderr]) {
        createInterface(stream).on('line', (line) => {
          if (said.push(line) > 40) said.shift()
          if (stream === child[on] && ready.test(line)) resolve()
        })
      }
    })
  } catch (error) {
    child.kill('SIGKILL')
    throw error
  } finally {
    clearTimeout(timer)
  }
  // What it says is read to the end, but keeps no process alive.
  for (const it of [child, child.stdin, child.stdout, child.stderr]) it?.unref?.()
  return child
}
