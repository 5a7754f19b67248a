import { ConfigError, McpSessionsError } from './errors'
import { EventLog } from './events'
import { Info } from './info'
import { InfoCache } from './info-cache'
import type { Options } from './options'
import { type Described, distrustInfo, Port } from './port'
import { Registry } from './registry'
import { Streams } from './streams'
import { Subscriptions } from './subscriptions'

/** What a backend can do. */
export interface Capability {
  /** Operations are answered at once. */
  readonly immediate: boolean
  /** Replay merges a session's events and broadcasts by order of acceptance. */
  readonly mergedOrder: boolean
  /** Nodes may live in different processes. */
  readonly processes: boolean
  /** Time can be moved with `advanceClock`. */
  readonly manualClock: boolean
}

/** How an engine is. */
export interface Health {
  /** Open, with a valid lease and a backend that answers. */
  ready: boolean
  /** Not shut down. */
  open: boolean
  /** The backend answers. */
  backend: boolean
  /** What the backend said instead, if it does not. */
  problem: string | null
  /** This node's name. */
  node: string
  /** Milliseconds this node's lease is good for. */
  leaseLeftMs: number
}

/** What an engine counted since it was made, and what it holds now. */
export interface Stats {
  /** Streams this node holds. */
  streams: number
  /** Subscriptions (modern era) this node serves. */
  subscriptions: number
  /** Events accepted, counted in sessions; a broadcast counts once. */
  accepted: number
  /** Events dropped because their session is unknown. */
  dropped: number
  /** Events that an idempotency key showed to be accepted before. */
  duplicates: number
  /** Streams opened. */
  opened: number
  /** Streams opened with a gap. */
  gaps: number
  /** Streams ended because a newer one took over. */
  replaced: number
  /** Streams ended because their reader was too slow. */
  overflows: number
  /** Streams ended because this node's lease ran out. */
  fenced: number
  /** Times a missed signal was read from a log. */
  repairs: number
  /** Subscriptions ended because their reader was too slow. */
  subscriptionOverflows: number
}

/** Engines by their wrapper, for what is ours but nobody else's. */
const inner = new WeakMap<Engine, { port: Port; cache: InfoCache }>()

/** The port of an engine, and what it caches. */
export function innerOf(engine: Engine): { port: Port; cache: InfoCache } {
  return inner.get(engine) as { port: Port; cache: InfoCache }
}

/**
 * One node of a session engine: who holds which stream, what a client missed, what it said at
 * `initialize`. It never keeps the process alive by itself.
 *
 * @example
 * ```ts
 * import { Engine } from 'mcp-sessions'
 *
 * const engine = Engine.memory()
 * const stream = await engine.streams.open('session-1')
 * await engine.streams.send('session-1', 'hello')
 * console.log((await stream.next())?.payload)
 * await engine.shutdown()
 * ```
 */
export class Engine {
  /** The URL it was connected with. */
  readonly url: string
  /** Streams: open, send, has, close. */
  readonly streams: Streams
  /** What clients said at `initialize` and since. */
  readonly info: Info
  /** Subscriptions of the modern era. */
  readonly subscriptions: Subscriptions
  /** The registry: a session's life. */
  readonly registry: Registry
  #described: Described
  #port: Port

  private constructor(url: string, port: Port) {
    if (!(port instanceof Port))
      throw new ConfigError('an engine is made by Engine.connect or Engine.memory', 'connect')
    this.url = url
    this.#port = port
    this.#described = port.described
    const cache = new InfoCache(port)
    inner.set(this, { port, cache })
    this.streams = new Streams(port)
    this.info = new Info(port, cache)
    this.subscriptions = new Subscriptions(port)
    this.registry = new Registry(port)
  }

  /** @internal */
  static on(url: string, port: Port): Engine {
    return new Engine(url, port)
  }

