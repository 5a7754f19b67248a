// A session's GET stream, read from its event log: what any replica sends to the session comes through it.

import type { EventLog, LoggedEvent } from '../events'
import { isResponse, type Message } from './answers'

/** From here on a client takes events without data, which carry nothing but an id. */
const FIRST_WITH_PRIMING = '2025-11-25'
/** Until then several requests may be one POST, and have several answers on its stream. */
const LAST_WITH_BATCHES = '2025-03-26'
/** What is appended where a stream was opened; it carries nothing but its id. */
export const MARK = ''
const KEEP_ALIVE = new TextEncoder().encode(': keepalive\n\n')

/** The comments that keep quiet streams from being cut: one timer for all streams. */
export class KeepAlive {
  #streams = new Set<ReadableStreamDefaultController<Uint8Array>>()
  #timer: NodeJS.Timeout | undefined
  #everyMs: number

  constructor(everyMs: number) {
    this.#everyMs = everyMs
  }

  add(stream: ReadableStreamDefaultController<Uint8Array>): void {
    this.#streams.add(stream)
    if (this.#everyMs <= 0 || this.#timer !== undefined) return
    this.#timer = setInterval(() => this.#beat(), this.#everyMs)
    this.#timer.unref()
  }

  remove(stream: ReadableStreamDefaultController<Uint8Array>): void {
    this.#streams.delete(stream)
    if (this.#streams.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #beat(): void {
    // A client that does not read needs no more to read.
    for (const stream of this.#streams) if ((stream.desiredSize ?? 0) >= 0) stream.enqueue(KEEP_ALIVE)
  }
}

/** What a stream is opened with. */
export interface StreamRequest {
  log: EventLog
  /** The stream, for one that is not resumed. */
  stream: string
  /** The client's `Last-Event-ID`. */
  after: string | undefined
  /** The negotiated protocol version. */
  version: string
  /** Milliseconds the client is asked to wait before it reconnects. */
  retryMs: number
  keepAlive: KeepAlive
  /** Called once the stream is over. */
  over: () => void
}

/** A stream that was opened. */
export interface OpenStream {
  body: ReadableStream<Uint8Array>
  /** Something between the client's id and the first event is lost. */
  gap: boolean
  /** Ends it; its client comes back with the last id. */
  end(): void
}

/**
 * Opens a stream: a resumed one goes on after the client's id, another one where the last one stopped. Rejects as
 * the log does, with `invalid_input` for an id that is none of this session.
 */
export async function openStream(request: StreamRequest): Promise<OpenStream> {
  const { log, after, version } = request
  const encoder = new TextEncoder()
  const name = after === undefined ? request.stream : log.streamOf(after)
  const tail = await (after === undefined ? log.follow(name) : log.tail(after))
  // An id for a client that gets nothing else, so that it can come back.
  if (after === undefined)
    await log.append(name, MARK).catch(async (error) => {
      await tail.close().catch(() => {})
      throw error
    })
  // The answer is the last thing on the stream of a request.
  const lastsOn = name === request.stream || version <= LAST_WITH_BATCHES
  let head: string | undefined = `retry: ${request.retryMs}\n\n`
  let over = false
  let mine: ReadableStreamDefaultController<Uint8Array> | undefined
  const leave = () => {
    if (over) return
    over = true
    if (mine !== undefined) request.keepAlive.remove(mine)
    // An outage is no reason not to leave.
    tail.close().catch(() => {})
    request.over()
  }
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        mine = controller
        request.keepAlive.add(controller)
      },
      async pull(controller) {
        try {
          if (head !== undefined) {
            controller.enqueue(encoder.encode(head))
            head = undefined
            return
          }
          const next = await tail.next()
          if (over) return
          if (next !== undefined) controller.enqueue(encoder.encode(frame(next, version)))
          if (next !== undefined && (lastsOn || !isAnswer(next))) return
          leave()
          controller.close()
        } catch (error) {
          leave()
          controller.error(error)
        }
      },
      cancel: leave,
    },
    // What its client does not read stays in the tail, which is bounded.
    { highWaterMark: 0 },
  )
  const end = () => {
    if (over) return
    leave()
    mine?.close()
  }
  return { body, gap: tail.gap, end }
}

function isAnswer({ payload }: LoggedEvent): boolean {
  return payload !== MARK && isResponse(JSON.parse(payload) as Message)
}

function frame({ id, payload }: LoggedEvent, version: string): string {
  if (payload !== MARK) return `event: message\nid: ${id}\ndata: ${payload}\n\n`
  // Older clients would read no data as a broken message, but pass over events of other kinds.
  return version >= FIRST_WITH_PRIMING ? `id: ${id}\ndata: \n\n` : `event: cursor\nid: ${id}\ndata: \n\n`
}
