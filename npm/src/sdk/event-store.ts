import { randomBytes } from 'node:crypto'
import { checkSessionId } from '../check'
import type { Engine } from '../engine'
import { asError, ConfigError, McpSessionsError } from '../errors'
import type { EventLog } from '../events'
import { Failures } from '../tmcp/failures'
import { MARK } from './log-stream'
import type { EventStore, OnError } from './types'

/** What the SDKs call the stream of a session's GET, in every session. */
export const GET_STREAM = '_GET_stream'

/** How an event store behaves. */
export interface EventStoreOptions {
  /** The session, if it has an id already; without it one is made (256 random bits). */
  sessionId?: string
  /**
   * A client that resumes a stream while the old one still stands: `replace` ends the old one (the
   * default), `reject` has the SDK answer 409 until it is noticed that the old one is dead.
   */
  conflict?: 'replace' | 'reject'
  /** Told when something between the client's `Last-Event-ID` and what is replayed is lost. */
  onGap?: (gap: { sessionId: string; lastEventId: string }) => void
  /** Told when an event could not be stored but was sent all the same; by default a line is logged. */
  onError?: OnError
}

/** A session's id and its event store, which belong together: spread them into a transport's options. */
export interface SessionEvents {
  /** The session. */
  sessionId: string
  /** Gives the session's id. */
  sessionIdGenerator: () => string
  /** Keeps the events of this session, and of no other. */
  eventStore: ScopedEventStore
}

/**
 * An event store for one session of either SDK, on any engine. The SDKs do not tell a store which session
 * an event belongs to, and call every session's GET stream the same: so each session has a store of its
 * own, made together with its id.
 *
 * @example
 * ```ts
 * import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
 * import { Engine } from 'mcp-sessions'
 * import { eventStore } from 'mcp-sessions/sdk'
 *
 * const engine = await Engine.connect('memory://app')
 * const transport = new StreamableHTTPServerTransport({ ...eventStore(engine) })
 * console.log(transport.sessionId)
 * ```
 */
export function eventStore(engine: Engine, options: EventStoreOptions = {}): SessionEvents {
  const sessionId = options.sessionId ?? newSessionId()
  checkSessionId(sessionId, 'eventStore')
  if (typeof engine?.events !== 'function') throw new ConfigError('an event store needs an engine', 'eventStore')
  const store = new ScopedEventStore(engine.events(sessionId), options)
  return { sessionId, sessionIdGenerator: () => sessionId, eventStore: store }
}

/** An id that nobody can guess: 256 random bits. */
export function newSessionId(): string {
  return randomBytes(32).toString('base64url')
}

/** The `EventStore` of the SDKs for one session. */
export class ScopedEventStore implements EventStore {
  #log: EventLog
  #options: EventStoreOptions
  #failures: Failures

  /** @internal */
  constructor(log: EventLog, options: EventStoreOptions = {}) {
    this.#log = log
    this.#options = options
    this.#failures = new Failures(options.onError)
  }

  /**
   * Keeps an event; resolves to its id once it is committed. If an answer to a request can't be kept it
   * resolves to no id: the client that waits gets the answer, as without a store. What is sent outside of
   * requests rejects then, so that its sender knows.
   */
  async storeEvent(streamId: string, message: object): Promise<string> {
    try {
      // The SDKs store an empty object to get an id that stands before all events.
      if (Object.keys(message).length === 0) return await this.#log.prime(streamId)
      return await this.#log.append(streamId, JSON.stringify(message))
    } catch (error) {
      if (streamId === GET_STREAM) throw error
      this.#failures.report(asError(error, 'events.append'))
      return ''
    }
  }

  /** The stream of an event id; `undefined` for what is no event id of this session. */
  async getStreamIdForEventId(eventId: string): Promise<string | undefined> {
    try {
      const stream = this.#log.streamOf(eventId)
      // The SDKs ask for it to look whether the stream stands: a name that no stream has lets the new one replace it.
      return this.#options.conflict === 'reject' ? stream : `${stream} (resumed)`
    } catch (error) {
      if (error instanceof McpSessionsError && isClients(error)) return undefined
      throw error
    }
  }

  /** Sends what came after an event, then resolves to its stream. */
  async replayEventsAfter(
    lastEventId: string,
    // biome-ignore lint/suspicious/noExplicitAny: each SDK has its own type of message
    { send }: { send: (eventId: string, message: any) => Promise<void> },
  ): Promise<string> {
    const { stream, gap, events } = await this.#log.replay(lastEventId)
    if (gap) this.#options.onGap?.({ sessionId: this.#log.scope, lastEventId })
    for (const { id, payload } of events) if (payload !== MARK) await send(id, JSON.parse(payload))
    return stream
  }

  /** Forgets all events of the session; closing it in the registry does this, too. */
  async forget(): Promise<void> {
    await this.#log.forgetAll()
  }
}

/** Whether it is the client that was wrong. */
export function isClients(error: McpSessionsError): boolean {
  return error.code === 'invalid_input' || error.code === 'too_large'
}