  /**
   * Connects to a backend as a node of its own.
   *
   * `memory://name` is the embedded backend: engines in one process that name the same hub are separate
   * nodes of it. `memory://name?clock=manual` lets tests move time. `redis://user:password@host:6379/0`
   * (`rediss://` with TLS, `redis+unix:///path`; `?prefix=app:` for its keys) is Redis 6.2 or later, or
   * Valkey; `postgresql://user:password@host:5432/database` is PostgreSQL 14 or later.
   *
   * Rejects with `config` for a URL or option that makes no sense, `unavailable` or `timeout`.
   */
  static async connect(url: string, options: Options = {}): Promise<Engine> {
    return connect(url, options, false)
  }

  /** An engine on a private embedded hub. Throws `config` for options that make no sense. */
  static memory(options: Options = {}): Engine {
    return connect('memory://', options, false) as Engine
  }

  /** This node's name, new with each engine. */
  get nodeId(): string {
    return this.#described.nodeId
  }

  /** What the backend can do. */
  get capability(): Capability {
    const { immediate, mergedOrder, processes, manualClock } = this.#described
    return { immediate, mergedOrder, processes, manualClock }
  }

  /** The events of one session's streams, for an SDK's event store. Throws `invalid_input` for no session id. */
  events(scope: string): EventLog {
    return new EventLog(this.#port, scope)
  }

  /** How this engine is; asks the backend. */
  health(): Promise<Health> {
    return this.#port.ask<Health>('health')
  }

  /** What this engine counted, and what it holds now. */
  stats(): Stats {
    return this.#port.call<Stats>('stats') as Stats
  }

  /**
   * Ends every stream and subscription with `shutdown`, gives the sessions back and leaves. All later
   * calls fail with `closed`. Shutting down twice is fine.
   *
   * Rejects with `timeout` when the backend could not be told within `deadlineMs`.
   */
  async shutdown(deadlineMs = 5_000): Promise<void> {
    if (this.#port.isClosed) return
    await this.#port.ask('shutdown', { ms: milliseconds(deadlineMs, 'shutdown') })
  }

  /** Stops as `kill -9` would: the other nodes notice when the lease ends. For tests of what happens then. */
  abandon(): void {
    this.#port.call('abandon')
  }

  /**
   * Takes the embedded hub away from this node, or gives it back, as an outage of a server would. For tests
   * of what happens then. Throws `config` on other backends, which have real outages.
   */
  setOutage(on: boolean): void {
    this.#port.call('setOutage', { on: on === true })
  }

  /** Moves the time of a `memory://name?clock=manual` hub. Rejects with `config` on another clock. */
  async advanceClock(ms: number): Promise<void> {
    try {
      await this.#port.ask('advanceClock', { ms: milliseconds(ms, 'advance_clock') })
    } finally {
      distrustInfo()
    }
  }

  /** Shuts the engine down and lets go of all it holds. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown()
    this.#port.close()
  }
}

/**
 * Makes an engine: at once on the embedded backend, or a promise of one. A shared one is the process's
 * engine for this URL and these options.
 */
export function connect(url: string, options: Options, shared: boolean): Engine | Promise<Engine> {
  if (typeof url !== 'string') throw new ConfigError('a backend URL is a string such as memory://name', 'connect')
  const port = new Port()
  const connected = () => {
    port.described = port.call<Described>('describe') as Described
    return Engine.on(url, port)
  }
  try {
    const connecting = port.call<null>('connect', { url, options, shared }, shared)
    if (!(connecting instanceof Promise)) return connected()
    return connecting.then(connected).catch((error) => {
      port.close()
      throw error
    })
  } catch (error) {
    port.close()
    if (error instanceof McpSessionsError && error.code !== 'invalid_input') throw error
    throw new ConfigError((error as Error).message, 'connect')
  }
}

function milliseconds(ms: number, operation: string): number {
  if (!(ms >= 0) || !Number.isSafeInteger(Math.ceil(ms))) {
    throw new ConfigError(`${ms} is no number of milliseconds`, operation)
  }
  return Math.ceil(ms)
}
