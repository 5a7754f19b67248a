// A subscription of a Worker, whose callbacks are asked instead of asking.

import { Turns } from './turns.mjs'

/** Notifications that are asked for one by one. */
export class WorkerSubscription {
  /** @type {any[]} */
  #waiting = []
  /** @type {((item: any) => void)[]} */
  #asking = []
  /** @type {() => void} */
  #acknowledge = () => {}
  /** @type {(end: string) => void} */
  #end = () => {}
  /** @type {string | undefined} */
  end
  /** @type {Promise<any>} */
  #created = Promise.resolve(false)
  #manager
  #request
  #turns

  /**
   * @param {import('../../../dist/cloudflare.mjs').DurableObjectSubscriptionManager} manager
   * @param {any} request
   */
  static async listen(manager, request) {
    const subscription = new WorkerSubscription(manager, request)
    return (await subscription.#start()) ? subscription : undefined
  }

  /**
   * @param {any} manager
   * @param {any} request
   */
  constructor(manager, request) {
    this.#manager = manager
    this.#request = request
    this.#turns = new Turns(() => manager.close('nobody', 'nowhere', 'closed'))
    /** @type {Promise<string>} */
    this.ended = new Promise((resolve) => {
      this.#end = resolve
    })
  }

  /** Whether it is there: then it waits for its acknowledgement. */
  async #start() {
    /** @type {Promise<boolean>} */
    const asked = new Promise((resolve) => {
      const acknowledged = new Promise((acknowledge) => {
        this.#acknowledge = () => acknowledge(undefined)
      })
      this.#created = this.#manager.create(this.#request, {
        acknowledge: () => {
          resolve(true)
          return acknowledged
        },
        send: (/** @type {any} */ notification) => this.#take(notification),
        close: (/** @type {string} */ reason) => this.#close(reason),
      })
    })
    return Promise.race([asked, this.#created])
  }

  async acknowledge() {
    this.#acknowledge()
    await this.#created
  }

  /** @param {any} notification */
  #take(notification) {
    const asking = this.#asking.shift()
    if (asking === undefined) this.#waiting.push(notification)
    else asking(notification)
  }

  /** @param {string} reason */
  #close(reason) {
    this.end = reason
    this.#waiting = []
    for (const asking of this.#asking.splice(0)) asking(undefined)
    this.#end(reason)
  }

  async next() {
    if (this.#waiting.length > 0) return this.#waiting.shift()
    if (this.end !== undefined) return undefined
    return new Promise((resolve) => this.#asking.push(resolve))
  }

  turn() {
    return this.#turns.pass()
  }

  async leave() {
    if (this.end !== undefined) return
    this.acknowledge().catch(() => {})
    await this.#manager.close(this.#request.id, this.#request.origin, 'cancelled')
    await this.ended
  }
}
