// Nodes in processes of their own, in whatever language: what a scenario asks of an engine is asked of the process
// that has it.

import { fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import * as api from 'mcp-sessions'

const PROGRAM = fileURLToPath(new URL('node-process.mjs', import.meta.url))
const PYTHON_FOLDER = fileURLToPath(new URL('../../../python/', import.meta.url))
const PYTHON =
  process.env.MCP_SESSIONS_TEST_PYTHON ?? fileURLToPath(new URL('../../../target/venv/bin/python', import.meta.url))

/**
 * What runs a node: each answers the same messages.
 *
 * @type {{ [language: string]: () => import('node:child_process').ChildProcess }}
 */
const PROGRAMS = {
  node: () =>
    fork(PROGRAM, [], {
      execArgv: ['--expose-gc'],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    }),
  python: () =>
    spawn(PYTHON, ['-m', 'tests.conformance.node_process'], {
      cwd: PYTHON_FOLDER,
      serialization: 'json',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    }),
}
/** Errors as they are thrown here, by their code. */
const CLASSES = new Map(
  Object.values(api)
    .filter((it) => typeof it === 'function' && it.prototype instanceof api.McpSessionsError)
    .map((It) => [new It('', '').code, It]),
)

/** A process, for one node after the other. */
class Host {
  /** @type {Map<string, Host[]>} by language */
  static #idle = new Map()
  #language
  #child
  /** @type {Map<number, { resolve(value: any): void, reject(error: Error): void }>} */
  #asked = new Map()
  #last = 0
  #killed = false

  /** @param {string} language */
  constructor(language) {
    const start = PROGRAMS[language]
    if (start === undefined) throw new Error(`no node can be started in ${language}`)
    this.#language = language
    this.#child = start()
    this.#child.on('error', (error) => {
      for (const { reject } of this.#asked.values()) reject(error)
    })
    this.#child.on('message', (/** @type {any} */ { number, value, error }) => {
      const asked = this.#asked.get(number)
      this.#asked.delete(number)
      if (this.#asked.size === 0) this.#hold(false)
      if (error === undefined) asked?.resolve(value)
      else asked?.reject(errorOf(error))
    })
    this.#child.on('exit', (code, signal) => {
      // Of one that was killed nothing is ever heard again.
      if (this.#killed) return
      for (const { reject } of this.#asked.values())
        reject(new Error(`the node's process ended with ${code ?? signal}`))
    })
    this.#hold(false)
  }

  /** @param {string} language */
  static take(language) {
    return Host.#idle.get(language)?.pop() ?? new Host(language)
  }

  /**
   * @param {string} name
   * @param {unknown[]} args
   * @returns {Promise<any>}
   */
  ask(name, ...args) {
    this.#last += 1
    const number = this.#last
    this.#hold(true)
    return new Promise((resolve, reject) => {
      this.#asked.set(number, { resolve, reject })
      this.#child.send({ number, name, args }, (error) => {
        if (error !== null && !this.#killed) reject(error)
      })
    })
  }

  /** It has no node any more. */
  async give() {
    await this.ask('forgetAll')
    Host.#idle.set(this.#language, [...(Host.#idle.get(this.#language) ?? []), this])
  }

  /** As `kill -9`. */
  async kill() {
    this.#killed = true
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    this.#child.ref()
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exited
    this.#hold(false)
  }

  /** @param {boolean} held idle ones end with the tests */
  #hold(held) {
    if (held) this.#child.ref()
    else this.#child.unref()
    if (held) this.#child.channel?.ref()
    else this.#child.channel?.unref()
  }
}

/**
 * @param {any} told
 * @returns {Error}
 */
function errorOf(told) {
  if (told.other !== undefined) return new Error(told.other)
  const { code, message, operation, outcomeUnknown, inspected } = told
  const Class = CLASSES.get(code)
  if (Class === undefined) return new Error(`no error has the code ${code}`)
  return new Class(message, operation, { outcomeUnknown, cause: inspected })
}

/**
 * Connects an engine in a process of its own.
 *
 * @param {string} language
 * @param {string} url
 * @param {object} options
 * @returns {Promise<any>}
 */
export async function connectApart(language, url, options) {
  const host = Host.take(language)
  try {
    const { handle, nodeId } = await host.ask('connect', url, options)
    return engineOf(host, handle, nodeId)
  } catch (error) {
    await host.give()
    throw error
  }
}

/**
 * @param {Host} host
 * @param {number} handle
 * @param {string} nodeId
 */
