import { checkSessionId, checkText } from './check'
import type { Port } from './port'
import type { EndReason } from './streams'

/** An event of a stream. */
export interface LoggedEvent {
  /** Its id: unique, URL-safe, at most 208 characters; for the `id:` field of an SSE frame. */
  id: string
  /** What was appended. */
  payload: string
}

/** What a stream holds after an id. */
export interface Replay {
  /** The stream. */
  stream: string
  /** The events, in order; after a gap, those that are left. */
  events: LoggedEvent[]
  /** Something between the id and the first event is lost, or may be. */
  gap: boolean
  /** The stream has ended: nothing comes after these. */
  ended: boolean
}

type Crossed = [id: string, payload: string]

const eventOf = ([id, payload]: Crossed): LoggedEvent => ({ id, payload })
const MAX_STREAM_BYTES = 1 << 10
const MAX_ID_BYTES = 64 << 10
let numbers = 0

/** Reads a stream as it grows. It ends when the stream does; closing it leaves the stream as it is. */
export class EventTail implements AsyncIterable<LoggedEvent> {
  /** Whether something between the id and the first event is lost, or may be. */
  readonly gap: boolean
  #port: Port
  #token: number
  #end: EndReason | undefined

  /** @internal */
  constructor(port: Port, token: number, gap: boolean) {
    this.#port = port
    this.#token = token
    this.gap = gap
  }

  /** Why it ended, once {@link next} said so: `closed` at the end of its stream, `terminated` if that was forgotten. */
  get end(): EndReason | undefined {
    return this.#end
  }

  /** The next event, in order; `undefined` once the tail has ended. */
  async next(): Promise<LoggedEvent | undefined> {
    if (this.#end !== undefined) return undefined
    if (this.#port.isClosed) {
      this.#end = 'shutdown'
      return undefined
    }
    const request = { next: { token: this.#token } }
    const next = await this.#port.call<{ event: Crossed | null; end: EndReason | null }>('events', request, true)
    if (next.event !== null) return eventOf(next.event)
    this.#end ??= next.end ?? 'closed'
    await this.close()
    return undefined
  }

  /** Ends the tail. */
  async close(): Promise<void> {
    this.#end ??= 'closed'
    if (!this.#port.isClosed) await this.#port.ask('events', { close: { token: this.#token } })
  }

  /** {@link close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<LoggedEvent, void, undefined> {
    try {
      for (let event = await this.next(); event !== undefined; event = await this.next()) yield event
    } finally {
      await this.close()
    }
  }
}

/**
 * The events of one session's streams, for the event stores of the SDKs: what is appended on one node is
 * replayed on any.
 *
 * @example
 * ```ts
 * import { Engine } from 'mcp-sessions'
 *
 * const events = Engine.memory().events('session-1')
 * const first = await events.append('_GET_stream', 'one')
 * await events.append('_GET_stream', 'two')
 * const { stream, gap, events: replayed } = await events.replay(first)
 * console.log(stream, gap, replayed.map((event) => event.payload))
 * ```
 */
export class EventLog {
  /** The session. */
  readonly scope: string
  #port: Port

  /** @internal */
  constructor(port: Port, scope: string) {
    checkSessionId(scope, 'events')
    this.#port = port
    this.scope = scope
  }

  /** Appends an event to a stream (a name of 1 to 128 bytes); it is committed when this resolves to its id. */
  async append(stream: string, payload: string): Promise<string> {
    const operation = 'events.append'
    checkText(stream, "a stream's name", MAX_STREAM_BYTES, operation)
    checkText(payload, 'a payload', this.#port.described.maxPayloadBytes, operation)
    return this.#port.ask<string>('events', { append: { scope: this.scope, stream, payload } })
  }

  /** An id that stands before everything that is appended from now on, and has no payload. */
  async prime(stream: string): Promise<string> {
    checkText(stream, "a stream's name", MAX_STREAM_BYTES, 'events.append')
    return this.#port.ask<string>('events', { prime: { scope: this.scope, stream } })
  }

  /** Marks the end of a stream: its tails end, and replay says that it has ended. */
  async end(stream: string): Promise<string> {
    checkText(stream, "a stream's name", MAX_STREAM_BYTES, 'events.append')
    return this.#port.ask<string>('events', { end: { scope: this.scope, stream } })
  }

  /** The stream an id belongs to. Throws `invalid_input` for what is no event id of this session. */
  streamOf(id: string): string {
    checkText(id, 'an event id', MAX_ID_BYTES, 'events.stream_of')
    return this.#port.call<string>('events', { streamOf: { scope: this.scope, id } }) as string
  }

  /** The events of an id's stream after it: exactly those, or what is left and a gap. */
  async replay(after: string): Promise<Replay> {
    checkText(after, 'an event id', MAX_ID_BYTES, 'events.replay')
    return this.#replay({ replay: { scope: this.scope, after } })
  }

  /** All events of a stream that are kept; `gap` when there were more. */
  async read(stream: string): Promise<Replay> {
    checkText(stream, "a stream's name", MAX_STREAM_BYTES, 'events.replay')
    return this.#replay({ read: { scope: this.scope, stream } })
  }

  /** {@link replay}, and from there on live, whichever node appends. A newer tail of a stream takes over. */
  async tail(after: string): Promise<EventTail> {
    checkText(after, 'an event id', MAX_ID_BYTES, 'events.replay')
    return this.#tail('tail', { after })
  }

  /**
   * A {@link tail} that begins where the last one of the stream stopped reading, on whatever node; the first
   * one begins with all that is kept.
   */
  async follow(stream: string): Promise<EventTail> {
    checkText(stream, "a stream's name", MAX_STREAM_BYTES, 'events.replay')
    return this.#tail('follow', { stream })
  }

  /** Forgets a stream; its tails end with `terminated`. False when there was nothing of it. */
  async forget(stream: string): Promise<boolean> {
    checkText(stream, "a stream's name", MAX_STREAM_BYTES, 'events.forget')
    return this.#port.ask<boolean>('events', { forget: { scope: this.scope, stream } })
  }

  /** Forgets all streams of the session; how many there were. */
  forgetAll(): Promise<number> {
    return this.#port.ask<number>('events', { forgetAll: { scope: this.scope } })
  }

  async #tail(kind: 'tail' | 'follow', from: object): Promise<EventTail> {
    numbers = (numbers % 0x7fffffff) + 1
    const token = numbers
    const { gap } = await this.#port.ask<{ gap: boolean }>('events', {
      [kind]: { scope: this.scope, ...from, token },
    })
    return new EventTail(this.#port, token, gap)
  }

  async #replay(request: object): Promise<Replay> {
    const got = await this.#port.ask<Omit<Replay, 'events'> & { events: Crossed[] }>('events', request)
    return { ...got, events: got.events.map(eventOf) }
  }
}
