// tmcp's session info in a Worker: fresh in the session's object, and in KV behind it.

import { env } from 'cloudflare:workers'
import { checkLogLevel, checkSessionId, checkUri, type LogLevel } from '../check.js'
import { asError, ConfigError, InvalidInputError, NotFoundError, TooLargeError } from '../errors.js'
import { KvInfo } from './kv.mjs'
import { OBJECTS, Objects, seenThrough, type WorkerOptions } from './objects.mjs'
import type { KvNamespace } from './platform.mjs'
import { visits } from './visits.mjs'

type Context = import('tmcp', { with: { 'resolution-mode': 'import' }}).Context
type Known = NonNullable<Context['sessionInfo']>

/** The options of an info manager. */
export interface InfoOptions extends WorkerOptions {
  /** The binding of the Durable Objects (default: `TMCP_DURABLE_OBJECT`). Without one there is KV alone. */
  objects?: string
}

/** A session's info; documents are JSON. */
export interface Info {
  clientInfo?: string | null
  clientCapabilities?: string | null
  logLevel?: string | null
}

const TTL_MS = 24 * 3_600_000
const MAX_URI_BYTES = 8 << 10
const MAX_INFO_BYTES = 64 << 10
const MAX_SUBSCRIPTIONS = 10_000
/** Turns of the microtask queue for which what was read is good: no other request comes in between. */
const TURNS = 64

/**
 * Takes the place of tmcp's `KVInfoSessionManager`: in the same keys, with a time to live. What a session set is
 * read by every Worker at once, as the session's object has it, too; KV alone takes up to a minute.
 */
export class KVInfoSessionManager {
  #binding: string
  #objects: Objects
  #kv: KvInfo
  /** What is on its way: read by this isolate before it arrived. */
  #writing = new Map<string, { info: Info; count: number }>()
  #read = new Map<string, Info | null>()

  /** The binding of the KV namespace, and options. Throws `config`. */
  constructor(binding: string = 'TMCP_SESSION_INFO', options: InfoOptions = {}) {
    if (typeof binding !== 'string' || binding === '') {
      throw new ConfigError('a manager is made with the name of a binding', 'connect')
    }
    const { objects = OBJECTS, ...rest } = options
    this.#binding = binding
    this.#objects = new Objects(objects, rest)
    this.#kv = new KvInfo(() => this.#namespace, rest.prefix ?? 'tmcp:', rest.sessionTtlMs ?? TTL_MS)
  }

  get #namespace(): KvNamespace {
    const found = env[this.#binding] as KvNamespace | undefined
    if (typeof found?.getWithMetadata === 'function' && typeof found.list === 'function') return found
    throw new ConfigError(`${this.#binding} is not a KV namespace`, 'connect')
  }

