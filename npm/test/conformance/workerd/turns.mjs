// When all that an object has sent has come: what it is asked now it answers later.

import { setTimeout as wait } from 'node:timers/promises'

/** Sockets and answers take ways of their own; how far apart they may arrive. */
const APART_MS = 5

export class Turns {
  #ask

  /** @param {() => Promise<unknown>} ask */
  constructor(ask) {
    this.#ask = ask
  }

  async pass() {
    await this.#ask()
    await wait(APART_MS)
  }
}
