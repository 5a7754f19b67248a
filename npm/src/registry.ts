import { checkSessionId, checkText } from './check'
import { InvalidInputError } from './errors'
import type { SessionInfo } from './info'
import type { Port } from './port'

/** Where a registered session is in its life. */
export type SessionState = 'active' | 'stale' | 'closing' | 'closed'

/** Any value that JSON has. */
export type JsonValue = string | number | boolean | null | JsonValue[] | { [key: string]: JsonValue }

/** A registered session. */
export interface SessionRecord {
  /** The session. */
  id: string
  /** The node that registered or last adopted it. */
  node: string
  /** Where it is in its life. */
  state: SessionState
  /** Whose it is, as a keyed hash of the owner's token; not there for a session of nobody. */
  owner?: string
  /** When it was registered, on this process's clock. */
  createdAt: Date
  /** When it was last accessed, to a 20th of the time after which it is stale. */
  lastAccessedAt: Date
  /** Milliseconds since it was registered. */
  ageMs: number
  /** Milliseconds since it was last accessed. */
  idleMs: number
  /** Requests under way on live nodes. */
  activeRequests: number
  /** Why it is closing or closed. */
  reason?: string
  /** What the application keeps with it. */
  metadata?: JsonValue
  /** What the client said at `initialize` and since, where it was asked for. */
  info?: SessionInfo
}

/** A session to register. */
export interface NewSession {
  /** An id that was made elsewhere, and is unguessable; without it one is made (256 random bits). */
  id?: string | undefined
  /** The token of its owner; only a keyed hash of it is kept. */
  owner?: string | undefined
  /** What the application keeps with it; within `registry.maxMetadataBytes`. */
  metadata?: JsonValue | undefined
}

/** On whose behalf a session is asked for; without either, for somebody without a token. */
export interface Caller {
  /** The owner's token. */
  owner?: string | undefined
  /** The server itself, which has checked already, or need not. */
  trusted?: boolean | undefined
}

/** Which sessions to list; what is left out is not asked for. */
export interface SessionFilter {
  /** Only those of the owner of this token. */
  owner?: string | undefined
  /** Only those this node answers for. */
  node?: string | undefined
  /** Only those in this state. */
  state?: SessionState | undefined
}

/** Which page of a list. */
export interface PageRequest {
  /** `next` of the page before. */
  after?: string | undefined
  /** The most sessions looked at for this page, 1 to 1,000 (default: 100). */
  limit?: number | undefined
  /** Whether each record has its `info`, which costs a read a session. */
  info?: boolean | undefined
}

/** A page of a list. It may be shorter than its limit, even empty, and still have a next one. */
export interface SessionPage {
  /** The sessions. */
  sessions: SessionRecord[]
  /** Where the next page begins, if there is one. */
  next?: string
}

/** What is registered, in numbers. */
export interface RegistryStats {
  /** All sessions, those that are closing included. */
  total: number
  /** Accessed lately, or with a request under way. */
  active: number
  /** Not accessed for so long that the next sweep closes them. */
  stale: number
  /** Closing. */
  closing: number
  /** How many each node answers for. */
  byNode: { [node: string]: number }
}

/** A session of this process that is closing. */
export interface Closing {
  /** The session. */
  session: string
  /** Why: what was given to `close`, else `stale`, `shutdown`, or `lost` if its record has gone. */
  reason: string
}

/** A record as the addon gives it. */
type Crossed = Omit<SessionRecord, 'createdAt' | 'lastAccessedAt'>

function recordOf(crossed: Crossed): SessionRecord {
  const now = Date.now()
  return {
    ...crossed,
    createdAt: new Date(now - crossed.ageMs),
    lastAccessedAt: new Date(now - crossed.idleMs),
  }
}

const MAX_OWNER_BYTES = 16 << 10
let numbers = 0

/** A number for what a port keeps, never the same within it for as long as anybody could hold it. */
function nextNumber(): number {
  numbers = (numbers % 0x7fffffff) + 1
  return numbers
}

/** A request under way; its session is not stale until it ends. */
export class ActiveRequest {
  /** The session it belongs to. */
  readonly session: string
  #port: Port
  #number: number | undefined

  /** @internal */
  constructor(port: Port, session: string, number: number) {
    this.#port = port
    this.session = session
    this.#number = number
  }

