import type { Engine } from '../engine'
import { innerOf } from '../engine'
import { asError, ClosedError, ConfigError } from '../errors'
import type { ActiveRequest, JsonValue } from '../registry'
import { type ManagerOptions, type Source, sourceOf } from '../tmcp/source'
import { endBoth, followClosings, Owed } from './closing'
import { digest } from './digest'
import { eventStore } from './event-store'
import { nodeTransport } from './transports'
import type { NodeTransport, SessionServer, SessionTransport, TransportClass, TransportOptions } from './types'

/** How a session manager is made: the options of its engine, and of the transports it makes. */
export interface SessionManagerOptions<TTransport extends SessionTransport = NodeTransport> extends ManagerOptions {
  /** The class of transports; by default the one for `node:http` of the SDK that is installed. */
  Transport?: TransportClass<TTransport>
  /** What every transport is made with. */
  transportOptions?: TransportOptions
  /** `false`: transports get no event store, and streams can't be resumed. */
  eventStore?: boolean
}

/** A session whose server and transport are in this process. */
export interface McpSession<TServer, TTransport = NodeTransport> {
  /** Its id. */
  readonly id: string
  /** The server made for it. */
  readonly server: TServer
  /** Its transport. */
  readonly transport: TTransport
  /** When it was created. */
  readonly createdAt: Date
  /** When it was last accessed here. */
  lastAccessedAt: Date
  /** Requests under way here. */
  activeRequests: number
  /** Whether it is closing. */
  isClosing: boolean
}

/** What is registered, on all replicas. */
export interface SessionStats {
  /** All sessions, those that are closing included. */
  totalSessions: number
  /** Accessed lately, or with a request under way. */
  activeSessions: number
  /** Not accessed for so long that the next sweep closes them. */
  staleSessions: number
  /** Closing. */
  closingSessions: number
  /** Those whose server and transport are in this process. */
  localSessions: number
}

interface Held<TServer, TTransport> extends McpSession<TServer, TTransport> {
  owner: string | undefined
  requests: Promise<ActiveRequest | undefined>[]
  touchedMs: number
  ended: Promise<void> | undefined
}

/** A registry notes an access once in this part of the time after which a session is stale. */
const TOUCHES = 20
const CLOSED = 'this session manager is shut down; send the client to another replica'

/**
 * Sessions of servers on the official SDKs. Servers and transports stay in this process; who owns a
 * session, when it was used and whether it is closed is known to all replicas: each closes the others'
 * sessions, and a session that is closed anywhere has its transport and server closed here.
 *
 * Owners' tokens are not kept, here or anywhere: only keyed hashes of them.
 *
 * @example
 * ```ts
 * import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
 * import { SessionManager } from 'mcp-sessions/sdk'
 *
 * const sessions = new SessionManager<McpServer>({ url: 'memory://app' })
 * const server = new McpServer({ name: 'app', version: '1.0.0' })
 * const { sessionId, transport } = await sessions.createSession(server, 'token-of-ada')
 * console.log(sessions.hasSession(sessionId), typeof transport.handleRequest)
 * console.log(await sessions.closeSessionsByToken('token-of-ada'))
 * await sessions.shutdown()
 * ```
 */
export class SessionManager<
  TServer extends SessionServer = SessionServer,
  TTransport extends SessionTransport = NodeTransport,
