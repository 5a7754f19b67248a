// tmcp's streams in a Worker: each is fed by a WebSocket of the very request that it answers.

import { checkSessionId, checkText } from '../check.js'
import { asError, ClosedError, InvalidInputError, type McpSessionsError } from '../errors.js'
import type { Receipt } from '../port.js'
import type { SendOptions } from '../streams.js'
import type { Opening, Seat } from '../tmcp/visit.js'
import { OBJECTS, Objects, parts, type WorkerOptions, type WorkerSocket } from './objects.mjs'
import { visits } from './visits.mjs'

const MAX_PAYLOAD_BYTES = 4 << 20
const MAX_KEY_BYTES = 128
/** As the sync layer cuts what was missed. */
const PIECE_BYTES = 256 << 10
const MAX_WAITING = { events: 1_024, bytes: 4 << 20 }
/** Between two heartbeats, and until a client that reads nothing counts as gone: as with a node's lease. */
const LEASE = { renewMs: 2_000, ttlMs: 5_000 }
/** A comment: a Worker is not told that its client is gone, it sees that what it writes is not read. */
const BEAT = new TextEncoder().encode(':\n\n')
/** The close code of a stream whose client does not read. */
const OVERFLOW = 4001

/** What is needed of a `ReadableStreamDefaultController`. */
export interface Controller {
  readonly desiredSize: number | null
  enqueue(chunk: Uint8Array): void
  close(): void
  error(reason?: unknown): void
}

/** What the sync layer says beside events. */
interface Said {
  gap?: boolean
  cursor?: string
  /** Bytes of what was missed, which follow. */
  replay?: number
  end?: string
}

/**
 * Takes the place of tmcp's `DurableObjectStreamSessionManager`: streams that can be resumed, in any Worker.
 * Made at module scope; what belongs to a request stays in it.
 *
 * ```js
 * import { DurableObjectStreamSessionManager, KVInfoSessionManager, SyncLayer } from 'mcp-sessions/cloudflare'
 *
 * const sessionManager = {
 *   streams: new DurableObjectStreamSessionManager('TMCP_DURABLE_OBJECT'),
 *   info: new KVInfoSessionManager('TMCP_SESSION_INFO'),
 * }
 * export { SyncLayer }
 * ```
 */
export class DurableObjectStreamSessionManager {
  #objects: Objects
  /** The streams of requests that may be over: a Worker is not told when its client is gone. */
  #seats = new Map<string, WeakRef<SocketStream>>()

  /** The binding of the Durable Objects, and options. Throws `config`. */
  constructor(binding: string = OBJECTS, options: WorkerOptions = {}) {
    this.#objects = new Objects(binding, options)
  }

  /** Resolves at once: there is nothing to connect to before a request. */
  async ready(): Promise<void> {}

  /** Opens the session's stream: its events go into the controller, those that wait at once. */
  async create(id: string, controller: Controller): Promise<void> {
    const operation = 'streams.open'
    const visit = visits.getStore()
    const opening = visit?.kind === 'open' ? visit : undefined
    try {
      checkSessionId(id, operation)
      if (typeof controller?.enqueue !== 'function')
        throw new InvalidInputError('a controller has enqueue and close', operation)
      const { queue, lease, frameIds = true } = this.#objects.settings
      const stream = new SocketStream(id, controller, { ...MAX_WAITING, ...queue }, { ...LEASE, ...lease })
      if (opening !== undefined) opening.stream = stream
      this.#keep(id, stream)
      const request = { session: id, after: opening?.after, reject: opening?.conflict === 'reject', frameIds }
      try {
        await stream.run(await this.#objects.connect(operation, id, 'stream', request), opening)
      } catch (error) {
        stream.fail(asError(error, operation))
        throw error
      }
    } catch (thrown) {
      const error = asError(thrown, operation)
      this.#objects.report(error)
      throw error
    }
  }

  /** Closes the session's stream, wherever it is held. What is sent later waits for the next one. */
  async delete(id: string): Promise<void> {
    const operation = 'streams.close'
    const visit = visits.getStore()
    if (visit?.kind === 'leave') {
      visit.stream.leave()
      return
    }
    await this.#attempt(operation, async () => {
      checkSessionId(id, operation)
      if (visit?.kind === 'terminate') return this.#objects.ask(operation, id, { forget: id })
      // The client of an old stream is gone: one that took over since has nothing to do with that.
      if (this.#seats.get(id)?.deref()?.leaveHere()) return
      await this.#objects.ask(operation, id, { end: id })
    })
  }

