import { checkSessionId, checkText } from '../check'
import { asError, ClosedError, InvalidInputError } from '../errors'
import { ControlledStream, type Controller } from './controlled-stream'
import { quiet } from './failures'
import { type ManagerArgument, type Source, sourceOf } from './source'
import { type Opening, visits } from './visit'

/**
 * Takes the place of tmcp's `InMemoryStreamSessionManager`: streams that can be resumed, on this node or
 * another, with slow clients bounded.
 *
 * @example
 * ```ts
 * import { InMemoryInfoSessionManager, InMemoryStreamSessionManager, resumable } from 'mcp-sessions/tmcp'
 *
 * const sessionManager = {
 *   streams: new InMemoryStreamSessionManager(),
 *   info: new InMemoryInfoSessionManager(),
 * }
 * // const transport = resumable(new HttpTransport(server, { sessionManager }), { sessionManager })
 * console.log(typeof resumable, await sessionManager.streams.has('session-1'))
 * ```
 */
export class InMemoryStreamSessionManager {
  #source: Source
  #streams = new Map<string, ControlledStream>()
  #closed = false

  /** Nothing for a private hub, a URL such as `memory://name`, an engine, or options. */
  constructor(argument?: ManagerArgument) {
    this.#source = sourceOf(argument, 'streams')
    this.#source.follow(this)
  }

  /** Opens the session's stream: its events go into the controller, those that wait at once. */
  create(id: string, controller: Controller): void | Promise<void> {
    const operation = 'streams.open'
    try {
      checkSessionId(id, operation)
      this.#checkOpen(operation)
      if (typeof controller?.enqueue !== 'function')
        throw new InvalidInputError('a controller has enqueue and close', operation)
    } catch (error) {
      return this.#source.failures.reject(error, operation)
    }
    const visit = visits.getStore()
    const opening = visit?.kind === 'open' ? visit : undefined
    const stream = new ControlledStream(this.#source.port, id, controller, this.#gone)
    this.#streams.set(id, stream)
    if (opening !== undefined) greet(stream, opening)
    const { port } = this.#source
    const opened = port.open(stream.token, id, {
      after: opening?.after,
      reject: opening?.conflict === 'reject',
      frameIds: port.described.frameIds,
      tellStart: opening !== undefined,
    })
    if (opening === undefined && stream.failure === undefined) return opened
    port.flush()
    if (stream.failure !== undefined) return this.#source.failures.reject(stream.failure, operation)
    return opened
  }

  /** Closes the session's stream, wherever it is held. What is sent later waits for the next one. */
  delete(id: string): void | Promise<void> {
    const operation = 'streams.close'
    const { port, failures } = this.#source
    const visit = visits.getStore()
    if (visit?.kind === 'leave') {
      // The client of an old stream is gone: one that took over since has nothing to do with that.
      visit.stream.leave()
      return
    }
    try {
      checkSessionId(id, operation)
      if (port.isClosed) return
      // What was sent before the end is delivered before it.
      port.flush()
      const local = this.#streams.get(id)
      local?.close()
      if (visit?.kind === 'terminate')
        return settled(failures.attempt('streams.forget', () => port.call('forget', { id })))
      if (local !== undefined) return
      return settled(failures.attempt(operation, () => port.call('close', { id })))
    } catch (error) {
      return failures.reject(error, operation)
    }
  }

  /** Whether a live node holds a stream of the session. */
  has(id: string): Promise<boolean> {
    const visit = visits.getStore()
    // The new stream takes over: for the transport there is none in its way.
    if (visit?.kind === 'open' && visit.conflict === 'replace') return Promise.resolve(false)
    return this.#ask('has', id)
  }

  /** Whether the session is known: it has info, or a stream, or had one within retention. */
  known(id: string): Promise<boolean> {
    return this.#ask('known', id)
  }

  /** What is wrong with a client's `Last-Event-ID`, if anything; what it names may be gone all the same. */
  cursorProblem(id: string, cursor: string): string | undefined {
    try {
      checkSessionId(id, 'streams.open')
      this.#source.port.call('checkCursor', { id, cursor })
      return undefined
    } catch (error) {
      return (error as Error).message
    }
  }

  /**
   * Sends to a list of sessions, or to all (`undefined`), wherever their streams are. It never rejects:
   * transports send from listeners that nobody awaits. What goes wrong is told to `onError`.
   */
  send(sessions: string[] | undefined, data: string): void | Promise<void> {
    const operation = 'streams.send'
    const { port, failures } = this.#source
    try {
      this.#checkOpen(operation)
      checkText(data, 'a payload', port.described.maxPayloadBytes, operation)
      if (sessions === undefined || sessions === null) return port.sendAll(data)
      if (sessions.length === 1) return port.sendOne(this.#target(sessions[0], operation), data)
      if (sessions.length === 0) return
      return port.sendList(
        sessions.map((id) => this.#target(id, operation)),
        data,
      )
    } catch (error) {
      failures.report(asError(error, operation))
    }
  }

  /** Closes the streams of this manager, and its engine if it was the last one on it. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    if (!this.#source.port.isClosed) this.#source.port.flush()
    for (const stream of [...this.#streams.values()]) stream.close()
    this.#source.unfollow()
    this.#source.release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #target(id: unknown, operation: string): number | string {
    const local = this.#streams.get(id as string)
    // Where opening takes time, the addon knows the stream by its session only.
    if (local !== undefined && this.#source.port.immediate) return local.token
    checkSessionId(id, operation)
    return id
  }

  #gone = (stream: ControlledStream): void => {
    if (this.#streams.get(stream.id) === stream) this.#streams.delete(stream.id)
  }

  #ask(call: 'has' | 'known', id: string): Promise<boolean> {
    const { port, failures } = this.#source
    return failures.attempt(`streams.${call}`, () => {
      checkSessionId(id, `streams.${call}`)
      return port.call<boolean>(call, { id })
    })
  }

  #checkOpen(operation: string): void {
    if (this.#closed || this.#source.port.isClosed) throw new ClosedError('the session manager was closed', operation)
  }
}

/** Tells the client what `resumable` promises, before its events. */
function greet(stream: ControlledStream, opening: Opening): void {
  opening.stream = stream
  stream.say(`retry: ${opening.retryMs}\n\n`)
  stream.onOpen = (gap, start) => {
    if (gap) {
      opening.gap = true
      stream.say(': gap: events between the last one received and the next one are lost\n\n')
      opening.onGap?.({ sessionId: stream.id, lastEventId: opening.after })
    }
    // A line that dies before the first event takes events along that the client can only ask for with
    // a cursor. Clients take the id of any event, and pass over those that are no `message`.
    if (start !== '') stream.say(`event: cursor\nid: ${start}\ndata: {}\n\n`)
  }
}

function settled(promise: Promise<unknown>): Promise<void> {
  return quiet(promise.then(() => {}))
}
