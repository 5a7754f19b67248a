// A stream of a Worker, read as a client reads it: its payloads travel in SSE frames, which bring their cursors.

import { setTimeout as wait } from 'node:timers/promises'
import { visits } from '../../../dist/cloudflare/visits.mjs'
import { Turns } from './turns.mjs'

/** @typedef {import('../../../dist/cloudflare.mjs').DurableObjectStreamSessionManager} Manager */

/** What was read is acknowledged to the object by then. */
export const ACKNOWLEDGED_MS = 400
/** What a frame adds to a text without anything to escape. */
export const FRAME_BYTES = framed('').length

/** @param {string} payload */
export function framed(payload) {
  return `data: ${JSON.stringify(payload)}\n\n`
}

/** The one stream of a session, in a response that nobody sends. */
export class WorkerStream {
  /** @type {{ payload: string, cursor: string }[]} read, and not asked for yet */
  #events = []
  /** @type {Promise<boolean> | undefined} the next chunk, read ahead as a connection does; false at the end */
  #ahead
  #text = ''
  #decoder = new TextDecoder()
  #reader
  #manager
  #opening
  #turns
  #isClosed = false

  /**
   * @param {Manager} manager
   * @param {string} id
   * @param {{ after?: string, conflict?: 'replace' | 'reject' }} [how]
   */
  static async open(manager, id, { after, conflict = 'replace' } = {}) {
    /** @type {any} */
    let controller
    const readable = new ReadableStream({
      start: (it) => {
        controller = it
      },
    })
    const opening = /** @type {any} */ ({ kind: 'open', after, conflict, retryMs: 0, onGap: undefined })
    await visits.run(opening, () => manager.create(id, controller))
    const stream = new WorkerStream(manager, id, opening, readable.getReader())
    // The greeting comes first, and takes no room of what follows.
    stream.#take((await stream.#reader.read()).value)
    stream.#readAhead()
    return stream
  }

  /**
   * @param {Manager} manager
   * @param {string} id
   * @param {any} opening
   * @param {any} reader
   */
  constructor(manager, id, opening, reader) {
    this.id = id
    this.gap = opening.gap ?? false
    this.cursor = ''
    this.#manager = manager
    this.#opening = opening
    this.#reader = reader
    this.#turns = new Turns(() => manager.known(id))
    const seat = opening.stream
    const over = seat.onOver
    /** @type {Promise<string>} */
    this.ended = new Promise((resolve) => {
      const end = () => {
        // What is on its way to a client that another one took over from.
        if (seat.end === 'replaced') this.#events = []
        resolve(seat.end ?? 'closed')
      }
      seat.onOver = () => {
        over?.()
        end()
      }
      if (seat.end !== undefined) end()
    })
  }

  /** Why it ended. */
  get end() {
    return this.#isClosed ? 'closed' : this.#opening.stream.end
  }

  async next() {
    while (this.#events.length === 0) {
      if (!(await this.#readAhead())) return undefined
      this.#ahead = undefined
      this.#readAhead()
    }
    const event = this.#events.shift()
    this.cursor = event.cursor
    return event
  }

  /** Until there is an event: heartbeats are read at once. */
  #readAhead() {
    this.#ahead ??= this.#readEvents()
    return this.#ahead
  }

  async #readEvents() {
    for (;;) {
      // What waited is lost with a stream that failed: its client comes back with its cursor.
      const { done, value } = await this.#reader.read().catch(() => ({ done: true, value: undefined }))
      if (done || this.#isClosed) return false
      if (this.#take(value)) return true
    }
  }

  /**
   * Whether there are events in it.
   *
   * @param {Uint8Array} bytes
   */
  #take(bytes) {
    this.#text += this.#decoder.decode(bytes, { stream: true })
    const frames = this.#text.split('\n\n')
    this.#text = frames.pop()
    const before = this.#events.length
    for (const frame of frames) {
      const fields = new Map(frame.split('\n').map((line) => line.split(/: (.*)/s).slice(0, 2)))
      const [cursor, data] = [fields.get('id'), fields.get('data')]
      if (fields.get('event') === 'cursor') this.cursor = cursor
      else if (data !== undefined) this.#events.push({ payload: JSON.parse(data), cursor })
    }
    return this.#events.length > before
  }

  turn() {
    return this.#turns.pass()
  }

  async close() {
    if (this.end !== undefined) return
    await wait(ACKNOWLEDGED_MS)
    await this.leave()
    await this.turn()
  }

  /** Its client is gone, and nobody waits for what the object makes of that. */
  async leave() {
    if (this.end !== undefined) return
    this.#isClosed = true
    this.#events = []
    await visits.run({ kind: 'leave', stream: this.#opening.stream }, () => this.#manager.delete(this.id))
    await this.#reader.cancel()
  }
}
