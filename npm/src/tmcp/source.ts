// Which engine a manager works on: one it is given, the process's for a URL, or a private one.

import { connect, Engine, innerOf } from '../engine'
import { ConfigError } from '../errors'
import type { InfoCache } from '../info-cache'
import type { Options } from '../options'
import type { Port } from '../port'
import { Failures, type OnError } from './failures'

/** How a manager is made: options of its engine, and who is told of errors. */
export interface ManagerOptions extends Options {
  /** `memory://name`: managers of the same URL and options share one engine of this process. */
  url?: string
  /** An engine of one's own, in place of a URL; who made it shuts it down. */
  engine?: Engine
  /** Told of every failure; by default a line is logged. */
  onError?: OnError
}

/** A URL, an engine, or options; nothing for a private engine. */
export type ManagerArgument = string | Engine | ManagerOptions

/** The kinds of managers; at most one of each kind shares a private engine. */
export type Kind = 'streams' | 'info' | 'subscriptions'

/** An engine that is shared by counting. */
interface Counted {
  engine: Engine
  count: number
  key: string | undefined
}

const byUrl = new Map<string, Counted>()
/** The private engine of the managers that are made in this synchronous turn. */
let pairing: { counted: Counted; kinds: Set<Kind>; options: string } | undefined
/** Managers that are collected let go of their engine. */
const collected = new FinalizationRegistry<Source>((source) => source.release())

/** What a manager holds of its engine. */
export class Source {
  readonly engine: Engine
  readonly port: Port
  readonly cache: InfoCache
  readonly failures: Failures
  #counted: Counted | undefined

  constructor(engine: Engine, counted: Counted | undefined, onError: OnError | undefined) {
    const { port, cache } = innerOf(engine)
    this.engine = engine
    this.port = port
    this.cache = cache
    this.failures = new Failures(onError)
    this.#counted = counted
    port.reporters.add(this.failures)
  }

  /** Lets go of the engine; the last one closes it. */
  release(): void {
    this.port.reporters.delete(this.failures)
    const counted = this.#counted
    this.#counted = undefined
    if (counted === undefined) return
    counted.count -= 1
    if (counted.count > 0) return
    if (counted.key !== undefined && byUrl.get(counted.key) === counted) byUrl.delete(counted.key)
    this.port.close()
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
  if (argument instanceof Engine) return new Source(argument, undefined, undefined)
  if (typeof argument === 'string') return new Source(...ofUrl(argument, {}), undefined)
  if (argument !== undefined && (typeof argument !== 'object' || argument === null)) {
    throw new ConfigError('a manager is made with nothing, a URL, an engine, or options', 'connect')
  }
  const { url, engine, onError, ...options } = argument ?? {}
  if (onError !== undefined && typeof onError !== 'function') throw new ConfigError('onError is a function', 'connect')
  if (engine !== undefined) {
    if (!(engine instanceof Engine))
      throw new ConfigError('engine is made by Engine.connect or Engine.memory', 'connect')
    if (url !== undefined) throw new ConfigError('a manager has a url or an engine, not both', 'connect')
    return new Source(engine, undefined, onError)
  }
  if (url !== undefined) return new Source(...ofUrl(url, options), onError)
  return new Source(...ofTurn(kind, options), onError)
}

function ofUrl(url: string, options: Options): [Engine, Counted] {
  const key = `${url}\n${JSON.stringify(options)}`
  let counted = byUrl.get(key)
  if (counted === undefined || innerOf(counted.engine).port.isClosed) {
    counted = { engine: immediately(url, options, true), count: 0, key }
    byUrl.set(key, counted)
  }
  counted.count += 1
  return [counted.engine, counted]
}

/** Managers made one after the other, for one server, belong together; the next server's do not. */
function ofTurn(kind: Kind, options: Options): [Engine, Counted] {
  const text = JSON.stringify(options)
  if (pairing === undefined || pairing.kinds.has(kind) || pairing.options !== text) {
    const counted = { engine: immediately('memory://', options, false), count: 0, key: undefined }
    const made = { counted, kinds: new Set<Kind>(), options: text }
    pairing = made
    queueMicrotask(() => {
      if (pairing === made) pairing = undefined
    })
  }
  const { counted, kinds } = pairing
  kinds.add(kind)
  counted.count += 1
  return [counted.engine, counted]
}

function immediately(url: string, options: Options, shared: boolean): Engine {
  const engine = connect(url, options, shared)
  if (engine instanceof Engine) return engine
  engine.catch(() => {})
  throw new ConfigError('this backend is waited for: make an Engine first, and give it to the manager', 'connect')
}