  /** Whether a live stream of the session is held by any Worker or process. */
  has(id: string): Promise<boolean> {
    const visit = visits.getStore()
    // The new stream takes over: for the transport there is none in its way.
    if (visit?.kind === 'open' && visit.conflict === 'replace') return Promise.resolve(false)
    return this.#asked('streams.has', id, { has: id })
  }

  /** Whether the session is known: it has info, or a stream, or had one within retention. */
  known(id: string): Promise<boolean> {
    return this.#asked('streams.known', id, { known: id })
  }

  /** What is wrong with a client's `Last-Event-ID`, if anything; what it names may be gone all the same. */
  async cursorProblem(id: string, cursor: string): Promise<string | undefined> {
    const problem = await this.#asked<string | null>('streams.open', id, { checkCursor: { session: id, cursor } })
    return problem ?? undefined
  }

  /**
   * Sends to a list of sessions, or to all (`undefined`), wherever their streams are: a call to each object
   * that has any. It never rejects: transports send from listeners that nobody awaits. What goes wrong is
   * told to `onError`.
   */
  async send(sessions: string[] | undefined, data: string): Promise<void> {
    try {
      await this.accept(sessions ?? undefined, data)
    } catch (thrown) {
      this.#objects.report(asError(thrown, 'streams.send'))
    }
  }

  /**
   * As `send`, but tells what became of it: resolves once it is accepted, and rejects if it was not. With a key
   * it can be tried again, and is not delivered twice.
   */
  async accept(
    sessions: string[] | undefined,
    payload: string,
    { idempotencyKey: key }: SendOptions = {},
  ): Promise<Receipt> {
    const operation = 'streams.send'
    checkText(payload, 'a payload', this.#objects.settings.maxPayloadBytes ?? MAX_PAYLOAD_BYTES, operation)
    if (key !== undefined) checkKey(key, operation)
    const event = { payload, ...(key !== undefined && { key }) }
    if (sessions === undefined) {
      const all = Array.from({ length: this.#objects.shards }, (_, shard) => shard)
      const counts = await parts(
        all.map((shard) => this.#objects.send(shard, event)),
        operation,
      )
      // It counts once, and an object that had it before is no matter if another had not.
      const isNew = counts.some(([accepted]) => accepted > 0)
      return { accepted: Number(isNew), dropped: 0, duplicates: Number(!isNew) }
    }
    const byShard = new Map<number, string[]>()
    for (const id of new Set(sessions)) {
      checkSessionId(id, operation)
      const shard = this.#objects.shardOf(id)
      const some = byShard.get(shard)
      if (some) some.push(id)
      else byShard.set(shard, [id])
    }
    const calls = Array.from(byShard, ([shard, some]) => this.#objects.send(shard, { sessions: some, ...event }))
    const sum = { accepted: 0, dropped: 0, duplicates: 0 }
    for (const [accepted, dropped, duplicates] of await parts(calls, operation)) {
      sum.accepted += accepted
      sum.dropped += dropped
      sum.duplicates += duplicates
    }
    return sum
  }

  /** There is nothing to let go of: streams end with their requests. */
  async close(): Promise<void> {}

  #keep(id: string, stream: SocketStream): void {
    this.#seats.set(id, new WeakRef(stream))
    stream.onOver = () => {
      if (this.#seats.get(id)?.deref() === stream) this.#seats.delete(id)
    }
    // Two old ones are looked at for each new one, so that those of dead requests do not pile up.
    let looked = 0
    for (const [old, seat] of this.#seats) {
      if (++looked > 2) break
      this.#seats.delete(old)
      if (seat.deref() !== undefined) this.#seats.set(old, seat)
    }
  }

  #asked<T>(operation: string, id: string, question: object): Promise<T> {
    return this.#attempt(operation, () => {
      checkSessionId(id, operation)
      return this.#objects.ask<T>(operation, id, question)
    })
  }

  async #attempt<T>(operation: string, work: () => T | Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (thrown) {
      const error = asError(thrown, operation)
      this.#objects.report(error)
      throw error
    }
  }
}