  /** Ends the request; resolves when the other nodes can know. Ending it twice is fine. */
  async end(): Promise<void> {
    const token = this.#taken()
    if (token !== undefined) await this.#port.ask('registry', { end: { token } })
  }

  /** {@link end} without waiting. */
  [Symbol.dispose](): void {
    const token = this.#taken()
    if (token !== undefined) this.#port.call('registry', { drop: { token } })
  }

  /** {@link end}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.end()
  }

  #taken(): number | undefined {
    const number = this.#port.isClosed ? undefined : this.#number
    this.#number = undefined
    return number
  }
}

/** The closings of sessions this node created or adopted: each is read once, by each receiver. */
export class Closings implements AsyncIterable<Closing> {
  #port: Port
  #token: number
  #over = false

  /** @internal */
  constructor(port: Port, token: number) {
    this.#port = port
    this.#token = token
  }

  /** The next closing; `undefined` once the engine was shut down. Waiting does not keep the process alive. */
  async next(): Promise<Closing | undefined> {
    if (this.#over || this.#port.isClosed) return undefined
    const request = { nextClosing: { token: this.#token } }
    const found = await this.#port.call<[string, string] | null>('registry', request, true)
    if (found === null || this.#over) return undefined
    return { session: found[0], reason: found[1] }
  }

  /** Wants no more. */
  close(): void {
    if (this.#over || this.#port.isClosed) return
    this.#over = true
    this.#port.call('registry', { unfollow: { token: this.#token } })
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Closing, void, undefined> {
    try {
      for (let closing = await this.next(); closing !== undefined; closing = await this.next()) yield closing
    } finally {
      this.close()
    }
  }
}

/**
 * A session's life, on every node: who owns it, when it was last used, when it dies. Closing is one act
 * seen everywhere; a closed session leaves a tombstone, so that no node answers for its id.
 *
 * @example
 * ```ts
 * import { Engine } from 'mcp-sessions'
 *
 * const { registry } = Engine.memory()
 * const id = await registry.create({ owner: 'token-of-ada', metadata: { plan: 'pro' } })
 * console.log((await registry.get(id, { owner: 'token-of-ada' }))?.metadata)
 * const request = await registry.beginRequest(id)
 * await request.end()
 * await registry.closeByOwner('token-of-ada', 'revoked')
 * ```
 */
export class Registry {
  #port: Port

  /** @internal */
  constructor(port: Port) {
    this.#port = port
  }

  /**
   * Registers a session, and resolves to its id. It is known from here on, so events for it wait for its
   * stream. Rejects with `conflict` for an id that is registered or was closed a short while ago,
   * `too_large`, or `closed` once this node drains.
   */
  async create(session: NewSession = {}): Promise<string> {
    const operation = 'registry.create'
    const { id, owner, metadata } = session
    if (id !== undefined) checkSessionId(id, operation)
    if (owner !== undefined) checkOwner(owner, operation)
    return this.#port.ask<string>('registry', { create: { id, owner, metadata: checkMetadata(metadata, operation) } })
  }

  /**
   * A session that answers requests, for its owner; this counts as access. `undefined` for everybody else,
   * exactly as for a session that is closing, closed, or was never there.
   */
  async get(id: string, caller: Caller = {}): Promise<SessionRecord | undefined> {
    const operation = 'registry.get'
    checkSessionId(id, operation)
    if (caller.owner !== undefined) checkOwner(caller.owner, operation)
    return this.#record({ get: { id, owner: caller.owner, trusted: caller.trusted === true } })
  }

  /** All that is known of a session, whoever owns it, its tombstone included. This is no access. */
  async peek(id: string): Promise<SessionRecord | undefined> {
    checkSessionId(id, 'registry.peek')
    return this.#record({ peek: { id } })
  }

  /** The oldest session of an owner that answers requests; this counts as access. */
  async getByOwner(owner: string): Promise<SessionRecord | undefined> {
    checkOwner(owner, 'registry.get_by_owner')
    return this.#record({ getByOwner: { owner } })
  }

  /** Whether a session answers requests. This is no access. */
  async has(id: string): Promise<boolean> {
    checkSessionId(id, 'registry.has')
    return this.#port.ask<boolean>('registry', { has: { id } })
  }

  /**
   * Notes that a request of the session begins: it is not stale until that ends, unless this process dies.
   * Rejects with `not_found` for a session that does not answer requests (answer 404), `closed` once this
   * node drains.
   */
  async beginRequest(id: string): Promise<ActiveRequest> {
    checkSessionId(id, 'registry.begin_request')
    const token = nextNumber()
    await this.#port.ask('registry', { begin: { id, token } })
    return new ActiveRequest(this.#port, id, token)
  }

  /**
   * Makes this node answer for a session that another one created: it has local objects of it now, and
   * {@link closings} tells when they have to end. False when there is no such session.
   */
  async adopt(id: string): Promise<boolean> {
    checkSessionId(id, 'registry.adopt')
    return this.#port.ask<boolean>('registry', { adopt: { id } })
  }

  /**
   * Closes a session, wherever it is held, with a reason of 1 to 64 visible characters. True for the one
   * call that closed it. When this resolves no node answers for the session any more.
   */
  async close(id: string, reason = 'closed'): Promise<boolean> {
    const operation = 'registry.close'
    checkSessionId(id, operation)
    checkText(reason, 'a reason', 1024, operation)
    return this.#port.ask<boolean>('registry', { close: { id, reason } })
  }

  /** Closes all sessions of an owner, wherever they are held; how many this call closed. */
  async closeByOwner(owner: string, reason = 'closed'): Promise<number> {
    const operation = 'registry.close_by_owner'
    checkOwner(owner, operation)
    checkText(reason, 'a reason', 1024, operation)
    return this.#port.ask<number>('registry', { closeByOwner: { owner, reason } })
  }

  /** Lists registered sessions, page by page. Listing is no access. */
  async list(filter: SessionFilter = {}, page: PageRequest = {}): Promise<SessionPage> {
    const operation = 'registry.list'
    const { owner, node, state } = filter
    const { after, limit = 100, info = false } = page
    if (owner !== undefined) checkOwner(owner, operation)
    if (!Number.isInteger(limit) || limit < 0) throw new InvalidInputError('a limit is 1 to 1,000', operation)
    const request = { list: { owner, node, state, after, limit, info } }
    const got = await this.#port.ask<{ sessions: Crossed[]; next?: string }>('registry', request)
    const sessions = got.sessions.map(recordOf)
    return got.next === undefined ? { sessions } : { sessions, next: got.next }
  }

  /** How many sessions there are, on all nodes. */
  stats(): Promise<RegistryStats> {
    return this.#port.ask<RegistryStats>('registry', { stats: {} })
  }

  /** Closes stale sessions now instead of at the next turn; how many this call closed. */
  sweepStale(): Promise<number> {
    return this.#port.ask<number>('registry', { sweep: {} })
  }

  /** The closings of sessions this node created or adopts, from now on. */
  closings(): Closings {
    const token = nextNumber()
    this.#port.call('registry', { follow: { token } })
    return new Closings(this.#port, token)
  }

  /**
   * Takes no more sessions and requests on this node, and waits until those under way have ended; resolves
   * to how many had not after `deadlineMs`. The sessions live on, for other nodes to adopt.
   */
  drain(deadlineMs = 5_000): Promise<number> {
    return this.#port.ask<number>('registry', { drain: { ms: Math.ceil(deadlineMs) } })
  }

  /** {@link drain}s, then closes the sessions this node created or adopted, with the reason `shutdown`. */
  async shutdown(deadlineMs = 5_000): Promise<{ closed: number; requestsLeft: number }> {
    const request = { shutdown: { ms: Math.ceil(deadlineMs) } }
    const [closed, requestsLeft] = await this.#port.ask<[number, number]>('registry', request)
    return { closed, requestsLeft }
  }

  async #record(request: object): Promise<SessionRecord | undefined> {
    const found = await this.#port.ask<Crossed | null>('registry', request)
    return found === null ? undefined : recordOf(found)
  }
}

function checkOwner(owner: unknown, operation: string): asserts owner is string {
  checkText(owner, "an owner's token", MAX_OWNER_BYTES, operation)
  if (owner === '') throw new InvalidInputError("an owner's token is not empty", operation)
}

/** What JSON makes of it; its size is looked at by the engine. */
function checkMetadata(metadata: unknown, operation: string): unknown {
  if (metadata === undefined) return undefined
  try {
    const text = JSON.stringify(metadata)
    if (text?.isWellFormed()) return metadata
  } catch {
    // A cycle, or a big integer.
  }
  throw new InvalidInputError('metadata is a JSON value', operation)
}
