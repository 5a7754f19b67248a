// The Durable Objects of a deployment: how many there are, which one has a session, how it is asked.

import { env, waitUntil } from 'cloudflare:workers'
import { asError, ConfigError, type ErrorCode, errorOf, type McpSessionsError, UnavailableError } from '../errors.js'
import type { Options } from '../options.js'
import type { ObjectNamespace, ObjectStub } from './platform.mjs'

/** As many objects as share the sessions, if nothing else is said. */
const DEFAULT_SHARDS = 8
const MAX_SHARDS = 256
const PREFIX = /^[\x21-\x7e]{0,256}$/
/** The binding of the seed. */
export const OBJECTS = 'TMCP_DURABLE_OBJECT'
/** Says in `wrangler.toml` how many objects there are, for managers and gateway alike. */
const SHARDS_VARIABLE = 'TMCP_SHARDS'

/** How a manager in a Worker is made, besides the options of an engine. */
export interface WorkerOptions extends Options {
  /** Deployments with different prefixes share nothing (default: `tmcp:`). */
  prefix?: string
  /**
   * How many objects share the sessions (default: `TMCP_SHARDS`, else 8). Fixed for a prefix: another number
   * is another, empty set of objects. Each object has an order of broadcasts of its own: two that are sent at
   * the same time may reach sessions of different objects in different order.
   */
  shards?: number
  /** `false`: nothing is kept for replay, and delivery is live only. */
  history?: boolean
  /** Told of every failure; by default a line is logged. */
  onError?: (error: McpSessionsError) => void
}

/** What the sync layer answers. */
interface Answer {
  ok?: unknown
  code?: ErrorCode
  message?: string
}

/** An event to sessions of one object, or to all. */
export interface Sending {
  sessions?: string[]
  payload: string
  key?: string
}

/** What became of an event: accepted, dropped, accepted before. */
export type Counts = [accepted: number, dropped: number, duplicates: number]

/** The objects behind one binding. */
export class Objects {
  readonly binding: string
  /** The engine's options, as the sync layer reads them. */
  readonly options: string
  readonly settings: Options
  readonly report: (error: McpSessionsError) => void
  #prefix: string
  #asked: number | undefined
  /** What was sent in this turn, by object. */
  #turn = new Map<number, { sendings: Sending[]; sent: Promise<Counts[]> }>()

  constructor(binding: string, given: WorkerOptions = {}) {
    if (typeof binding !== 'string' || binding === '') {
      throw new ConfigError('a manager is made with the name of a binding', 'connect')
    }
    const { prefix = 'tmcp:', shards, history, onError, ...options } = given
    if (typeof prefix !== 'string' || !PREFIX.test(prefix)) {
      throw new ConfigError('a prefix is visible ASCII, at most 256 bytes', 'connect')
    }
    if (shards !== undefined) checkShards(shards)
    this.binding = binding
    this.settings = history === false ? withoutHistory(options) : options
    this.options = JSON.stringify(this.settings)
    this.report = onError ?? logError
    this.#prefix = prefix
    this.#asked = shards
  }

  /** How many there are. */
  get shards(): number {
    this.#asked ??= shardsOf(env)
    return this.#asked
  }

  /** Whether the binding is there: managers are made before they are used. */
  get isBound(): boolean {
    return isNamespace(env[this.binding])
  }

  get #namespace(): ObjectNamespace {
    const found = env[this.binding]
    if (isNamespace(found)) return found
    throw new ConfigError(`${this.binding} is not a Durable Object namespace`, 'connect')
  }

  /** The object of a session. A stub is an I/O object: it serves the request at hand, and is not kept. */
  of(id: string): ObjectStub {
    return this.at(this.shardOf(id))
  }

  shardOf(id: string): number {
    return shardOf(id, this.shards)
  }

  at(shard: number): ObjectStub {
    return this.#namespace.getByName(objectName(this.#prefix, shard, this.shards))
  }

  /** Asks the object of a session. */
  ask<T>(operation: string, id: string, question: object | string, again = true): Promise<T> {
    return this.#ask(operation, () => this.of(id), question, again)
  }

  /** Asks all objects at once: a call each. */
  askAll<T>(operation: string, question: object | string, again = true): Promise<T[]> {
    const all = Array.from({ length: this.shards }, (_, shard) => shard)
    return Promise.all(all.map((shard) => this.#ask<T>(operation, () => this.at(shard), question, again)))
  }

  /** Asks one object. */
  askAt<T>(operation: string, shard: number, question: object | string): Promise<T> {
    return this.#ask(operation, () => this.at(shard), question, true)
  }

  /** Done also when the request at hand ends first: transports do not wait for what they send. */
  #ask<T>(operation: string, stub: () => ObjectStub, question: object | string, again: boolean): Promise<T> {
    return seenThrough(this.#tryTo<T>(operation, stub, question, again))
  }

  /** What can be done twice is: an object that was moved or crashed is there again at once. */
  async #tryTo<T>(operation: string, stub: () => ObjectStub, question: object | string, again: boolean): Promise<T> {
    const text = JSON.stringify(question)
    let answer: string
    try {
      answer = await stub().ask(this.options, text)
    } catch (first) {
      if (!again) throw lost(first, operation)
      try {
        answer = await stub().ask(this.options, text)
      } catch (error) {
        throw lost(error, operation)
      }
    }
    return answerOf(JSON.parse(answer) as Answer, operation) as T
  }

  /**
   * Sends to an object's sessions. What is sent in one turn belongs to one request, and leaves as one call.
   */
  async send(shard: number, sending: Sending): Promise<Counts> {
    const turn = this.#turn.get(shard) ?? this.#newTurn(shard)
    const at = turn.sendings.push(sending) - 1
    const counts = (await turn.sent)[at]
    if (counts === undefined) throw new UnavailableError('the Durable Object gave no answer', 'streams.send')
    return counts
  }

  #newTurn(shard: number): { sendings: Sending[]; sent: Promise<Counts[]> } {
    const sendings: Sending[] = []
    const sent = Promise.resolve().then(() => {
      this.#turn.delete(shard)
      const again = sendings.every(({ key }) => key !== undefined)
      return this.#tryTo<Counts[]>('streams.send', () => this.at(shard), { send: sendings }, again)
    })
    seenThrough(sent)
    const turn = { sendings, sent }
    this.#turn.set(shard, turn)
    return turn
  }

  /** Opens a socket of the request at hand. */
  async connect(operation: string, id: string, path: string, request: object): Promise<WorkerSocket> {
    const query = new URLSearchParams({ options: this.options, request: JSON.stringify(request) })
    const url = `https://sync-layer/${path}?${query}`
    const open = () => this.of(id).fetch(url, { headers: { Upgrade: 'websocket' } })
    const response = await open()
      .catch(open)
      .catch((error) => {
        throw lost(error, operation)
      })
    const { webSocket } = response as Response & { webSocket?: WorkerSocket }
    if (response.status === 101 && webSocket) return webSocket
    return answerOf((await response.json()) as Answer, operation) as never
  }
}

