import { Asking } from './asking'
import { checkText } from './check'
import { asError, ClosedError, InvalidInputError } from './errors'
import type { Port, Reason, Receiver, Take } from './port'

/** A JSON-RPC notification. */
export interface Notification {
  jsonrpc: '2.0'
  method: string
  params?: unknown
}

/** The filters of a `subscriptions/listen` request: only what is asked for is sent. */
export interface SubscriptionFilter {
  /** `notifications/tools/list_changed`. */
  toolsListChanged?: boolean | undefined
  /** `notifications/prompts/list_changed`. */
  promptsListChanged?: boolean | undefined
  /** `notifications/resources/list_changed`. */
  resourcesListChanged?: boolean | undefined
  /** `notifications/resources/updated` of these URIs. */
  resourceSubscriptions?: string[] | undefined
}

/** A subscription: the client's request id, unique only within its origin, and what it asks for. */
export interface SubscriptionRequest {
  /** The client's JSON-RPC id; its type counts: 1 is not "1". */
  id: string | number
  /** A transport's name for a connection or session. */
  origin: string
  filters: SubscriptionFilter
}

/** Why a subscription ended. */
export type SubscriptionEnd = 'closed' | 'cancelled' | 'overflow' | 'shutdown'

/** What a subscription calls. */
export interface SubscriptionCallbacks {
  /** Writes the acknowledgement: nothing is sent before it is done. */
  acknowledge: () => void | Promise<void>
  /** Writes a notification; the next one waits until this one is done. */
  send: (notification: Notification) => void | Promise<void>
  /** The subscription has ended. */
  close: (reason: SubscriptionEnd) => void | Promise<void>
}

/** Notifications that wait here for a callback before they wait in the engine's bounded queue. */
const MAX_WAITING = 16
/** A callback that has not settled by then does not hold up the end of its subscription. */
const CALLBACK_MS = 1_000

/**
 * Serves `subscriptions/listen` streams of the modern era (MCP 2026-07-28): registrations are local,
 * notifications reach every node.
 *
 * @example
 * ```ts
 * import { Engine } from 'mcp-sessions'
 *
 * const engine = Engine.memory()
 * await engine.subscriptions.create(
 *   { id: 1, origin: 'connection-1', filters: { toolsListChanged: true } },
 *   {
 *     acknowledge: () => console.log('subscribed'),
 *     send: (notification) => console.log(notification.method),
 *     close: (reason) => console.log('ended', reason),
 *   },
 * )
 * await engine.subscriptions.send({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' })
 * ```
 */
export class Subscriptions {
  #port: Port
  #called = new Map<string, Called>()

  /** @internal */
  constructor(port: Port) {
    this.#port = port
  }

  /**
   * Registers a subscription; false when its id is taken in its origin. Matching notifications wait
   * until the acknowledgement is written, then follow in order.
   *
   * Rejects with `invalid_input`, `too_large`, or what `acknowledge` threw; nothing is registered then.
   */
  async create(request: SubscriptionRequest, callbacks: SubscriptionCallbacks): Promise<boolean> {
    const key = keyOf(request?.id, request?.origin)
    for (const name of ['acknowledge', 'send', 'close'] as const) {
      if (typeof callbacks?.[name] !== 'function')
        throw new InvalidInputError(`${name} is a function`, 'subscriptions.create')
    }
    const called = new Called(this.#port, callbacks, () => {
      if (this.#called.get(key) === called) this.#called.delete(key)
    })
    let registered = false
    try {
      registered = this.#register(request, called.token, true)
    } finally {
      if (!registered) called.discard()
    }
    if (!registered) return false
    this.#called.set(key, called)
    await called.acknowledge()
    return true
  }

