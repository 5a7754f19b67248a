// Streams and subscriptions in a scenario's hands, and how they are read.

import { setImmediate as turn } from 'node:timers/promises'
import { APART } from './backend.mjs'
import { same, shown, within } from './check.mjs'
import { notifications, text, texts } from './written.mjs'

/** @typedef {import('mcp-sessions').Event} Event */
/** @typedef {import('mcp-sessions').Notification} Notification */

/** What fences begin with; reads pass over them. */
export const FENCE = '\u0001fence-'

/**
 * What is read one by one.
 *
 * @template T
 */
class Reader {
  /** A step has looked at its end. */
  endExpected = false
  #source
  #what
  /** @type {Promise<T | undefined> | undefined} a read that nothing has come for yet */
  #asked

  /**
   * @param {string} node
   * @param {{ next(): Promise<T | undefined>, end: string | undefined, ended: Promise<string> }} source
   * @param {string} what
   */
  constructor(node, source, what) {
    this.node = node
    this.#source = source
    this.#what = what
  }

  /**
   * What marks a fence, if it is one.
   *
   * @param {T} _item
   * @returns {unknown}
   */
  mark(_item) {
    throw new Error('a reader knows its fences')
  }

  /**
   * The next item that is not a fence (but for the one waited for), or `undefined` at the end.
   *
   * @param {string} [fence]
   * @returns {Promise<T | undefined>}
   */
  async nextOrEnd(fence) {
    for (;;) {
      this.#asked ??= this.#source.next()
      const item = await within(this.#asked, `waited in vain for the ${this.#what}'s next item`)
      this.#asked = undefined
      if (item === undefined || !this.#isOtherFence(item, fence)) return item
    }
  }

  /**
   * @param {string} [fence]
   * @returns {Promise<T>}
   */
  async next(fence) {
    const item = await this.nextOrEnd(fence)
    if (item === undefined) throw new Error(`the ${this.#what} has ended (${this.#source.end ?? 'no reason'})`)
    return item
  }

  /**
   * What is there now, if anything; a read that finds nothing waits for the next one.
   *
   * @returns {Promise<T | undefined>}
   */
  async now() {
    for (;;) {
      this.#asked ??= this.#source.next()
      // What is there comes within the turn.
      const item = await Promise.race([this.#asked, this.#turn()])
      if (item === 'nothing') return undefined
      this.#asked = undefined
      if (item === undefined || !this.#isOtherFence(/** @type {T} */ (item))) return /** @type {T} */ (item)
    }
  }

  /** @returns {Promise<'nothing'>} */
  async #turn() {
    const { turn: inItsProcess } = /** @type {any} */ (this.#source)
    if (inItsProcess === undefined) return turn('nothing')
    await inItsProcess.call(this.#source)
    return 'nothing'
  }

  async nothingUnread() {
    const item = await this.now()
    if (item !== undefined) throw new Error(`unread ${shown(item)}`)
  }

  /** @param {string} reason */
  async checkEnd(reason) {
    const { ended } = this.#source
    same('end', await within(ended, `the ${this.#what} did not end`), reason)
    same('end at once', this.#source.end, reason)
    this.endExpected = true
  }

  /** Nothing unexpected is left over: nothing unread, no end. */
  async checkLeftovers() {
    const item = await this.now()
    // What was taken over in another process is told so a little later; it has nothing to deliver then.
    if (item !== undefined && !(APART && (await this.#isTakenOver()))) throw new Error(`unread ${shown(item)}`)
    const { end } = this.#source
    if (end === undefined || end === 'replaced' || this.endExpected) return
    throw new Error(`it ended (${end}), and no step expects it`)
  }

  async #isTakenOver() {
    return (await within(this.#source.ended, 'it goes on').catch(() => undefined)) === 'replaced'
  }

  /**
   * @param {T} item
   * @param {string} [wanted]
   */
  #isOtherFence(item, wanted) {
    const mark = this.mark(item)
    return typeof mark === 'string' && mark.startsWith(FENCE) && mark !== wanted
  }
}

/**
 * A stream that the scenario opened.
 *
 * @extends {Reader<Event>}
 */
export class Held extends Reader {
  /** @type {string[]} the payloads read so far, fences left out */
  read = []

  /**
   * @param {string} node
   * @param {import('mcp-sessions').EventStream} stream
   */
  constructor(node, stream) {
    super(node, stream, 'stream')
    this.stream = stream
  }

  /** @param {Event} event */
  mark(event) {
    return event.payload
  }

  /** @param {any[]} wanted */
  async readExactly(wanted) {
    for (const one of wanted) {
      if (one.kind === undefined) {
        await this.readTexts(texts(one))
        continue
      }
      const { payload, kind } = await this.#nextEvent()
      same('event', payload, text(one.payload))
      same('kind', kind, one.kind)
    }
  }

  /** @param {string[]} wanted */
  async readTexts(wanted) {
    for (const one of wanted) same('event', (await this.#nextEvent()).payload, one)
  }

  /** @param {string[][]} sequences */
  async readInterleaved(sequences) {
    const left = sequences.map((sequence) => sequence.slice())
    while (left.some((sequence) => sequence.length > 0)) {
      const { payload } = await this.#nextEvent()
      const taken = left.find((sequence) => sequence[0] === payload)
      if (taken === undefined) throw new Error(`${shown(payload)} is not next in any of the sequences`)
      taken.shift()
    }
  }

  /**
   * Reads to the end of the stream.
   *
   * @param {string[]} wanted
   * @param {number} atLeast
   * @param {number} atMost
   */
  async readHead(wanted, atLeast, atMost) {
    await within(this.stream.ended, 'the stream did not end')
    let taken = 0
    for (;;) {
      const event = await this.nextOrEnd()
      if (event === undefined) break
      this.read.push(event.payload)
      same('event', event.payload, wanted[taken] ?? 'nothing more')
      taken += 1
    }
    checkCount(taken, atLeast, atMost)
  }

  /**
   * Reads until the last of `wanted`: what came must be the end of it, whole.
   *
   * @param {string[]} wanted
   * @param {number} atLeast
   * @param {number} atMost
   */
  async readTail(wanted, atLeast, atMost) {
    if (wanted.length === 0) throw new Error('the list is empty')
    const got = []
    while (got.at(-1) !== wanted.at(-1)) {
      if (got.length > wanted.length) throw new Error('more came than there is')
      got.push((await this.#nextEvent()).payload)
    }
    same('the end of the list', got, wanted.slice(-got.length))
    checkCount(got.length, atLeast, atMost)
  }

  async #nextEvent() {
    const event = await this.next()
    same('the cursor after the event', this.stream.cursor, event.cursor)
    this.read.push(event.payload)
    return event
  }
}

/**
 * A subscription that the scenario made.
 *
 * @extends {Reader<Notification>}
 */
export class Listening extends Reader {
  /**
   * @param {string} node
   * @param {import('mcp-sessions').Subscription} subscription
   * @param {any} filters
   */
  constructor(node, subscription, filters) {
    super(node, subscription, 'subscription')
    this.subscription = subscription
    /** A notification that it lets through. */
    this.fence = fenceFor(filters)
  }

  /** @param {any} notification */
  mark(notification) {
    return notification.params?.fence
  }

  /** @param {any[]} wanted */
  async readExactly(wanted) {
    for (const one of wanted.flatMap(notifications)) same('notification', await this.next(), one)
  }
}

/** @param {any} filters */
function fenceFor({ toolsListChanged, promptsListChanged, resourcesListChanged, resourceSubscriptions: [uri] = [] }) {
  /** @param {string} kind */
  const fence = (kind, params = {}) => ({ jsonrpc: '2.0', method: `notifications/${kind}`, params })
  if (toolsListChanged) return fence('tools/list_changed')
  if (promptsListChanged) return fence('prompts/list_changed')
  if (resourcesListChanged) return fence('resources/list_changed')
  return uri === undefined ? undefined : fence('resources/updated', { uri })
}

/**
 * @param {number} count
 * @param {number} atLeast
 * @param {number} atMost
 */
function checkCount(count, atLeast, atMost) {
  if (count < atLeast || count > atMost) throw new Error(`read ${count} events, expected ${atLeast} to ${atMost}`)
}
