// A session's stream on its way into a controller of tmcp's, and back off when its client is slow.

import { ClosedError, type McpSessionsError } from '../errors'
import type { Port, Reason, Receiver } from '../port'

/** What is needed of a `ReadableStreamDefaultController`. */
export interface Controller {
  readonly desiredSize: number | null
  enqueue(chunk: Uint8Array): void
  close(): void
  error(reason?: unknown): void
}

/** Chunks and bytes that may wait in a controller before its stream is paused, and its queue fills. */
const MAX_CHUNKS = 64
const MAX_BYTES = 1024 * 1024
/** A paused stream goes on when no more than this part of the window waits. */
const RESUME_PART = 4
/** Between two looks at controllers that are full; controllers don't say when they are read. */
const FIRST_LOOK_MS = 4
const LAST_LOOK_MS = 64

export class ControlledStream implements Receiver {
  readonly token: number
  /** Bytes were put into the controller. */
  used = false
  /** Why it could not be opened. */
  failure: McpSessionsError | undefined
  #port: Port
  #controller: Controller
  #gone: (stream: ControlledStream) => void
  /** What `desiredSize` says while nothing waits. */
  #room: number
  /** A byte stream takes a chunk's memory for itself. */
  #takesMemory: boolean
  /** The sizes of the chunks that wait, as far as they had to be looked at. */
  #sizes: number[] | undefined
  #bytes = 0
  #over = false

  #settled: ((failure: McpSessionsError | undefined) => void)[] | undefined
  #opened = false

  /** Told once it is open, before the first event. */
  onOpen: ((gap: boolean, start: string) => void) | undefined

  constructor(
    port: Port,
    readonly id: string,
    controller: Controller,
    gone: (stream: ControlledStream) => void,
  ) {
    this.#port = port
    this.#controller = controller
    this.#gone = gone
    this.#room = controller.desiredSize ?? 0
    this.#takesMemory = 'byobRequest' in controller
    this.token = port.register(this)
    port.hold()
  }

  chunk(from: number, to: number): void {
    const controller = this.#controller
    const room = controller.desiredSize
    // Behind a chunk that waits, this one waits, too: it must not keep its neighbours' memory.
    const waits = room === null || room < this.#room || this.#takesMemory
    const bytes = waits ? this.#port.owned(from, to) : this.#port.shared(from, to)
    this.used = true
    try {
      controller.enqueue(bytes)
    } catch {
      // The reader went away without a word: as tmcp does, it is forgotten.
      this.leave()
      return
    }
    if (waits) this.#notRead(bytes.length)
  }

  opened(gap: boolean, start: string): void {
    this.onOpen?.(gap, start)
    this.onOpen = undefined
    this.#settle()
  }

  /** Resolves once it is open, or over; with the failure if it could not be opened. */
  settled(): Promise<McpSessionsError | undefined> {
    if (this.#opened || this.#over) return Promise.resolve(this.failure)
    return new Promise((resolve) => {
      this.#settled ??= []
      this.#settled.push(resolve)
    })
  }

  failed(error: McpSessionsError): void {
    this.failure = error
    this.#finish()
    this.#controller.error(error)
  }

  end(reason: Reason): void {
    if (this.#over) return
    this.#finish()
    const graceful = reason === 'closed' || reason === 'terminated' || reason === 'shutdown'
    try {
      // Someone else delivers from here on, or something is missing: what waits must not be read after it.
      if (graceful || this.#isEmpty()) this.#controller.close()
      else this.#controller.error(new ClosedError(`the stream of session ${this.id} ended: ${reason}`, 'streams.open'))
    } catch {
      // It was closed already.
    }
  }

  /** Puts a line of the protocol's own in front of what follows. */
  say(text: string): void {
    try {
      this.#controller.enqueue(Buffer.from(text))
    } catch {
      this.leave()
    }
  }

  /** Gives the stream back and closes the controller. */
  close(): void {
    if (!this.leave()) return
    try {
      this.#controller.close()
    } catch {
      // It was closed already.
    }
  }

  /** Gives the stream back; its reader is gone. False when it was. */
  leave(): boolean {
    if (this.#over) return false
    this.#finish()
    this.#port.release(this.token)
    this.#port.flush()
    return true
  }

  #settle(): void {
    this.#opened = true
    for (const resolve of this.#settled ?? []) resolve(this.failure)
    this.#settled = undefined
  }

  #finish(): void {
    this.#over = true
    this.#settle()
    full.delete(this)
    this.#sizes = undefined
    this.#port.unhold()
    this.#gone(this)
  }

  #isEmpty(): boolean {
    const room = this.#controller.desiredSize
    return room !== null && room >= this.#room
  }

  #notRead(bytes: number): void {
    this.#sizes ??= []
    this.#sizes.push(bytes)
    this.#bytes += bytes
    if (full.has(this) || !this.#exceeds(1)) return
    full.add(this)
    this.#port.pause(this.token, true)
    lookLater()
  }

  /** Whether more waits than a part of the window. */
  #exceeds(part: number): boolean {
    const waiting = this.#room - (this.#controller.desiredSize ?? this.#room)
    const sizes = this.#sizes ?? []
    // With a strategy that counts bytes, `waiting` is more than there are chunks.
    while (sizes.length > waiting) this.#bytes -= sizes.shift() as number
    return sizes.length * part >= MAX_CHUNKS || this.#bytes * part >= MAX_BYTES
  }

  /** Goes on if enough was read; true when it does. */
  goOnIfRead(): boolean {
    if (this.#exceeds(RESUME_PART)) return false
    full.delete(this)
    this.#port.pause(this.token, false)
    return true
  }
}

/** Streams whose controllers are full. */
const full = new Set<ControlledStream>()
let timer: NodeJS.Timeout | undefined
let lookMs = FIRST_LOOK_MS

/** A timer only while a stream is paused; it does not keep the process alive. */
function lookLater(): void {
  if (timer !== undefined || full.size === 0) return
  timer = setTimeout(() => {
    timer = undefined
    look()
  }, lookMs)
  timer.unref()
}

function look(): void {
  let read = false
  for (const stream of full) read = stream.goOnIfRead() || read
  // Clients that read nothing are looked at more and more seldom.
  lookMs = read ? FIRST_LOOK_MS : Math.min(lookMs * 2, LAST_LOOK_MS)
  if (full.size === 0) lookMs = FIRST_LOOK_MS
  lookLater()
}
