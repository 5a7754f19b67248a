import { Asking } from './asking'
import { checkSessionId, checkText } from './check'
import { ClosedError, InvalidInputError } from './errors'
import type { Port, Reason, Receipt } from './port'

/** Why a stream ended. */
export type EndReason = Exclude<Reason, 'cancelled'>

/** One event as a stream hands it over. */
export interface Event {
  /** The payload as it was sent. */
  payload: string
  /** The cursor to resume after this event. */
  cursor: string
  /** Whether it was sent to this session (or a list with it), or to all. */
  kind: 'directed' | 'broadcast'
}

/** How a stream is opened. */
export interface OpenOptions {
  /** The client's last cursor (`Last-Event-ID`): everything after it is delivered. */
  after?: string | undefined
  /** What to do when a live node holds a stream of the session (default: `replace`). */
  conflict?: 'replace' | 'reject' | undefined
}

/** How an event is sent. */
export interface SendOptions {
  /** A retry with the same key is not delivered twice; 1 to 128 bytes. */
  idempotencyKey?: string | undefined
}

const BATCH = 256

/**
 * Opens streams, and sends events to them wherever they are held.
 *
 * @example
 * ```ts
 * import { Engine } from 'mcp-sessions'
 *
 * const here = await Engine.connect('memory://streams-example')
 * const there = await Engine.connect('memory://streams-example')
 * const stream = await here.streams.open('session-1')
 * const receipt = await there.streams.send('session-1', 'hello')
 * console.log(receipt.accepted, (await stream.next())?.payload)
 * ```
 */
export class Streams {
  #port: Port

  /** @internal */
  constructor(port: Port) {
    this.#port = port
  }

  /**
   * Opens the stream of a session on this node, and takes it over from any other. Without a cursor it
   * delivers what was accepted since the session's last stream was given back, or since the session
   * became known.
   *
   * Rejects with `invalid_input` for a cursor that is not this session's, `conflict` with
   * `conflict: 'reject'`, `unavailable` or `timeout`.
   */
  async open(id: string, options: OpenOptions = {}): Promise<EventStream> {
    const operation = 'streams.open'
    checkSessionId(id, operation)
    const { after = null, conflict = 'replace' } = options
    if (after !== null) checkText(after, 'a cursor', Number.POSITIVE_INFINITY, operation)
    if (conflict !== 'replace' && conflict !== 'reject') {
      throw new InvalidInputError('conflict is replace or reject', operation)
    }
    const stream = new EventStream(this.#port, id)
    await stream.start(after, conflict === 'reject')
    return stream
  }

  /**
   * Sends an event to a session, a list of sessions, or all (`undefined`); resolves once it is accepted.
   * An event for an unknown session is dropped, which the receipt tells.
   */
  async send(to: string | readonly string[] | undefined, payload: string, options: SendOptions = {}): Promise<Receipt> {
    const operation = 'streams.send'
    const targets = to === undefined ? undefined : typeof to === 'string' ? [to] : to
    if (targets !== undefined) {
      if (!Array.isArray(targets))
        throw new InvalidInputError('an event goes to a session id, a list of ids, or undefined', operation)
      for (const id of targets) checkSessionId(id, operation)
    }
    checkText(payload, 'a payload', this.#port.described.maxPayloadBytes, operation)
    const key = options.idempotencyKey
    if (key !== undefined) checkText(key, 'an idempotency key', Number.POSITIVE_INFINITY, operation)
    if (this.#port.isClosed) throw new ClosedError('the engine was closed', operation)
    return this.#port.sendCall(targets, payload, key)
  }

  /** Whether a live node holds a stream of the session. */
  has(id: string): Promise<boolean> {
    return this.#ask('has', id)
  }

  /** Ends the session's stream, wherever it is held; false when there was none. */
  close(id: string): Promise<boolean> {
    return this.#ask('close', id)
  }

  /** Terminates the session: its stream ends with `terminated` and its log is gone. */
  forget(id: string): Promise<boolean> {
    return this.#ask('forget', id)
  }

  /** Whether the session is known: it has info, or a stream, or had one within retention. */
  known(id: string): Promise<boolean> {
    return this.#ask('known', id)
  }

  async #ask(call: string, id: string): Promise<boolean> {
    checkSessionId(id, `streams.${call}`)
    return this.#port.ask<boolean>(call, { id })
  }
}

/**
 * The one stream of a session, held by this node until it ends or is closed. Iterate over it, or call
 * `next`. A stream that nobody refers to any more is closed.
 */
export class EventStream implements AsyncIterable<Event> {
  /** The session. */
  readonly id: string
  #asking: Asking<Event, EndReason>
  #gap = false
  #cursor = ''

  /** @internal */
  constructor(port: Port, id: string) {
    this.id = id
    this.#asking = new Asking(port, (token, limit) => {
      const taken = port.takeEvents(token, limit)
      if (taken !== 'pending' && 'items' in taken) this.#cursor = (taken.items.at(-1) as Event).cursor
      return taken
    })
  }

  /** @internal */
  async start(after: string | null, reject: boolean): Promise<void> {
    const { port, token } = this.#asking
    try {
      const opened = await port.ask<{ gap: boolean; cursor: string }>('open', { id: this.id, token, after, reject })
      this.#gap = opened.gap
      this.#cursor = opened.cursor
      this.#asking.begun()
    } catch (error) {
      port.release(token)
      throw error
    }
  }

  /** Whether something between the cursor (or the last stream) and the first event is lost. */
  get gap(): boolean {
    return this.#gap
  }

  /** The cursor after the last event read, or of the start. */
  get cursor(): string {
    return this.#cursor
  }

  /** Why the stream ended, if it has; events that were queued can still be read then. */
  get end(): EndReason | undefined {
    return this.#asking.end
  }

  /** Resolves when the stream ends. */
  get ended(): Promise<EndReason> {
    return this.#asking.ended
  }

  /** The next event, in order; `undefined` once the stream has ended and what was queued is read. */
  async next(): Promise<Event | undefined> {
    return (await this.#asking.read(1))[0]
  }

  /** The next event if there is one already. */
  tryNext(): Event | undefined {
    return this.#asking.tryRead()
  }

  /**
   * The next events, as many as there are but no more than `limit`, in one go; waits for the first. An
   * empty list once the stream has ended and what was queued is read.
   */
  nextBatch(limit = BATCH): Promise<Event[]> {
    return this.#asking.read(Math.max(1, Math.floor(limit) || 1))
  }

  /** Ends the stream; what was not read waits for the next one. Closing it twice is fine. */
  async close(): Promise<void> {
    await this.#asking.close('closed')
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Event> {
    try {
      for (let event = await this.next(); event !== undefined; event = await this.next()) yield event
    } finally {
      await this.close()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
