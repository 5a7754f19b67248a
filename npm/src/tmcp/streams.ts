import { checkSessionId, checkText } from '../check'
import type { Engine } from '../engine'
import { asError, ClosedError, InvalidInputError } from '../errors'
import type { Port } from '../port'
import { ControlledStream, type Controller } from './controlled-stream'
import { quiet } from './failures'
import { visits } from './node-visits'
import { embeddedSource, type ManagerArgument, type Source } from './source'
import type { Opening } from './visit'

/** What the stream managers of all backends have in common; tmcp calls these methods. */
export abstract class StreamSessionManager {
  #source: Source
  #streams = new Map<string, ControlledStream>()
  #closed = false

  /** @internal */
  constructor(source: Source) {
    this.#source = source
    source.follow(this)
  }

  /**
   * Resolves once the backend was reached; rejects while it can't be. Nobody has to wait for it: calls do,
   * and fail with `unavailable` then.
   */
  ready(): Promise<void> {
    return quiet(this.#source.connected('connect').then(() => {}))
  }

  /** @internal */
  engine(): Promise<Engine> {
    return this.#source.connected('connect')
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
    const { port } = this.#source
    if (port === undefined) return this.#source.later(operation, () => this.create(id, controller))
    const visit = visits.getStore()
    const opening = visit?.kind === 'open' ? visit : undefined
    const stream = new ControlledStream(port, id, controller, this.#gone)
    this.#streams.set(id, stream)
    if (opening !== undefined) greet(stream, opening)
    port.open(stream.token, id, {
      after: opening?.after,
      reject: opening?.conflict === 'reject',
      frameIds: port.described.frameIds,
      tellStart: opening !== undefined,
    })
    if (!port.immediate) {
      return quiet(
        stream.settled().then((failure) => (failure ? this.#source.failures.reject(failure, operation) : undefined)),
      )
    }
    // It crosses before anybody who waits for this goes on, so nobody has to wait for a promise.
    if (opening === undefined && stream.failure === undefined) return undefined
    port.flush()
    return stream.failure === undefined ? undefined : this.#source.failures.reject(stream.failure, operation)
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
      if (this.#closed || this.#source.isClosed) return
      if (port === undefined) return this.#source.later(operation, () => this.delete(id))
      if (!port.immediate) {
        const terminate = visit?.kind === 'terminate'
        return failures.attempt(operation, () => this.#end(port, id, terminate))
      }
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
      this.#source.port?.call('checkCursor', { id, cursor })
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
      if (port === undefined) {
        return this.#source.connected(operation).then(
          () => this.send(sessions, data),
          (error) => failures.report(asError(error, operation)),
        )
      }
      checkText(data, 'a payload', port.described.maxPayloadBytes, operation)
      if (sessions === undefined || sessions === null) return port.sendAll(data)
      if (sessions.length === 1) return port.sendOne(this.#target(port, sessions[0], operation), data)
      if (sessions.length === 0) return
      return port.sendList(
        sessions.map((id) => this.#target(port, id, operation)),
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
    const { port } = this.#source
    this.#source.unfollow()
    if (port !== undefined && !port.isClosed) {
      port.flush()
      if (!port.immediate) await port.sent()
    }
    for (const stream of [...this.#streams.values()]) stream.close()
    await this.#source.release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #target(port: Port, id: unknown, operation: string): number | string {
    const local = this.#streams.get(id as string)
    // Where opening takes time, the addon knows the stream by its session only.
    if (local !== undefined && port.immediate) return local.token
    checkSessionId(id, operation)
    return id
  }

  #gone = (stream: ControlledStream): void => {
    if (this.#streams.get(stream.id) === stream) this.#streams.delete(stream.id)
  }

  #ask(call: 'has' | 'known', id: string): Promise<boolean> {
    const { port, failures } = this.#source
    const operation = `streams.${call}`
    if (port === undefined) return this.#source.later(operation, () => this.#ask(call, id))
    return failures.attempt(operation, () => {
      checkSessionId(id, operation)
      return port.call<boolean>(call, { id })
    })
  }

  /** Ends a stream by way of the backend: what was sent before is delivered before the end. */
  async #end(port: Port, id: string, terminate: boolean): Promise<void> {
    const local = this.#streams.get(id)
    await Promise.all([port.sent(), local?.settled()])
    try {
      await port.call(terminate ? 'forget' : 'close', { id })
    } catch (error) {
      local?.close()
      // A manager that was closed meanwhile has given all its streams back.
      if (!this.#closed) throw error
    }
  }

  #checkOpen(operation: string): void {
    if (this.#closed || this.#source.isClosed) throw new ClosedError('the session manager was closed', operation)
  }
}

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
export class InMemoryStreamSessionManager extends StreamSessionManager {
  /** Nothing for a private hub, a URL such as `memory://name`, an engine, or options. */
  constructor(argument?: ManagerArgument) {
    super(embeddedSource(argument, 'streams'))
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