  /**
   * Registers a subscription whose notifications are asked for; `undefined` when its id is taken in its
   * origin. One that nobody refers to any more is cancelled.
   */
  async listen(request: SubscriptionRequest): Promise<Subscription | undefined> {
    keyOf(request?.id, request?.origin)
    const subscription = new Subscription(this.#port, request.id, request.origin)
    try {
      if (this.#register(request, subscription.token, false)) return subscription
    } catch (error) {
      subscription.discard()
      throw error
    }
    subscription.discard()
    return undefined
  }

  /** Sends a notification to the matching subscriptions of every node; resolves once it is accepted. */
  async send(notification: Notification): Promise<void> {
    const operation = 'subscriptions.send'
    const json = toJson(notification, operation)
    checkText(json, 'a notification', this.#port.described.maxPayloadBytes, operation)
    if (this.#port.isClosed) throw new ClosedError('the engine was closed', operation)
    await this.#port.notify(json)
  }

  /** Ends one subscription of this node, whatever its callbacks do; false when there is none. */
  async close(id: string | number, origin: string, reason: 'closed' | 'cancelled' = 'cancelled'): Promise<boolean> {
    const key = keyOf(id, origin)
    const called = this.#called.get(key)
    const ended = await this.#port.ask<boolean>('endSubscription', { id, origin, reason: reasonOf(reason) })
    await called?.ended
    return ended || called !== undefined
  }

  /** Ends every subscription of this node, or those of one origin; how many there were. */
  async closeAll(origin?: string, reason: 'closed' | 'cancelled' = 'cancelled'): Promise<number> {
    if (origin !== undefined) checkText(origin, 'an origin', Number.POSITIVE_INFINITY, 'subscriptions.close')
    const called = [...this.#called.values()]
    const ended = await this.#port.ask<number>('endSubscriptions', { origin: origin ?? null, reason: reasonOf(reason) })
    await Promise.all(called.filter((one) => one.isEnding).map((one) => one.ended))
    return ended
  }

  #register({ id, origin, filters }: SubscriptionRequest, token: number, mailed: boolean): boolean {
    const operation = 'subscriptions.create'
    if (typeof filters !== 'object' || filters === null) throw new InvalidInputError('filters are an object', operation)
    const { toolsListChanged, promptsListChanged, resourcesListChanged, resourceSubscriptions } = filters
    const wanted = { toolsListChanged, promptsListChanged, resourcesListChanged, resourceSubscriptions }
    // Registrations are local on every backend, so there is nothing to wait for.
    return this.#port.call<boolean>('listen', { id, origin, filters: wanted, token, mailed }) as boolean
  }
}

/** A subscription whose notifications go to callbacks, one after the other. */
class Called implements Receiver {
  readonly token: number
  /** Resolves once the close callback is done, or took too long. */
  readonly ended: Promise<void>
  #resolveEnded: () => void = () => {}
  #port: Port
  #callbacks: SubscriptionCallbacks
  #gone: () => void
  #waiting: unknown[] = []
  #sending: Promise<void> | undefined
  #paused = false
  #end: Reason | undefined

  constructor(port: Port, callbacks: SubscriptionCallbacks, gone: () => void) {
    this.#port = port
    this.#callbacks = callbacks
    this.#gone = gone
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve
    })
    this.token = port.register(this)
    port.hold()
  }

  get isEnding(): boolean {
    return this.#end !== undefined
  }

  discard(): void {
    this.#port.release(this.token)
    this.#port.unhold()
    this.#gone()
    this.#resolveEnded()
  }

  /** Has the acknowledgement written; one that fails undoes the registration. */
  async acknowledge(): Promise<void> {
    try {
      const written = this.#callbacks.acknowledge()
      // An acknowledgement that never ends does not outlive its subscription.
      if (isPromise(written)) await Promise.race([written, this.ended])
    } catch (error) {
      if (this.isEnding) return
      this.discard()
      throw asError(error, 'subscriptions.acknowledge')
    }
    if (!this.isEnding) this.#port.acknowledge(this.token)
  }

  notification(notification: unknown): void {
    if (this.#sending === undefined && this.#waiting.length === 0) this.#send(notification)
    else this.#wait(notification)
  }

  end(reason: Reason): void {
    if (this.#end !== undefined) return
    this.#end = reason
    void this.#close(reason)
  }

  #wait(notification: unknown): void {
    this.#waiting.push(notification)
    if (this.#waiting.length < MAX_WAITING || this.#paused) return
    this.#paused = true
    this.#port.pause(this.token, true)
  }

  #send(notification: unknown): void {
    try {
      const sent = this.#callbacks.send(notification as Notification)
      if (!isPromise(sent)) return
      this.#sending = sent.then(undefined, this.#failed).then(() => {
        this.#sending = undefined
        this.#sendWaiting()
      })
    } catch (error) {
      this.#failed(error)
    }
  }

  #sendWaiting(): void {
    while (this.#sending === undefined && this.#waiting.length > 0) this.#send(this.#waiting.shift())
    if (this.#waiting.length > 0 || !this.#paused || this.isEnding) return
    this.#paused = false
    this.#port.pause(this.token, false)
  }

  #failed = (error: unknown): void => {
    this.#port.report(asError(error, 'subscriptions.send'))
  }

  async #close(reason: Reason): Promise<void> {
    try {
      await inTime(this.#drained())
      await inTime(this.#callbacks.close(reason as SubscriptionEnd))
    } catch (error) {
      this.#port.report(asError(error, 'subscriptions.close'))
    }
    this.#waiting = []
    this.#port.unhold()
    this.#gone()
    this.#resolveEnded()
  }

  async #drained(): Promise<void> {
    while (this.#sending !== undefined) await this.#sending
  }
}

/** A subscription of this node whose notifications are asked for. */
export class Subscription implements AsyncIterable<Notification> {
  /** The client's JSON-RPC id. */
  readonly id: string | number
  /** Whose id it is. */
  readonly origin: string
  #asking: Asking<Notification, SubscriptionEnd>

  /** @internal */
  constructor(port: Port, id: string | number, origin: string) {
    this.id = id
    this.origin = origin
    this.#asking = new Asking(port, (token) => port.takeNotification(token) as Take<Notification>)
    this.#asking.begun()
  }

  /** @internal */
  get token(): number {
    return this.#asking.token
  }

  /** The acknowledgement was written: notifications may follow. */
  acknowledge(): void {
    this.#asking.port.acknowledge(this.token)
  }

  /** Why it ended, if it has. */
  get end(): SubscriptionEnd | undefined {
    return this.#asking.end
  }

  /** Resolves when it ends. */
  get ended(): Promise<SubscriptionEnd> {
    return this.#asking.ended
  }

  /** The next notification, in order; `undefined` once the subscription has ended. */
  async next(): Promise<Notification | undefined> {
    return (await this.#asking.read(1))[0]
  }

  /** The next notification if there is one already. */
  tryNext(): Notification | undefined {
    return this.#asking.tryRead()
  }

  /** Cancels it. Closing it twice is fine. */
  async close(): Promise<void> {
    await this.#asking.close('cancelled')
  }

  /** @internal */
  discard(): void {
    void this.#asking.close('cancelled')
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Notification> {
    try {
      for (let one = await this.next(); one !== undefined; one = await this.next()) yield one
    } finally {
      await this.close()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

function keyOf(id: unknown, origin: unknown): string {
  const operation = 'subscriptions'
  if (typeof id !== 'number') checkText(id, 'a JSON-RPC id', Number.POSITIVE_INFINITY, operation)
  else if (!Number.isFinite(id)) throw new InvalidInputError(`${id} is no JSON-RPC id`, operation)
  checkText(origin, 'an origin', Number.POSITIVE_INFINITY, operation)
  return JSON.stringify([id, origin])
}

function reasonOf(reason: unknown): 'closed' | 'cancelled' {
  if (reason === 'closed' || reason === 'cancelled') return reason
  throw new InvalidInputError('a subscription is closed or cancelled', 'subscriptions.close')
}

/** JSON escapes lone surrogates; everything else it writes as it is. */
const LONE_SURROGATE = /(?<!\\)(?:\\\\)*\\ud[89a-f]/

function toJson(notification: unknown, operation: string): string {
  let json: string | undefined
  try {
    json = JSON.stringify(notification)
  } catch (error) {
    throw asError(error, operation)
  }
  if (json === undefined) throw new InvalidInputError('a notification is a JSON object with a method', operation)
  if (LONE_SURROGATE.test(json)) {
    throw new InvalidInputError('a notification has a lone surrogate, which is not valid Unicode', operation)
  }
  return json
}

function isPromise(value: unknown): value is Promise<void> {
  return typeof (value as { then?: unknown } | undefined)?.then === 'function'
}

/** Waits for a callback, but not for ever. */
async function inTime(work: void | Promise<void>): Promise<void> {
  if (!isPromise(work)) return
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, CALLBACK_MS)
  })
  try {
    await Promise.race([work, deadline])
  } finally {
    clearTimeout(timer)
  }
}