  /** `clientInfo`; rejects with `Client info not found for session …` when it was never set. */
  async getClientInfo(id: string): Promise<Known['clientInfo']> {
    return JSON.parse(await this.#get(id, 'clientInfo', 'Client info'))
  }

  /** Sets `clientInfo`. */
  async setClientInfo(id: string, clientInfo: Known['clientInfo']): Promise<void> {
    await this.#set(id, () => ({ clientInfo: this.#json(clientInfo, 'client info') }))
  }

  /** `capabilities`; rejects with `Client capabilities not found for session …` when they were never set. */
  async getClientCapabilities(id: string): Promise<Known['clientCapabilities']> {
    return JSON.parse(await this.#get(id, 'clientCapabilities', 'Client capabilities'))
  }

  /** Sets `capabilities`. */
  async setClientCapabilities(id: string, capabilities: Known['clientCapabilities']): Promise<void> {
    await this.#set(id, () => ({ clientCapabilities: this.#json(capabilities, 'client capabilities') }))
  }

  /** The log level; rejects with `Log Level not found for session …` when it was never set. */
  async getLogLevel(id: string): Promise<Known['logLevel']> {
    return (await this.#get(id, 'logLevel', 'Log Level')) as LogLevel
  }

  /** Sets the log level. */
  async setLogLevel(id: string, logLevel: Known['logLevel']): Promise<void> {
    await this.#set(id, () => {
      checkLogLevel(logLevel, 'info.put')
      return { logLevel }
    })
  }

  /**
   * The sessions subscribed to a resource, each once. It never rejects: transports ask from listeners that
   * nobody awaits. What goes wrong is told to `onError`, and nobody is subscribed then.
   */
  getSubscriptions(uri: string): Promise<string[]> {
    return seenThrough(this.#subscribers(uri))
  }

  async #subscribers(uri: string): Promise<string[]> {
    const operation = 'info.subscribers'
    try {
      checkUri(uri, this.#objects.settings.maxUriBytes ?? MAX_URI_BYTES, operation)
      const older = this.#kv.subscribers(uri)
      if (!this.#objects.isBound) return [...new Set(await older)]
      const lists = await this.#objects.askAll<string[]>(operation, { ask: { Subscribers: uri } })
      const found = new Set(lists.flat())
      // What KV alone knows is of a Worker that has not this package yet; of others KV may be behind.
      const only = (await older).filter((id) => !found.has(id))
      const known = await Promise.all(only.map((id) => this.#objects.ask<Info | null>(operation, id, { info: id })))
      return [...found, ...new Set(only.filter((_, at) => known[at] === null))]
    } catch (thrown) {
      this.#objects.report(asError(thrown, operation))
      return []
    }
  }

  /** Subscribes a session to a resource. */
  addSubscription(id: string, uri: string): Promise<void> {
    const max = this.#objects.settings.maxSubscriptions ?? MAX_SUBSCRIPTIONS
    return this.#change('info.add_subscription', id, uri, { Subscribe: { session: id, uri, max } }, () =>
      this.#kv.subscribe(id, uri),
    )
  }

  /** Ends a session's subscription to a resource. */
  removeSubscription(id: string, uri: string): Promise<void> {
    return this.#change('info.remove_subscription', id, uri, { Unsubscribe: { session: id, uri } }, () =>
      this.#kv.unsubscribe(id, uri),
    )
  }

  /** Deletes what is known of a session, and its resource subscriptions. */
  async delete(id: string): Promise<void> {
    const operation = 'info.delete'
    // A client that is merely gone may come back: only the end of its session forgets it.
    if (visits.getStore()?.kind === 'leave') return
    await this.#attempt(operation, async () => {
      checkSessionId(id, operation)
      const uris = this.#objects.isBound
        ? await this.#objects.ask<string[]>(operation, id, { ask: { Subscriptions: id } })
        : []
      await Promise.all([
        this.#objects.isBound && this.#objects.ask(operation, id, { ask: { ForgetInfo: id } }),
        this.#kv.delete(id, uris),
      ])
    })
  }

  /** Resolves once what this isolate set so far is known to all, or failed. */
  async written(): Promise<void> {
    // A promise of another request can't be waited for: its own calls are in the objects' hands by now, and in order.
    const deadline = Date.now() + 2_000
    while (this.#writing.size > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 1))
  }

  async #get(id: string, field: keyof Info, title: string): Promise<string> {
    const operation = 'info.get'
    checkSessionId(id, operation)
    const value = this.#writing.get(id)?.info[field] ?? (await this.#all(id))?.[field]
    if (value == null) throw new NotFoundError(`${title} not found for session ${id}`, operation)
    return value
  }

  /** All info of a session. tmcp reads three fields one after the other: that is one call. */
  async #all(id: string): Promise<Info | null> {
    const known = this.#read.get(id)
    if (known !== undefined) return known
    const read = await this.#readAll(id)
    this.#read.set(id, read)
    void turns(TURNS).then(() => this.#read.delete(id))
    return read
  }

  async #readAll(id: string): Promise<Info | null> {
    try {
      const fresh = this.#objects.isBound ? await this.#objects.ask<Info | null>('info.get', id, { info: id }) : null
      return fresh ?? (await this.#kv.read(id))
    } catch (thrown) {
      const error = asError(thrown, 'info.get')
      this.#objects.report(error)
      throw error
    }
  }

  async #set(id: string, make: () => Info): Promise<void> {
    const operation = 'info.put'
    await this.#attempt(operation, async () => {
      checkSessionId(id, operation)
      const info = make()
      const under = this.#writing.get(id) ?? { info: {}, count: 0 }
      under.info = { ...under.info, ...info }
      under.count += 1
      this.#writing.set(id, under)
      this.#read.delete(id)
      try {
        await Promise.all([
          this.#objects.isBound && this.#objects.ask(operation, id, { putInfo: { session: id, info } }),
          this.#kv.write(id, info),
        ])
      } finally {
        under.count -= 1
        if (under.count === 0) this.#writing.delete(id)
      }
    })
  }

  #json(value: unknown, title: string): string {
    const text = JSON.stringify(value)
    if (text === undefined) throw new InvalidInputError(`${title} can't be written as JSON`, 'info.put')
    const limit = this.#objects.settings.maxInfoBytes ?? MAX_INFO_BYTES
    if (new TextEncoder().encode(text).length > limit) {
      throw new TooLargeError(`${title} is over the limit of ${limit} bytes`, 'info.put')
    }
    return text
  }

  async #change(operation: string, id: string, uri: string, request: object, kv: () => Promise<void>): Promise<void> {
    await this.#attempt(operation, async () => {
      checkSessionId(id, operation)
      checkUri(uri, this.#objects.settings.maxUriBytes ?? MAX_URI_BYTES, operation)
      await Promise.all([this.#objects.isBound && this.#objects.ask(operation, id, { ask: request }), kv()])
    })
  }

  /** Goes on when the request is over, and nobody has to wait for it. */
  #attempt<T>(operation: string, work: () => Promise<T>): Promise<T> {
    const done = work().catch((thrown) => {
      const error = asError(thrown, operation)
      this.#objects.report(error)
      throw error
    })
    return seenThrough(done)
  }
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await null
}
