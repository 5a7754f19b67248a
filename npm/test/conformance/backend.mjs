// Where scenarios run: the backend of MCP_SESSIONS_TEST_URL, a fresh hub or prefix for each.

import { Engine } from 'mcp-sessions'

/** @typedef {import('mcp-sessions').Capability} Capability */

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
  return `${address}?${query === '' ? '' : `${query}&`}prefix=${name}:`
}
