// Where scenarios run in a Worker: takes the place of the runner's own `backend.mjs`.

import { Engine } from './engine.mjs'

/** All nodes are in this isolate. */
export const APART = false

/** Where one scenario runs: objects and keys of its own. */
export class Place {
  manualClock = false
  port = undefined

  /** @param {string} name */
  constructor(name) {
    this.url = `${name}:`
    this.foreignUrl = `${name}-foreign:`
  }

  /**
   * @param {string} url
   * @param {object} options
   */
  connect(url, options) {
    return Engine.connect(url, options)
  }
}
