// The registry of sessions in a Worker, on the objects that have the sessions.

import { checkSessionId, checkText } from '../check.js'
import { asError, ConflictError, InvalidInputError, NotFoundError, TooLargeError } from '../errors.js'
import type {
  Caller,
  JsonValue,
  NewSession,
  PageRequest,
  RegistryStats,
  SessionFilter,
  SessionPage,
  SessionRecord,
} from '../registry.js'
import { OBJECTS, Objects, type WorkerOptions } from './objects.mjs'
import { type SigningKey, workers } from './platform.mjs'

/** Sessions that a Worker registered name no process. */
const NO_NODE = '0'.repeat(32)
const MAX_OWNER_BYTES = 16 << 10
const MAX_METADATA_BYTES = 16 << 10
const STALE_MS = 30 * 60_000
const MAX_PAGE = 1_000
const REASON = /^[\x21-\x7e]{1,64}$/

/** A record as the sync layer has it. */
interface Stored {
  owner: string | null
  node: string
  created_ms: number
  last_access_ms: number
  now_ms: number
  active_requests: number
  state: 'Open' | 'Closing' | 'Closed'
  reason: string | null
  metadata: string | null
}

interface Counts {
  active: number
  stale: number
  closing: number
  by_node: Record<string, number>
}

interface Listed {
  sessions: string[]
  /** After which session the object goes on. */
  next: string | null
}

type Touch = 'Nobody' | 'Anybody' | { Owner: string | null }

/** A request under way; its session is accessed when it begins and when it ends. */
export interface WorkerRequest {
  readonly session: string
  end(): Promise<void>
}

/**
 * The life of sessions: who owns them, which requests they answer, when they are stale, and their end. Stale
 * ones are closed by the objects' own alarms. An open stream of a Worker counts as a request under way.
 */
export class DurableObjectSessionRegistry {
  #objects: Objects
  #key: SigningKey | undefined

  /** The binding of the Durable Objects, and options. Throws `config`. */
  constructor(binding: string = OBJECTS, options: WorkerOptions = {}) {
    this.#objects = new Objects(binding, options)
  }