/** Waits for the parts of one send: that nothing happened is true only if it is of every part. */
export async function parts<T>(sent: Promise<T>[], operation: string): Promise<T[]> {
  const [only] = sent
  if (only !== undefined && sent.length === 1) return [await only.catch((thrown) => fail(thrown, operation))]
  const ends = await Promise.allSettled(sent)
  const failed = ends.flatMap((end) => (end.status === 'rejected' ? [asError(end.reason, operation)] : []))
  const error = failed.find((one) => one.outcomeUnknown) ?? failed[0]
  if (error === undefined) return Promise.all(sent)
  if (error.outcomeUnknown || failed.length === ends.length) throw error
  throw errorOf(JSON.stringify({ code: error.code, message: error.message, operation, outcomeUnknown: true }))
}

function fail(thrown: unknown, operation: string): never {
  throw asError(thrown, operation)
}

/** Keeps the request at hand alive until this is done, and what follows on it has begun. */
export function seenThrough<T>(work: Promise<T>): Promise<T> {
  // The platform looks whether a request is done once the turn is over, in which what follows begins.
  const over = () => {}
  const quiet = work.then(over, over)
  try {
    waitUntil(quiet)
  } catch {
    // Outside of a request nothing ends it.
  }
  return work
}

/** The end of a WebSocket that is in a Worker. */
export interface WorkerSocket {
  binaryType?: string
  accept(): void
  send(message: string | ArrayBuffer | Uint8Array): void
  close(code?: number, reason?: string): void
  addEventListener(type: 'message', listener: (event: { data: ArrayBuffer | string }) => void): void
  addEventListener(type: 'close' | 'error', listener: () => void): void
}

function answerOf(answer: Answer, operation: string): unknown {
  if (answer.code === undefined) return answer.ok
  throw errorOf(JSON.stringify({ ...answer, operation, outcomeUnknown: false }))
}

function lost(cause: unknown, operation: string): McpSessionsError {
  if ((cause as McpSessionsError)?.code === 'config') return cause as McpSessionsError
  return new UnavailableError('the Durable Object did not answer', operation, { cause, outcomeUnknown: true })
}

/** FNV-1a: spreads ids that differ in a digit, and is the same in every language. */
export function shardOf(id: string, shards: number): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < id.length; at++) hash = Math.imul(hash ^ id.charCodeAt(at), 0x01000193)
  return (hash >>> 0) % shards
}

/** The number is part of the name: other numbers are other objects. */
export function objectName(prefix: string, shard: number, shards: number): string {
  return shards === 1 ? `${prefix}sync-layer` : `${prefix}sync-layer/${shard}/${shards}`
}

/** How many objects an environment asks for. */
export function shardsOf(bindings: Record<string, unknown>): number {
  const asked = bindings[SHARDS_VARIABLE]
  return asked === undefined ? DEFAULT_SHARDS : checkShards(Number(asked))
}

export function checkShards(shards: number): number {
  if (Number.isSafeInteger(shards) && shards >= 1 && shards <= MAX_SHARDS) return shards
  throw new ConfigError(`there are 1 to ${MAX_SHARDS} shards`, 'connect')
}

function isNamespace(it: unknown): it is ObjectNamespace {
  return typeof (it as ObjectNamespace | undefined)?.getByName === 'function'
}

function withoutHistory(options: Options): Options {
  const { retention, broadcastRetention } = options
  return {
    ...options,
    retention: { ...retention, events: 0 },
    broadcastRetention: { ...broadcastRetention, events: 0 },
  }
}

function logError(error: McpSessionsError): void {
  console.error(`[mcp-sessions] ${error.operation} failed (${error.code}): ${error.message}`)
}
