// An engine that managers share by counting, and the way to it where connecting takes time.

import { connect, Engine, innerOf } from '../engine'
import type { McpSessionsError } from '../errors'
import type { Options } from '../options'
import { keptAlive } from '../port'

/** Between two tries to reach a backend; longer after each. */
const FIRST_PAUSE_MS = 50
const LAST_PAUSE_MS = 1_000

/** What is told when there is an engine, or when it can't be reached for the first time. */
export interface Sharer {
  attach(engine: Engine): void
  unreached(error: McpSessionsError): void
}

export class SharedEngine {
  /** The engine, once it is connected. */
  engine: Engine | undefined
  #url: string
  #options: Options
  #shared: boolean
  #forget: () => void
  #sharers = new Set<Sharer>()
  #connecting: Promise<Engine> | undefined
  #problem: McpSessionsError | undefined
  #pauseMs = FIRST_PAUSE_MS
  #timer: NodeJS.Timeout | undefined
  #over = false

  /**
   * Connects: at once where the backend allows it, else in the background, again and again. `forget` is
   * called when the last one lets go. Throws `config`.
   */
  constructor(url: string, options: Options, shared: boolean, forget: () => void = () => {}) {
    this.#url = url
    this.#options = options
    this.#shared = shared
    this.#forget = forget
    const made = this.#connect()
    if (made instanceof Engine) this.engine = made
    else this.#await(made)
  }

  /** Whether its engine was closed by somebody else. */
  get isClosed(): boolean {
    return this.#over || (this.engine !== undefined && innerOf(this.engine).port.isClosed)
  }

  /** Resolves once there is an engine; rejects while it can't be reached. Keeps the process alive meanwhile. */
  connected(): Promise<Engine> {
    if (this.engine !== undefined) return Promise.resolve(this.engine)
    if (this.#connecting !== undefined) return keptAlive(this.#connecting)
    return Promise.reject(this.#problem)
  }

  join(sharer: Sharer): void {
    this.#sharers.add(sharer)
    if (this.engine !== undefined) sharer.attach(this.engine)
  }

  /** One lets go; with the last one the engine goes. Resolves once the other nodes can know. */
  async leave(sharer: Sharer): Promise<void> {
    this.#sharers.delete(sharer)
    if (this.#sharers.size > 0 || this.#over) return
    this.#over = true
    clearTimeout(this.#timer)
    this.#forget()
    if (this.engine !== undefined) await innerOf(this.engine).port.leave()
  }

  /** What makes no sense is thrown; that nobody answers may be known at once, too. */
  #connect(): Engine | Promise<Engine> {
    try {
      return connect(this.#url, this.#options, this.#shared)
    } catch (error) {
      if ((error as McpSessionsError).code === 'config') throw error
      return Promise.reject(error)
    }
  }

  #await(made: Promise<Engine>): void {
    this.#connecting = made
    made.then(
      (engine) => {
        this.#connecting = undefined
        if (this.#over) return innerOf(engine).port.close()
        this.engine = engine
        for (const sharer of this.#sharers) sharer.attach(engine)
      },
      (error: McpSessionsError) => this.#failed(error),
    )
  }

  #failed(error: McpSessionsError): void {
    this.#connecting = undefined
    if (this.#over) return
    if (this.#problem === undefined) for (const sharer of this.#sharers) sharer.unreached(error)
    this.#problem = error
    this.#timer = setTimeout(() => this.#again(), this.#pauseMs)
    // Only who waits for it keeps the process alive.
    this.#timer.unref()
    this.#pauseMs = Math.min(this.#pauseMs * 2, LAST_PAUSE_MS)
  }

  #again(): void {
    try {
      const made = this.#connect()
      this.#await(made instanceof Engine ? Promise.resolve(made) : made)
    } catch (error) {
      this.#failed(error as McpSessionsError)
    }
  }
}