  /** Registers a new session; its id, of 256 random bits unless it is given. Rejects with `conflict`. */
  async create(session: NewSession = {}): Promise<string> {
    const operation = 'registry.create'
    const { id = randomId(), owner, metadata } = session
    checkSessionId(id, operation)
    const text = metadata === undefined ? null : JSON.stringify(metadata)
    const limit = this.#objects.settings.registry?.maxMetadataBytes ?? MAX_METADATA_BYTES
    if (text !== null && new TextEncoder().encode(text).length > limit) {
      throw new TooLargeError(`the metadata is over the limit of ${limit} bytes`, operation)
    }
    const hash = owner === undefined ? null : await this.#hash(owner, operation)
    const created = await this.#ask<boolean>(operation, id, {
      Register: { session: id, new: { owner: hash, node: NO_NODE, metadata: text } },
    })
    if (created) return id
    throw new ConflictError(`session ${id} exists, or was closed a short while ago; use another id`, operation)
  }

  /** A session that answers requests, for its owner; this counts as access. `undefined` for everybody else. */
  async get(id: string, caller: Caller = {}): Promise<SessionRecord | undefined> {
    const operation = 'registry.get'
    checkSessionId(id, operation)
    const { owner, trusted = false } = caller
    const hash = owner === undefined ? null : await this.#hash(owner, operation)
    const record = await this.#read(operation, id, trusted ? 'Anybody' : { Owner: hash })
    if (record?.state !== 'Open') return undefined
    return trusted || record.owner === hash ? this.#told(id, record) : undefined
  }

  /** All that is known of a session, also while it is closing or has its tombstone. This is no access. */
  async peek(id: string): Promise<SessionRecord | undefined> {
    checkSessionId(id, 'registry.peek')
    const record = await this.#read('registry.peek', id, 'Nobody')
    return record && this.#told(id, record)
  }

  /** The oldest session of an owner that answers requests; this counts as access. */
  async getByOwner(owner: string): Promise<SessionRecord | undefined> {
    const operation = 'registry.get_by_owner'
    const hash = await this.#hash(owner, operation)
    const theirs = await this.#owned(operation, hash)
    const records = await Promise.all(theirs.map((id) => this.#read(operation, id, 'Nobody')))
    const open = theirs
      .map((id, at) => ({ id, record: records[at] }))
      .filter(({ record }) => record?.state === 'Open')
      .sort((a, b) => (a.record?.created_ms ?? 0) - (b.record?.created_ms ?? 0))
    return open[0] && this.get(open[0].id, { owner })
  }

  /** Whether a session answers requests. This is no access. */
  async has(id: string): Promise<boolean> {
    checkSessionId(id, 'registry.has')
    return (await this.#read('registry.has', id, 'Nobody'))?.state === 'Open'
  }

  /** Notes that a request of the session begins. Rejects with `not_found`. */
  async beginRequest(id: string): Promise<WorkerRequest> {
    const operation = 'registry.begin_request'
    checkSessionId(id, operation)
    const report = { Report: { node: NO_NODE, counts: [[id, 0]] } }
    const { Truths } = await this.#ask<{ Truths: boolean[] }>(operation, id, report)
    if (!Truths[0]) throw new NotFoundError(`session ${id} does not answer requests`, operation)
    let ended = false
    return {
      session: id,
      end: async () => {
        if (ended) return
        ended = true
        await this.#ask(operation, id, report)
      },
    }
  }

  /** Closes a session, and everything of it, wherever it is held; true for the one call that closed it. */
  async close(id: string, reason = 'closed'): Promise<boolean> {
    const operation = 'registry.close'
    checkSessionId(id, operation)
    if (!REASON.test(reason)) {
      throw new InvalidInputError('a reason has 1 to 64 visible ASCII characters', operation)
    }
    return this.#objects.ask<boolean>(operation, id, { close: { session: id, reason } })
  }

  /** Closes all sessions of an owner; how many this call closed. */
  async closeByOwner(owner: string, reason = 'closed'): Promise<number> {
    const operation = 'registry.close_by_owner'
    const theirs = await this.#owned(operation, await this.#hash(owner, operation))
    const closed = await Promise.all(theirs.map((id) => this.close(id, reason)))
    return closed.filter(Boolean).length
  }

  /** Lists registered sessions, page by page, object by object. */
  async list(filter: SessionFilter = {}, page: PageRequest = {}): Promise<SessionPage> {
    const operation = 'registry.list'
    const limit = page.limit ?? 100
    if (!Number.isSafeInteger(limit) || limit < 1 || limit > MAX_PAGE) {
      throw new InvalidInputError(`a page has a limit of 1 to ${MAX_PAGE}`, operation)
    }
    const owner = filter.owner === undefined ? null : await this.#hash(filter.owner, operation)
    const { shards } = this.#objects
    let [shard, after] = placeOf(page.after, shards, operation)
    const ids: string[] = []
    while (shard < shards && ids.length < limit) {
      const question = { ask: { List: { owner, node: filter.node ?? null, after, limit: limit - ids.length } } }
      const answer = await this.#objects.askAt<{ Listed: Listed }>(operation, shard, question)
      ids.push(...answer.Listed.sessions)
      after = answer.Listed.next
      if (after === null) shard += 1
    }
    const records = await Promise.all(ids.map((id) => this.#read(operation, id, 'Nobody')))
    const sessions = ids.flatMap((id, at) => {
      const record = records[at]
      return record && record.state !== 'Closed' ? [this.#told(id, record)] : []
    })
    const wanted = sessions.filter(({ state }) => filter.state === undefined || filter.state === state)
    return shard < shards ? { sessions: wanted, next: `${shard} ${after ?? ''}` } : { sessions: wanted }
  }

  /** How many sessions there are, on all objects. */
  async stats(): Promise<RegistryStats> {
    const answers = await this.#objects.askAll<{ Counts: Counts }>('registry.stats', { ask: 'Count' })
    const sum = { total: 0, active: 0, stale: 0, closing: 0, byNode: {} as Record<string, number> }
    for (const { Counts } of answers) {
      sum.active += Counts.active
      sum.stale += Counts.stale
      sum.closing += Counts.closing
      for (const [node, count] of Object.entries(Counts.by_node)) sum.byNode[node] = (sum.byNode[node] ?? 0) + count
    }
    sum.total = sum.active + sum.stale + sum.closing
    return sum
  }

  /** Closes stale sessions now, instead of at the next alarm; how many this call closed. */
  async sweepStale(): Promise<number> {
    const closed = await this.#objects.askAll<number>('registry.sweep', 'sweep')
    return closed.reduce((sum, count) => sum + count, 0)
  }

  async #owned(operation: string, hash: string): Promise<string[]> {
    return (await this.#objects.askAll<string[]>(operation, { ask: { Owned: hash } })).flat()
  }

  async #read(operation: string, id: string, touch: Touch): Promise<Stored | undefined> {
    const { Records } = await this.#ask<{ Records: (Stored | null)[] }>(operation, id, {
      Records: { sessions: [id], touch },
    })
    return Records[0] ?? undefined
  }

  #ask<T>(operation: string, id: string, request: object): Promise<T> {
    return this.#objects.ask<T>(operation, id, { ask: request })
  }

  #told(id: string, record: Stored): SessionRecord {
    const idleMs = record.now_ms - record.last_access_ms
    const staleMs = this.#objects.settings.registry?.staleMs ?? STALE_MS
    const isStale = idleMs >= staleMs && record.active_requests === 0
    const state = {
      Open: isStale ? ('stale' as const) : ('active' as const),
      Closing: 'closing' as const,
      Closed: 'closed' as const,
    }
    return {
      id,
      node: record.node,
      state: state[record.state],
      ...(record.owner !== null && { owner: record.owner }),
      createdAt: new Date(record.created_ms),
      lastAccessedAt: new Date(record.last_access_ms),
      ageMs: record.now_ms - record.created_ms,
      idleMs,
      activeRequests: record.active_requests,
      ...(record.reason !== null && { reason: record.reason }),
      ...(record.metadata !== null && { metadata: JSON.parse(record.metadata) as JsonValue }),
    }
  }

  /** An owner as it is stored: the same keyed hash that engines outside of Cloudflare make. */
  async #hash(owner: string, operation: string): Promise<string> {
    checkText(owner, "an owner's token", MAX_OWNER_BYTES, operation)
    if (owner === '') throw new InvalidInputError("an owner's token is not empty", operation)
    this.#key ??= await this.#ownerKey(operation)
    const text = new TextEncoder().encode(`mcp-sessions owner${owner}`)
    const mac = new Uint8Array(await workers.crypto.subtle.sign('HMAC', this.#key, text))
    return hex(mac.subarray(0, 16))
  }

  async #ownerKey(operation: string): Promise<SigningKey> {
    const { subtle } = workers.crypto
    const own = this.#objects.settings.registry?.ownerKey
    const bytes =
      own === undefined
        ? await this.#sharedKey(operation)
        : new Uint8Array(await subtle.digest('SHA-256', new TextEncoder().encode(own)))
    return subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign'])
  }

  /** The deployment's: the first one that asks sets it. */
  async #sharedKey(operation: string): Promise<Uint8Array> {
    const candidate = [...crypto.getRandomValues(new Uint8Array(32))]
    try {
      const { Key } = await this.#objects.askAt<{ Key: number[] }>(operation, 0, { ask: { RegistryKey: candidate } })
      return Uint8Array.from(Key)
    } catch (thrown) {
      throw asError(thrown, operation)
    }
  }
}

function randomId(): string {
  return hex(crypto.getRandomValues(new Uint8Array(32)))
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** Where a page begins: in which object, after which session. */
function placeOf(after: string | undefined, shards: number, operation: string): [number, string | null] {
  if (after === undefined) return [0, null]
  const [shard, session] = after.split(/ (.*)/s)
  if (session !== undefined && /^\d{1,3}$/.test(shard ?? '') && Number(shard) < shards) {
    return [Number(shard), session === '' ? null : session]
  }
  throw new InvalidInputError('this is not the next of a page', operation)
}
