// Where scenarios run: the backend of MCP_SESSIONS_TEST_URL, a fresh hub or prefix for each.

import { createHash } from 'node:crypto'
import { Engine } from 'mcp-sessions'
import { Route } from './proxy.mjs'
import { connectApart } from './remote.mjs'

/** @typedef {import('mcp-sessions').Capability} Capability */

const { MCP_SESSIONS_TEST_PROCESSES: PROCESSES = '' } = process.env

/** In which languages nodes have processes of their own, one after the other: `node,python`; `yes` is Node. */
const LANGUAGES = PROCESSES === 'yes' ? ['node'] : PROCESSES.split(',').filter((it) => it !== '')

/** Whether each node has a process of its own; then a kill is a kill. */
export const APART = LANGUAGES.length > 0

/** The languages, if the nodes of a scenario are in different ones. */
export const MIXED = new Set(LANGUAGES).size > 1 ? LANGUAGES.join(' and ') : undefined

/** The backend under test. */
export class Backend {
  #base
  /** @type {Capability} */
  capability

  /**
   * @param {string} base
   * @param {Capability} capability
   */
  constructor(base, capability) {
    this.#base = base
    this.capability = capability
  }

  /** The backend of the environment, if it answers. */
  static async fromEnv() {
    const base = process.env.MCP_SESSIONS_TEST_URL ?? 'memory://'
    try {
      const engine = await Engine.connect(urlOf(base, 'probe'))
      const { ready, problem } = await engine.health()
      if (!ready) throw new Error(problem ?? 'it is not ready')
      const { capability } = engine
      await engine[Symbol.asyncDispose]()
      return new Backend(base, capability)
    } catch (error) {
      throw new Error(`the backend under test cannot be reached: ${/** @type {Error} */ (error).message}`)
    }
  }

  /** Its name, without what may be secret. */
  get scheme() {
    return this.#base.split('://')[0]
  }

  /**
   * Whether it can do all of this. Throws for what is no capability.
   *
   * @param {string[]} required
   */
  can(required) {
    return required.every((name) => {
      const able = this.capability[/** @type {keyof Capability} */ (name)]
      if (typeof able !== 'boolean') throw new Error(`${name} is no capability`)
      return able
    })
  }

  /**
   * A place nobody else uses.
   *
   * @param {string} name
   */
  place(name) {
    return new Place(this.#base, `${name}-${process.pid.toString(16)}`, this.capability.manualClock)
  }
}

/** Where one scenario runs. */
export class Place {
  #base
  #name

  /**
   * @param {string} base
   * @param {string} name
   * @param {boolean} manualClock
   */
  constructor(base, name, manualClock) {
    this.#base = base
    this.#name = name
    this.manualClock = manualClock
  }

  get url() {
    return urlOf(this.#base, this.#name)
  }

  /**
   * @param {string} url
   * @param {object} options
   * @param {number} before how many nodes the scenario has already
   * @returns {Promise<Engine>}
   */
  connect(url, options, before) {
    const language = LANGUAGES[before % LANGUAGES.length]
    return language === undefined ? Engine.connect(url, options) : connectApart(language, url, options)
  }

  /** The port of its server on this machine, if it has one. */
  get port() {
    const port = /^[^:]+:\/\/[^/?]*:(\d+)/.exec(this.#base)?.[1]
    return port === undefined ? undefined : Number(port)
  }

  /**
   * A way to its server that can be cut.
   *
   * @param {number} port
   */
  route(port) {
    return new Route(port)
  }

  /**
   * The URL with another port.
   *
   * @param {number} port
   */
  urlThrough(port) {
    return this.url.replace(`:${this.port}`, `:${port}`)
  }

  /** Another deployment, which knows nothing of the scenario. */
  get foreignUrl() {
    return urlOf(this.#base, `${this.#name}-foreign`)
  }
}

/**
 * @param {string} base
 * @param {string} name
 */
function urlOf(base, name) {
  const [address = '', query = ''] = base.split(/\?(.*)/s)
  if (address.startsWith('memory://')) return `${address}${name}?${query || 'clock=manual'}`
  const more = query === '' ? '' : `${query}&`
  if (address.startsWith('postgres')) return `${address}?${more}schema=${schemaOf(name)}`
  return `${address}?${more}prefix=${name}:`
}

/**
 * A name of at most 63 bytes that is as unique.
 *
 * @param {string} name
 */
function schemaOf(name) {
  return `${name.slice(0, 40)}-${createHash('sha256').update(name).digest('hex').slice(0, 16)}`
}