function checkKey(key: string, operation: string): void {
  checkText(key, 'an idempotency key', Number.POSITIVE_INFINITY, operation)
  if (key !== '' && new TextEncoder().encode(key).length <= MAX_KEY_BYTES) return
  throw new InvalidInputError(`an idempotency key has 1 to ${MAX_KEY_BYTES} bytes`, operation)
}

/** One stream: from its socket into its controller. */
class SocketStream implements Seat {
  readonly id: string
  onOver: (() => void) | undefined
  /** Why it ended, unless its client left. */
  end: string | undefined
  #controller: Controller
  #limits: { events: number; bytes: number }
  /** What `desiredSize` says while nothing waits. */
  #room: number
  #sizes: number[] = []
  #bytes = 0
  /** What was missed comes at once, and is bounded by retention: it may wait beside the rest. */
  #replay = 0
  #arrived = 0
  #socket: WorkerSocket | undefined
  #over = false
  #isOpen = false
  #lease: { renewMs: number; ttlMs: number }
  #readMs = Date.now()
  #timer: ReturnType<typeof setInterval> | undefined
  /** Something came since the last heartbeat. */
  #heard = false
  #failure: McpSessionsError | undefined
  #settled: ((failure: McpSessionsError | undefined) => void)[] = []

  constructor(id: string, controller: Controller, limits: { events: number; bytes: number }, lease: typeof LEASE) {
    this.#lease = lease
    this.id = id
    this.#controller = controller
    this.#limits = limits
    this.#room = controller.desiredSize ?? 0
  }

