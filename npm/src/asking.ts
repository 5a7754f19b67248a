// What a stream and a subscription share when they are read by asking: who waits, what rings, how it ends.

import type { Port, Reason, Receiver, Take } from './port'

/** What nobody refers to any more is given back. */
const abandoned = new FinalizationRegistry<{ port: Port; token: number }>(({ port, token }) => port.release(token))

/** What the port knows of it: no more, so that it can be collected. */
class Bell implements Receiver {
  ring: (() => void) | undefined

  readable(): void {
    this.ring?.()
  }

  end(): void {
    this.ring?.()
  }
}

/** Reads what comes under a token; it lives as long as its owner, or while somebody waits. */
export class Asking<T, End extends Reason> {
  readonly port: Port
  readonly token: number
  #bell = new Bell()
  #take: (token: number, limit: number) => Take<T>
  #end: End | undefined
  #ended: { promise: Promise<End>; resolve: (reason: End) => void } | undefined
  #readers: { limit: number; resolve: (items: T[]) => void }[] = []

  constructor(port: Port, take: (token: number, limit: number) => Take<T>) {
    this.port = port
    this.token = port.register(this.#bell)
    this.#take = take
  }

  /** From here on it is given back when nobody refers to it any more. */
  begun(): void {
    abandoned.register(this, { port: this.port, token: this.token }, this.#bell)
  }

  /** Why it ended, if it has; what was queued can still be read then. */
  get end(): End | undefined {
    return this.#end ?? (this.port.endOf(this.token) as End | undefined)
  }

  /** Resolves when it ends. */
  get ended(): Promise<End> {
    const end = this.end
    if (end !== undefined) return Promise.resolve(end)
    if (this.#ended === undefined) {
      let resolve: (reason: End) => void = () => {}
      const promise = new Promise<End>((done) => {
        resolve = done
      })
      this.#ended = { promise, resolve }
      this.#listen()
    }
    return this.#ended.promise
  }

  /** As many items as there are but no more than `limit`; waits for the first. Empty once it has ended. */
  read(limit: number): Promise<T[]> {
    const items = this.#readers.length === 0 ? this.#now(limit) : undefined
    if (items !== undefined) return Promise.resolve(items)
    return new Promise((resolve) => {
      this.#readers.push({ limit, resolve })
      this.#listen()
    })
  }

  /** The next item if there is one already, and nobody waits for it. */
  tryRead(): T | undefined {
    return this.#readers.length === 0 ? this.#now(1)?.[0] : undefined
  }

  /**
   * Gives it back, if it has not ended: an end that came first stays the reason. Where the backend is waited
   * for, the other nodes know when this resolves.
   */
  async close(end: End): Promise<void> {
    if (this.#end !== undefined) return
    const { port } = this
    const reason = this.end ?? end
    const known = port.immediate || port.isClosed ? undefined : port.releaseKnown(this.token).catch(() => {})
    this.#finish(reason)
    port.flush()
    await known
  }

  /** What can be had now; `undefined` when it has to be waited for. */
  #now(limit: number): T[] | undefined {
    if (this.#end !== undefined) return []
    const taken = this.#take(this.token, limit)
    if (taken === 'pending') return undefined
    if ('items' in taken) return taken.items
    this.#finish(taken.end as End)
    return []
  }

  /** Somebody waits: it must be rung, and must not be collected. */
  #listen(): void {
    if (this.#bell.ring !== undefined) return
    this.#bell.ring = () => this.#rung()
    this.port.hold()
  }

  #rung(): void {
    for (let first = this.#readers[0]; first !== undefined; first = this.#readers[0]) {
      const items = this.#now(first.limit)
      if (items === undefined) return
      this.#readers.shift()
      first.resolve(items)
    }
    if (this.#ended !== undefined) {
      const end = this.end
      if (end === undefined) return
      this.#ended.resolve(end)
      this.#ended = undefined
    }
    this.#unlisten()
  }

  #unlisten(): void {
    if (this.#bell.ring === undefined) return
    this.#bell.ring = undefined
    this.port.unhold()
  }

  #finish(end: End): void {
    this.#end = end
    abandoned.unregister(this.#bell)
    this.port.release(this.token)
    this.#ended?.resolve(end)
    this.#ended = undefined
    for (const reader of this.#readers.splice(0)) reader.resolve([])
    this.#unlisten()
  }
}
