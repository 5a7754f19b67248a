// tmcp's subscriptions in a Worker: each is fed by a WebSocket of the request that listens.

import { checkText } from '../check.js'
import { asError, ClosedError, InvalidInputError } from '../errors.js'
import type { Notification, SubscriptionFilter } from '../subscriptions.js'
import { OBJECTS, Objects, type WorkerOptions, type WorkerSocket } from './objects.mjs'

const MAX_PAYLOAD_BYTES = 4 << 20
/** Notifications and bytes that may wait for a callback that does not settle. */
const MAX_WAITING = { events: 1_024, bytes: 4 << 20 }

/** What tmcp's subscriptions call. */
export interface Callbacks {
  acknowledge: () => void | Promise<void>
  // biome-ignore lint/suspicious/noExplicitAny: tmcp's own notification type comes from json-rpc-2.0
  send: (notification: any) => void | Promise<void>
  close: (reason: 'closed' | 'cancelled') => void | Promise<void>
}

/**
 * Takes the place of tmcp's `DurableObjectSubscriptionManager`: made at module scope, and every subscription
 * of every request receives.
 */
export class DurableObjectSubscriptionManager {
  #objects: Objects

  /** The binding of the Durable Objects, and options. Throws `config`. */
  constructor(binding: string = OBJECTS, options: WorkerOptions = {}) {
    this.#objects = new Objects(binding, options)
  }

  /** Registers a subscription: acknowledged first, then its notifications in order. False when there is one. */
  create(
    subscription: { id: string | number; origin: string; filters: SubscriptionFilter },
    callbacks: Callbacks,
  ): Promise<boolean> {
    const operation = 'subscriptions.create'
    return this.#attempt(operation, async () => {
      const { id, origin, filters } = subscription
      const key = keyOf(id, operation)
      checkOrigin(origin, operation)
      let socket: WorkerSocket
      try {
        const listening = { key, origin, filters }
        socket = await this.#objects.connect(operation, placeOf(key, origin), 'listen', listening)
      } catch (error) {
        if ((error as { code?: string }).code === 'conflict') return false
        throw error
      }
      const queue = { ...MAX_WAITING, ...this.#objects.settings.queue }
      await new SocketSubscription(socket, callbacks, queue, (error) =>
        this.#objects.report(asError(error, operation)),
      ).run()
      return true
    })
  }

  /** Sends a notification to the matching subscriptions of all Workers and processes. */
  send(notification: { jsonrpc: '2.0'; method: string; params?: unknown }): Promise<void> {
    const operation = 'subscriptions.send'
    return this.#attempt(operation, async () => {
      const payload = JSON.stringify(notification as Notification)
      if (typeof notification?.method !== 'string' || payload === undefined) {
        throw new InvalidInputError('a notification is a JSON object with a method', operation)
      }
      checkText(payload, 'a notification', this.#objects.settings.maxPayloadBytes ?? MAX_PAYLOAD_BYTES, operation)
      await this.#objects.askAll(operation, { notify: { payload } }, false)
    })
  }

  /** Ends one subscription; false when there is none. */
  close(id: string | number, origin: string, reason: 'closed' | 'cancelled'): Promise<boolean> {
    const operation = 'subscriptions.close'
    return this.#attempt(operation, () => {
      const key = keyOf(id, operation)
      checkOrigin(origin, operation)
      return this.#objects.ask<boolean>(operation, placeOf(key, origin), { unlisten: { key, origin, reason } })
    })
  }

  /** Ends every subscription, or those of one origin. */
  closeAll(origin?: string, reason: 'closed' | 'cancelled' = 'cancelled'): Promise<void> {
    const operation = 'subscriptions.close'
    return this.#attempt(operation, async () => {
      await this.#objects.askAll(operation, { unlistenAll: { origin, reason } })
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #attempt<T>(operation: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (thrown) {
      const error = asError(thrown, operation)
      this.#objects.report(error)
      throw error
    }
  }
}

/** 1 is not "1". */
function keyOf(id: unknown, operation: string): string {
  if (typeof id === 'string' || typeof id === 'number') return JSON.stringify(id)
  throw new InvalidInputError('the id of a subscription is a string or a number', operation)
}

function checkOrigin(origin: unknown, operation: string): void {
  if (typeof origin !== 'string') throw new InvalidInputError('the origin of a subscription is a string', operation)
}

/** What decides which object has it. */
function placeOf(key: string, origin: string): string {
  return `${origin} ${key}`
}

class SocketSubscription {
  #socket: WorkerSocket
  #callbacks: Callbacks
  #limits: { events: number; bytes: number }
  #report: (error: unknown) => void
  #waiting: string[] = []
  #bytes = 0
  #acknowledged = false
  #busy = false
  #over = false

  constructor(
    socket: WorkerSocket,
    callbacks: Callbacks,
    limits: { events: number; bytes: number },
    report: (error: unknown) => void,
  ) {
    this.#socket = socket
    this.#callbacks = callbacks
    this.#limits = limits
    this.#report = report
  }

  /** Resolves once it was acknowledged. */
  async run(): Promise<void> {
    const socket = this.#socket
    const text = new TextDecoder()
    socket.binaryType = 'arraybuffer'
    const registered = new Promise<void>((resolve, reject) => {
      socket.addEventListener('message', ({ data }) => {
        if (typeof data !== 'string') return this.#take(text.decode(data))
        const { end } = JSON.parse(data) as { end?: string }
        if (end === undefined) resolve()
        else this.#end(end === 'closed' ? 'closed' : 'cancelled')
      })
      const gone = () => {
        reject(new ClosedError('the subscription ended before it was there', 'subscriptions.create'))
        this.#end('cancelled')
      }
      socket.addEventListener('close', gone)
      socket.addEventListener('error', gone)
    })
    socket.accept()
    await registered
    try {
      await this.#callbacks.acknowledge()
    } catch (error) {
      this.#end('cancelled')
      throw error
    }
    this.#acknowledged = true
    void this.#drain()
  }

  #take(text: string): void {
    if (this.#over) return
    this.#waiting.push(text)
    this.#bytes += text.length
    if (this.#waiting.length > this.#limits.events || this.#bytes > this.#limits.bytes) this.#end('cancelled')
    else void this.#drain()
  }

  /** One after the other; a callback that is stuck holds up its own subscription only. */
  async #drain(): Promise<void> {
    if (this.#busy || !this.#acknowledged) return
    this.#busy = true
    for (let text = this.#waiting.shift(); text !== undefined && !this.#over; text = this.#waiting.shift()) {
      this.#bytes -= text.length
      try {
        await this.#callbacks.send(JSON.parse(text))
      } catch (error) {
        this.#report(error)
      }
    }
    this.#busy = false
  }

  #end(reason: 'closed' | 'cancelled'): void {
    if (this.#over) return
    this.#over = true
    this.#waiting = []
    try {
      this.#socket.close(1000, reason)
    } catch {
      // It was closed already.
    }
    Promise.resolve()
      .then(() => this.#callbacks.close(reason))
      .catch(this.#report)
  }
}