  /** Resolves once it is open. */
  run(socket: WorkerSocket, opening: Opening | undefined): Promise<void> {
    this.#socket = socket
    socket.binaryType = 'arraybuffer'
    return new Promise((resolve, reject) => {
      socket.addEventListener('message', ({ data }) => {
        if (typeof data !== 'string') return this.#take(new Uint8Array(data))
        if (data === 'pong') return
        const said = JSON.parse(data) as Said
        if (said.end !== undefined) return this.#end(said.end)
        this.#opened(said, opening)
        resolve()
      })
      const gone = () => {
        if (!this.#isOpen) reject(new ClosedError('the stream ended before it was open', 'streams.open'))
        // It was not told to end: the object is gone, or this Worker is. The client comes back with its cursor.
        this.#end('lost')
      }
      socket.addEventListener('close', gone)
      socket.addEventListener('error', gone)
      socket.accept()
    })
  }

  /** Resolves once it is open, or over; with the failure if it could not be opened. */
  settled(): Promise<McpSessionsError | undefined> {
    if (this.#isOpen || this.#over) return Promise.resolve(this.#failure)
    return new Promise((resolve) => this.#settled.push(resolve))
  }

  fail(failure: McpSessionsError): void {
    this.#failure = failure
    this.#finish()
  }

  /** Its client is gone. */
  leave(): void {
    if (this.#over) return
    this.#finish()
    this.#socket?.close(1000, 'left')
  }

  /** {@link leave}, if the request at hand is its own; no other may touch its socket. */
  leaveHere(): boolean {
    if (this.#over) return false
    try {
      this.#socket?.close(1000, 'left')
    } catch {
      return false
    }
    this.#finish()
    try {
      this.#controller.close()
    } catch {
      // It was cancelled.
    }
    return true
  }

  #opened(said: Said, opening: Opening | undefined): void {
    this.#isOpen = true
    this.#replay = said.replay ?? 0
    this.#timer = setInterval(() => this.#beat(), this.#lease.renewMs)
    if (opening !== undefined) {
      let text = `retry: ${opening.retryMs}\n\n`
      if (said.gap) {
        opening.gap = true
        text += ': gap: events between the last one received and the next one are lost\n\n'
        opening.onGap?.({ sessionId: this.id, lastEventId: opening.after })
      }
      if (said.cursor) text += `event: cursor\nid: ${said.cursor}\ndata: {}\n\n`
      opening.greeting = new TextEncoder().encode(text)
      this.#take(opening.greeting)
    }
    this.#settle()
  }

  #take(bytes: Uint8Array): void {
    if (this.#over) return
    try {
      this.#controller.enqueue(bytes)
    } catch {
      this.leave()
      return
    }
    this.#sizes.push(bytes.length)
    this.#bytes += bytes.length
    this.#arrived += bytes.length
    this.#measure()
    const events = this.#limits.events + Math.ceil(this.#replay / PIECE_BYTES)
    // One that waits alone is never too large, or its client could not have it at all.
    const isTooMuch = this.#sizes.length > 1 && this.#bytes > this.#limits.bytes + this.#replay
    if (this.#sizes.length > events || isTooMuch) this.#overflow()
    else if (this.#sizes.length <= 1) this.#heard = true
  }

  /**
   * Sees whether the client is there still. What came is acknowledged: to a client that comes back without a
   * cursor the rest is given again. The platform answers that without waking the object.
   */
  #beat(): void {
    if (this.#over) return
    if (this.#heard) this.#socket?.send('ping')
    this.#heard = false
    this.#measure()
    if (this.#isEmpty) {
      this.#take(BEAT)
      this.#heard = false
    } else if (Date.now() - this.#readMs >= this.#lease.ttlMs) {
      this.#gone()
    }
  }

  /** What was read meanwhile. */
  #measure(): void {
    const waiting = this.#room - (this.#controller.desiredSize ?? this.#room)
    if (waiting === 0 || this.#sizes.length > waiting) this.#readMs = Date.now()
    while (this.#sizes.length > waiting) this.#bytes -= this.#sizes.shift() as number
    if (waiting === 0 && this.#arrived >= this.#replay) this.#replay = 0
  }

  get #isEmpty(): boolean {
    const { desiredSize } = this.#controller
    return desiredSize === null || desiredSize >= this.#room
  }

  /** Nothing was read for too long. Who is there all the same comes back with its cursor. */
  #gone(): void {
    this.#finish('overflow')
    this.#socket?.close(OVERFLOW, 'not read')
    this.#controller.error(new ClosedError(`nobody reads the stream of session ${this.id}`, 'streams.open'))
  }

  #overflow(): void {
    this.#finish('overflow')
    this.#socket?.close(OVERFLOW, 'overflow')
    this.#controller.error(new ClosedError(`the stream of session ${this.id} ended: overflow`, 'streams.open'))
  }

  #end(reason: string): void {
    if (this.#over) return
    this.#finish(reason)
    const graceful = reason === 'closed' || reason === 'terminated'
    try {
      this.#socket?.close(1000, reason)
    } catch {
      // It is gone.
    }
    try {
      // Someone else delivers from here on, or something is missing: what waits must not be read after it.
      if (graceful || this.#isEmpty) this.#controller.close()
      else this.#controller.error(new ClosedError(`the stream of session ${this.id} ended: ${reason}`, 'streams.open'))
    } catch {
      // It was closed already.
    }
  }

  #finish(end?: string): void {
    this.#over = true
    this.end = end
    clearInterval(this.#timer)
    this.#settle()
    this.onOver?.()
  }

  #settle(): void {
    for (const resolve of this.#settled.splice(0)) resolve(this.#failure)
  }
}
