// Which engine a manager works on: one it is given, the process's for a URL, or a private one.

import { Engine, innerOf } from '../engine'
import { ClosedError, ConfigError, type McpSessionsError } from '../errors'
import type { InfoCache } from '../info-cache'
import type { Options } from '../options'
import type { Port } from '../port'
import { Failures, type OnError, quiet } from './failures'
import { SharedEngine, type Sharer } from './shared-engine'

/** How a manager is made: options of its engine, and who is told of errors. */
export interface ManagerOptions extends Options {
  /** The backend: managers of the same URL and options share one engine of this process. */
  url?: string
  /** An engine of one's own, in place of a URL; who made it shuts it down. */
  engine?: Engine
  /** `false`: nothing is kept for replay, and delivery is live only. */
  history?: boolean
  /** Told of every failure; by default a line is logged. */
  onError?: OnError
}

/** A URL, an engine, or options; nothing for a private engine. */
export type ManagerArgument = string | Engine | ManagerOptions

/** The kinds of managers; at most one of each kind shares a private engine. */
export type Kind = 'streams' | 'info' | 'subscriptions' | 'sessions'

const byUrl = new Map<string, SharedEngine>()
/** The private engine of the managers that are made in this synchronous turn. */
let pairing: { shared: SharedEngine; kinds: Set<Kind>; options: string } | undefined
/** Managers that are collected let go of their engine. */
const collected = new FinalizationRegistry<Source>((source) => void source.release())

/** What a manager holds of its engine. */
export class Source implements Sharer {
  readonly failures: Failures
  /** These are there once the backend was reached. */
  engine: Engine | undefined
  port: Port | undefined
  cache: InfoCache | undefined
  #shared: SharedEngine | undefined

  constructor(from: Engine | SharedEngine, onError: OnError | undefined) {
    this.failures = new Failures(onError)
    if (from instanceof Engine) {
      this.attach(from)
      return
    }
    this.#shared = from
    from.join(this)
  }

  attach(engine: Engine): void {
    const { port, cache } = innerOf(engine)
    this.engine = engine
    this.port = port
    this.cache = cache
    port.reporters.add(this.failures)
  }

  unreached(error: McpSessionsError): void {
    this.failures.report(error)
  }

  /** Whether its engine was closed, or the manager let go of it. */
  get isClosed(): boolean {
    return this.port === undefined ? this.#shared === undefined : this.port.isClosed
  }

  /** Resolves once there is an engine; rejects while it can't be reached, or when there never will be. */
  connected(operation: string): Promise<Engine> {
    if (this.engine !== undefined) return Promise.resolve(this.engine)
    const gone = () => Promise.reject(new ClosedError('the session manager was closed', operation))
    return this.#shared === undefined ? gone() : this.#shared.connected()
  }

  /** Does it once there is an engine. Calls that wait are made in the order they came. */
  later<T>(operation: string, work: () => T | Promise<T>): Promise<T> {
    return quiet(this.connected(operation).then(work, (error) => this.failures.reject(error, operation)))
  }

  /** Lets go of the engine; the last one closes it. */
  async release(): Promise<void> {
    this.port?.reporters.delete(this.failures)
    const shared = this.#shared
    this.#shared = undefined
    await shared?.leave(this)
  }

  /** Releases when `manager` is collected. */
  follow(manager: object): void {
    collected.register(manager, this, this)
  }

  unfollow(): void {
    collected.unregister(this)
  }
}

/** Finds or makes the engine for a manager's argument. Throws `config`. */
export function sourceOf(argument: ManagerArgument | undefined, kind: Kind): Source {
  if (argument instanceof Engine) return new Source(argument, undefined)
  if (typeof argument === 'string') return new Source(ofUrl(argument, {}), undefined)
  if (argument !== undefined && (typeof argument !== 'object' || argument === null)) {
    throw new ConfigError('a manager is made with nothing, a URL, an engine, or options', 'connect')
  }
  const { url, engine, onError, history, ...options } = argument ?? {}
  if (onError !== undefined && typeof onError !== 'function') throw new ConfigError('onError is a function', 'connect')
  if (engine !== undefined) {
    if (!(engine instanceof Engine))
      throw new ConfigError('engine is made by Engine.connect or Engine.memory', 'connect')
    if (url !== undefined) throw new ConfigError('a manager has a url or an engine, not both', 'connect')
    return new Source(engine, onError)
  }
  const all = history === undefined ? options : withHistory(options, history)
  return new Source(url === undefined ? ofTurn(kind, all) : ofUrl(url, all), onError)
}

function withHistory(options: Options, history: unknown): Options {
  if (typeof history !== 'boolean') throw new ConfigError('history is true or false', 'connect')
  if (history) return options
  const { retention, broadcastRetention } = options
  return {
    ...options,
    retention: { ...retention, events: 0 },
    broadcastRetention: { ...broadcastRetention, events: 0 },
  }
}

function ofUrl(url: string, options: Options): SharedEngine {
  const key = `${url}\n${textOf(options)}`
  const known = byUrl.get(key)
  if (known !== undefined && !known.isClosed) return known
  const made: SharedEngine = new SharedEngine(url, options, true, () => {
    if (byUrl.get(key) === made) byUrl.delete(key)
  })
  byUrl.set(key, made)
  return made
}

/** Managers made one after the other, for one server, belong together; the next server's do not. */
function ofTurn(kind: Kind, options: Options): SharedEngine {
  const text = textOf(options)
  if (pairing === undefined || pairing.kinds.has(kind) || pairing.options !== text) {
    const made = { shared: new SharedEngine('memory://', options, false), kinds: new Set<Kind>(), options: text }
    pairing = made
    queueMicrotask(() => {
      if (pairing === made) pairing = undefined
    })
  }
  pairing.kinds.add(kind)
  return pairing.shared
}

/** The same text for the same options, in whatever order they were written. */
function textOf(options: object): string {
  return JSON.stringify(options, (_, value) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  )
}

/** As {@link sourceOf}, for the managers of the embedded backend. */
export function embeddedSource(argument: ManagerArgument | undefined, kind: Kind): Source {
  const url = typeof argument === 'string' ? argument : (argument as ManagerOptions | undefined)?.url
  if (!(argument instanceof Engine) && typeof url === 'string' && !url.startsWith('memory:')) {
    throw new ConfigError('the embedded backend has a URL such as memory://name', 'connect')
  }
  return sourceOf(argument, kind)
}

/** Puts options that the URL carries into it. Throws `config` for what it says already. */
export function withParameters(url: string, parameters: { [name: string]: string | undefined }): string {
  let whole = url
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined) continue
    if (typeof value !== 'string') throw new ConfigError(`${name} is a string`, 'connect')
    if (new RegExp(`[?&]${name}=`).test(url)) throw new ConfigError(`the URL says ${name} already`, 'connect')
    whole += `${whole.includes('?') ? '&' : '?'}${name}=${encodeURIComponent(value)}`
  }
  return whole
}