function engineOf(host, handle, nodeId) {
  const calls = (/** @type {string[]} */ ...path) =>
    new Proxy(/** @type {any} */ ({}), {
      get: (own, name) =>
        own[name] ?? ((/** @type {unknown[]} */ ...args) => host.ask('call', handle, [...path, String(name)], args)),
    })
  const streams = calls('streams')
  streams.open = async (/** @type {string} */ id, /** @type {object} */ options) =>
    new RemoteStream(host, await host.ask('open', handle, id, options))
  const subscriptions = calls('subscriptions')
  subscriptions.listen = async (/** @type {object} */ request) => {
    const made = await host.ask('listen', handle, request)
    return made && new RemoteSource(host, made.handle)
  }
  const registry = calls('registry')
  registry.beginRequest = async (/** @type {string} */ id) =>
    new RemoteRequest(host, (await host.ask('make', handle, ['registry', 'beginRequest'], [id])).handle)
  registry.closings = () => new RemoteClosings(host, host.ask('make', handle, ['registry', 'closings'], []))
  const events = (/** @type {string} */ scope) =>
    new Proxy(/** @type {any} */ ({}), {
      get: (_, name) =>
        name === 'tail' || name === 'follow'
          ? async (/** @type {string} */ from) => new RemoteTail(host, await host.ask(name, handle, scope, from))
          : (/** @type {unknown[]} */ ...args) => host.ask('events', handle, scope, String(name), args),
    })
  const own = {
    nodeId,
    streams,
    subscriptions,
    registry,
    events,
    info: calls('info'),
    // biome-ignore lint/suspicious/noThenProperty: what is awaited must not take it for a promise
    then: undefined,
    abandon: () => host.kill(),
    [Symbol.asyncDispose]: () => host.give(),
  }
  return new Proxy(own, {
    get: (own, name) =>
      name in own
        ? /** @type {any} */ (own)[name]
        : (/** @type {unknown[]} */ ...args) => host.ask('call', handle, [String(name)], args),
  })
}

/** A stream or a subscription of another process. */
class RemoteSource {
  /** @type {string | undefined} why it ended, as far as it is known here */
  end
  /** @type {Promise<string> | undefined} */
  #ended
  /**
   * @param {Host} host
   * @param {number} handle
   */
  constructor(host, handle) {
    this.host = host
    this.handle = handle
  }

  get ended() {
    this.#ended ??= this.host.ask('ended', this.handle).then((end) => {
      this.end = end
      return end
    })
    return this.#ended
  }

  async next() {
    const { item, cursor } = await this.host.ask('next', this.handle)
    this.read(cursor)
    if (item === undefined) this.end = await this.host.ask('end', this.handle)
    return item
  }

  /** @param {string} _cursor */
  read(_cursor) {}

  /** Resolves when all that is there has come; then its end is known, too. */
  async turn() {
    await this.host.ask('turn')
    this.end = await this.host.ask('end', this.handle)
  }

  acknowledge() {
    return this.host.ask('call', this.handle, ['acknowledge'], [])
  }

  close() {
    return this.host.ask('call', this.handle, ['close'], [])
  }

  drop() {
    return this.host.ask('drop', this.handle)
  }
}

class RemoteStream extends RemoteSource {
  /**
   * @param {Host} host
   * @param {{ handle: number, id: string, gap: boolean, cursor: string }} opened
   */
  constructor(host, { handle, id, gap, cursor }) {
    super(host, handle)
    this.id = id
    this.gap = gap
    this.cursor = cursor
  }

  /** @param {string} cursor */
  read(cursor) {
    this.cursor = cursor
  }
}

/** A live tail of another process. */
class RemoteTail extends RemoteSource {
  /**
   * @param {Host} host
   * @param {{ handle: number, gap: boolean }} opened
   */
  constructor(host, { handle, gap }) {
    super(host, handle)
    this.gap = gap
  }
}

/** A request under way in another process. */
class RemoteRequest {
  /**
   * @param {Host} host
   * @param {number} handle
   */
  constructor(host, handle) {
    this.host = host
    this.handle = handle
  }

  end() {
    return this.host.ask('call', this.handle, ['end'], [])
  }

  [Symbol.dispose]() {
    return this.host.ask('dispose', this.handle)
  }
}

/** What closes on a node of another process. */
class RemoteClosings {
  /**
   * @param {Host} host
   * @param {Promise<{ handle: number }>} made
   */
  constructor(host, made) {
    this.host = host
    this.made = made
  }

  async next() {
    return this.host.ask('call', (await this.made).handle, ['next'], [])
  }
}
