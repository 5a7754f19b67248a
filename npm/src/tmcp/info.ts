import { checkSessionId, checkUri } from '../check'
import { asError, ClosedError } from '../errors'
import { checkField, neverSet } from '../info'
import { ClientCapabilities, ClientInfo, LogLevelField } from '../info-cache'
import { quiet } from './failures'
import { visits } from './node-visits'
import { embeddedSource, type ManagerArgument, type Source } from './source'

type Context = import('tmcp', { with: { 'resolution-mode': 'import' }}).Context
type Known = NonNullable<Context['sessionInfo']>

/** What the info managers of all backends have in common; tmcp calls these methods. */
export abstract class InfoSessionManager {
  #source: Source
  #closed = false

  /** @internal */
  constructor(source: Source) {
    this.#source = source
    source.follow(this)
  }

  /** `clientInfo`; rejects with `Client info not found for session …` when it was never set. */
  getClientInfo(id: string): Promise<Known['clientInfo']> {
    return this.#get(id, ClientInfo) as Promise<Known['clientInfo']>
  }

  /** Sets `clientInfo`. */
  setClientInfo(id: string, clientInfo: Known['clientInfo']): void | Promise<void> {
    return this.#set(id, ClientInfo, clientInfo)
  }

  /** `capabilities`; rejects with `Client capabilities not found for session …` when they were never set. */
  getClientCapabilities(id: string): Promise<Known['clientCapabilities']> {
    return this.#get(id, ClientCapabilities) as Promise<Known['clientCapabilities']>
  }

  /** Sets `capabilities`. */
  setClientCapabilities(id: string, clientCapabilities: Known['clientCapabilities']): void | Promise<void> {
    return this.#set(id, ClientCapabilities, clientCapabilities)
  }

  /** The log level; rejects with `Log Level not found for session …` when it was never set. */
  getLogLevel(id: string): Promise<Known['logLevel']> {
    return this.#get(id, LogLevelField) as Promise<Known['logLevel']>
  }

  /** Sets the log level. */
  setLogLevel(id: string, logLevel: Known['logLevel']): void | Promise<void> {
    return this.#set(id, LogLevelField, logLevel)
  }

  /**
   * The sessions subscribed to a resource. It never rejects: transports ask from listeners that nobody
   * awaits. What goes wrong is told to `onError`, and nobody is subscribed then.
   */
  async getSubscriptions(uri: string): Promise<string[]> {
    const operation = 'info.subscribers'
    const { port, failures } = this.#source
    try {
      this.#checkOpen(operation)
      if (port === undefined) {
        await this.#source.connected(operation)
        return await this.getSubscriptions(uri)
      }
      checkUri(uri, port.described.maxUriBytes, operation)
      return await port.call<string[]>('subscribers', { uri })
    } catch (error) {
      failures.report(asError(error, operation))
      return []
    }
  }

  /** Subscribes a session to a resource. */
  addSubscription(id: string, uri: string): void | Promise<void> {
    return this.#subscribe(id, uri, true, 'info.add_subscription')
  }

  /** Ends a session's subscription to a resource. */
  removeSubscription(id: string, uri: string): void | Promise<void> {
    return this.#subscribe(id, uri, false, 'info.remove_subscription')
  }

  /** Deletes what is known of a session, and its resource subscriptions. */
  delete(id: string): void | Promise<void> {
    const operation = 'info.delete'
    // A client that is merely gone may come back: only the end of its session forgets it.
    if (visits.getStore()?.kind === 'leave') return
    const { port, cache, failures } = this.#source
    try {
      checkSessionId(id, operation)
      this.#checkOpen(operation)
      if (port === undefined || cache === undefined) return this.#source.later(operation, () => this.delete(id))
      return this.#told(
        cache.delete(id, () => port.deleteInfo(id)),
        operation,
      )
    } catch (error) {
      return failures.reject(error, operation)
    }
  }

  /**
   * Resolves once what was set so far is known to every node, or failed: transports set without waiting, and
   * a client's next request may go to another node.
   */
  async written(): Promise<void> {
    const { port } = this.#source
    if (port !== undefined && !port.immediate && !port.isClosed) await port.written()
  }

  /** Lets go of the engine, and closes it if this was the last manager on it. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    const { port } = this.#source
    if (port !== undefined && !port.isClosed) port.flush()
    this.#source.unfollow()
    await this.#source.release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #get(id: string, field: number): Promise<unknown> {
    try {
      this.#checkOpen('info.get')
      const { cache } = this.#source
      if (cache === undefined) return this.#source.later('info.get', () => this.#get(id, field))
      const value = cache.get(id, field)
      if (value instanceof Promise) {
        return quiet(
          value.then(
            (value) => {
              if (value === undefined) throw neverSet(field, id)
              return value
            },
            (error) => this.#source.failures.reject(error, 'info.get'),
          ),
        )
      }
      if (value !== undefined) return Promise.resolve(value)
      return quiet(Promise.reject(neverSet(field, id)))
    } catch (error) {
      return this.#source.failures.reject(error, 'info.get')
    }
  }

  #set(id: string, field: number, value: unknown): void | Promise<void> {
    const { port, cache, failures } = this.#source
    try {
      if (this.#closed || this.#source.isClosed) this.#checkOpen('info.put')
      if (port === undefined || cache === undefined) {
        return this.#source.later('info.put', () => this.#set(id, field, value))
      }
      const set = cache.set(id, field, checkField(field, value, port.described.maxInfoBytes, 'info.put'))
      return set && this.#told(set, 'info.put')
    } catch (error) {
      return failures.reject(error, 'info.put')
    }
  }

  #subscribe(id: string, uri: string, subscribed: boolean, operation: string): void | Promise<void> {
    const { port, failures } = this.#source
    try {
      checkSessionId(id, operation)
      this.#checkOpen(operation)
      if (port === undefined)
        return this.#source.later(operation, () => this.#subscribe(id, uri, subscribed, operation))
      checkUri(uri, port.described.maxUriBytes, operation)
      return this.#told(port.subscribe(id, uri, subscribed), operation)
    } catch (error) {
      return failures.reject(error, operation)
    }
  }

  /** A failure is told, and the caller's to await or not. */
  #told(work: Promise<void> | undefined, operation: string): Promise<void> | undefined {
    if (work === undefined || this.#source.port?.immediate) return work
    return this.#source.failures.attempt(operation, () => work)
  }

  #checkOpen(operation: string): void {
    if (this.#closed || this.#source.isClosed) throw new ClosedError('the session manager was closed', operation)
  }
}

/**
 * Takes the place of tmcp's `InMemoryInfoSessionManager`: what a client said is known on every node.
 *
 * @example
 * ```ts
 * import { InMemoryInfoSessionManager } from 'mcp-sessions/tmcp'
 *
 * const info = new InMemoryInfoSessionManager('memory://info-example')
 * info.setClientInfo('session-1', { name: 'inspector', version: '1.0.0' })
 * console.log(await info.getClientInfo('session-1'))
 * ```
 */
export class InMemoryInfoSessionManager extends InfoSessionManager {
  /** Nothing for a private hub, a URL such as `memory://name`, an engine, or options. */
  constructor(argument?: ManagerArgument) {
    super(embeddedSource(argument, 'info'))
  }
}