> {
  #source: Source
  #options: SessionManagerOptions<TTransport>
  #sessions = new Map<string, Held<TServer, TTransport>>()
  #owed: Owed
  #engine: Engine | undefined
  #unfollow: (() => void) | undefined
  #closed = false
  #requestEnded: (() => void) | undefined

  constructor(options: SessionManagerOptions<TTransport> = {}) {
    const { Transport, transportOptions: _, eventStore: store, ...engine } = options
    if (Transport !== undefined && typeof Transport !== 'function')
      throw new ConfigError('Transport is a class of transports', 'SessionManager')
    if (store !== undefined && typeof store !== 'boolean')
      throw new ConfigError('eventStore is true or false', 'SessionManager')
    this.#options = options
    this.#source = sourceOf(engine, 'sessions')
    this.#owed = new Owed(this.#source.failures.report)
  }

  /** Whether it was shut down, or is shutting down. */
  get isShutDown(): boolean {
    return this.#closed
  }

  /** Resolves to the engine once the backend was reached; rejects while it can't be. */
  async engine(): Promise<Engine> {
    const engine = await this.#source.connected('SessionManager')
    if (this.#closed) throw new ClosedError(CLOSED, 'SessionManager')
    if (this.#engine === undefined) {
      this.#engine = engine
      this.#unfollow = followClosings(engine, (session) => {
        const held = this.#sessions.get(session)
        if (held !== undefined) void this.#end(held)
      })
    }
    return engine
  }

  /**
   * Makes a session with a transport of its own, and connects the server to it. `authToken` is its owner's.
   * Rejects as `connect` does, or with `unavailable`, `timeout`, or `closed` after `shutdown`; then the
   * transport is closed and no session is left.
   */
  async createSession(
    server: TServer,
    authToken?: string,
    metadata?: JsonValue,
  ): Promise<{ sessionId: string; transport: TTransport }> {
    const engine = await this.engine()
    const { Transport, transportOptions, eventStore: stores } = this.#options
    const Made = Transport ?? ((await nodeTransport()) as unknown as TransportClass<TTransport>)
    const { onError } = this.#options
    const { sessionId, ...events } = eventStore(engine, onError === undefined ? {} : { onError })
    const { sessionIdGenerator } = events
    const transport = new Made({ ...transportOptions, ...(stores === false ? { sessionIdGenerator } : events) })
    const held = this.#hold(sessionId, server, transport, authToken)
    try {
      await server.connect(transport)
      await engine.registry.create({ id: sessionId, owner: authToken, metadata })
    } catch (error) {
      this.#sessions.delete(sessionId)
      held.isClosing = true
      await transport.close().catch(() => {})
      throw error
    }
    // It was closed, or the manager was, while it was being made.
    if (held.isClosing || this.#closed) {
      await this.closeSession(sessionId, 'shutdown').catch(() => {})
      throw new ClosedError('the session was closed while it was being made', 'createSession')
    }
    return { sessionId, transport }
  }

  /** A session of this process that answers requests; this counts as access, on every replica. */
  getSession(sessionId: string): McpSession<TServer, TTransport> | undefined {
    const held = this.#open(sessionId)
    if (held !== undefined) this.#touch(held)
    return held
  }

  /** The oldest session of an owner in this process that answers requests; this counts as access. */
  getSessionByToken(authToken: string): McpSession<TServer, TTransport> | undefined {
    const owner = digest(authToken)
    for (const held of this.#sessions.values()) {
      if (held.owner !== owner || held.isClosing) continue
      this.#touch(held)
      return held
    }
    return undefined
  }

  /** Whether a session of this process answers requests. This is no access. */
  hasSession(sessionId: string): boolean {
    return this.#open(sessionId) !== undefined
  }

  /** Whether a session belongs to the owner of a token. */
  isOwner(sessionId: string, authToken: string | undefined): boolean {
    const held = this.#open(sessionId)
    return held !== undefined && held.owner === digest(authToken)
  }

  /** Notes that a request of a session begins: no replica takes the session for stale until it ends. */
  incrementActiveRequests(sessionId: string): void {
    const held = this.#sessions.get(sessionId)
    if (held === undefined || this.#engine === undefined) return
    held.activeRequests += 1
    held.lastAccessedAt = new Date()
    const begun = this.#engine.registry.beginRequest(sessionId).catch((error) => {
      // A session that is gone is told of by its closing.
      if (asError(error, 'registry.begin_request').code !== 'not_found') this.#report(error, 'registry.begin_request')
      return undefined
    })
    held.requests.push(begun)
  }

  /** Notes that a request of a session has ended. */
  decrementActiveRequests(sessionId: string): void {
    const held = this.#sessions.get(sessionId)
    if (held === undefined || held.activeRequests === 0) return
    held.activeRequests -= 1
    held.lastAccessedAt = new Date()
    this.#endRequest(held)
    this.#requestEnded?.()
  }

  /**
   * Closes a session, on whatever replica it is. True for the one call that closed it. Rejects with
   * `unavailable` or `timeout` during an outage; the session goes on then.
   */
  async closeSession(sessionId: string, reason = 'closed'): Promise<boolean> {
    const held = this.#sessions.get(sessionId)
    if (held?.isClosing) return false
    const engine = await this.#source.connected('closeSession')
    if (held !== undefined) held.isClosing = true
    try {
      const closed = await engine.registry.close(sessionId, reason)
      if (held !== undefined) await this.#end(held)
      return closed
    } catch (error) {
      if (held !== undefined && held.ended === undefined) held.isClosing = false
      throw error
    }
  }

  /** Closes all sessions of an owner, on whatever replicas they are; resolves to how many. */
  async closeSessionsByToken(authToken: string): Promise<number> {
    const engine = await this.#source.connected('closeSessionsByToken')
    const closed = await engine.registry.closeByOwner(authToken)
    const owner = digest(authToken)
    const own = [...this.#sessions.values()].filter((held) => held.owner === owner)
    await Promise.all(own.map((held) => this.#end(held)))
    return closed
  }

  /** How many sessions there are, on all replicas. */
  async getStats(): Promise<SessionStats> {
    const engine = await this.#source.connected('getStats')
    const { total, active, stale, closing } = await engine.registry.stats()
    return {
      totalSessions: total,
      activeSessions: active,
      staleSessions: stale,
      closingSessions: closing,
      localSessions: this.#sessions.size,
    }
  }

  /**
   * Takes no more sessions, waits until the requests of this process have ended, at most `deadlineMs`, then
   * closes its sessions. An engine that the manager made for itself is shut down. Doing it twice is fine.
   */
  async shutdown(deadlineMs = 5_000): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#drained(deadlineMs)
    const close = (held: Held<TServer, TTransport>) =>
      // What the backend can't be told of is stale some day, and swept.
      this.closeSession(held.id, 'shutdown').catch((error) => {
        this.#report(error, 'registry.close')
        return this.#end(held)
      })
    await Promise.all([...this.#sessions.values()].map((held) => held.ended ?? close(held)))
    this.#owed.stop()
    this.#unfollow?.()
    await this.#source.release()
  }

  /** {@link shutdown}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.shutdown()
  }

  #hold(id: string, server: TServer, transport: TTransport, token: string | undefined): Held<TServer, TTransport> {
    const now = new Date()
    const held: Held<TServer, TTransport> = {
      id,
      server,
      transport,
      createdAt: now,
      lastAccessedAt: now,
      activeRequests: 0,
      isClosing: false,
      owner: digest(token),
      requests: [],
      touchedMs: now.getTime(),
      ended: undefined,
    }
    // `connect` keeps it, and calls it before the server's own.
    transport.onclose = () => {
      if (held.isClosing) return
      void this.#end(held)
      const engine = this.#engine
      if (engine !== undefined) void this.#owed.close(engine, id, 'closed')
    }
    // Before it is registered, so that no closing is missed.
    this.#sessions.set(id, held)
    return held
  }

  #open(sessionId: string): Held<TServer, TTransport> | undefined {
    const held = this.#sessions.get(sessionId)
    return held === undefined || held.isClosing ? undefined : held
  }

  #touch(held: Held<TServer, TTransport>): void {
    held.lastAccessedAt = new Date()
    const engine = this.#engine
    const now = held.lastAccessedAt.getTime()
    if (engine === undefined || now - held.touchedMs < innerOf(engine).port.described.registryStaleMs / TOUCHES) return
    held.touchedMs = now
    engine.registry.get(held.id, { trusted: true }).then(
      (record) => (record === undefined ? this.#end(held) : undefined),
      (error) => this.#report(error, 'registry.get'),
    )
  }

  /** Ends what this process holds of a session, once. */
  #end(held: Held<TServer, TTransport>): Promise<void> {
    held.ended ??= this.#ending(held)
    return held.ended
  }

  async #ending(held: Held<TServer, TTransport>): Promise<void> {
    held.isClosing = true
    for (const problem of await endBoth(held.transport, held.server)) this.#report(problem, 'closeSession')
    while (held.requests.length > 0) this.#endRequest(held)
    held.activeRequests = 0
    this.#sessions.delete(held.id)
    this.#requestEnded?.()
  }

  #endRequest(held: Held<TServer, TTransport>): void {
    held.requests.pop()?.then((request) => request?.[Symbol.dispose]())
  }

  async #drained(deadlineMs: number): Promise<void> {
    const busy = () => [...this.#sessions.values()].some((held) => held.activeRequests > 0)
    if (!busy()) return
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve) => {
      timer = setTimeout(resolve, deadlineMs)
      this.#requestEnded = () => {
        if (!busy()) resolve()
      }
    })
    clearTimeout(timer)
  }

  #report(thrown: unknown, operation: string): void {
    this.#source.failures.report(asError(thrown, operation))
  }
}

let shared: SessionManager | undefined

/**
 * The process's session manager. The first call makes it, with its options; the others get that one, until
 * it is shut down. Throws `config` for options when there is one already.
 */
export function getSessionManager<
  TServer extends SessionServer = SessionServer,
  TTransport extends SessionTransport = NodeTransport,
>(options?: SessionManagerOptions<TTransport>): SessionManager<TServer, TTransport> {
  if (shared?.isShutDown) shared = undefined
  if (shared !== undefined && options !== undefined)
    throw new ConfigError('the session manager of this process is made already, with its options', 'getSessionManager')
  shared ??= new SessionManager<TServer, TTransport>(options) as unknown as SessionManager
  return shared as unknown as SessionManager<TServer, TTransport>
}
