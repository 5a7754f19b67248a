import type { Notification, SubscriptionFilter } from '../subscriptions'
import { type ManagerArgument, type Source, sourceOf } from './source'

/** What tmcp's subscriptions call. */
interface Callbacks {
  acknowledge: () => void | Promise<void>
  // biome-ignore lint/suspicious/noExplicitAny: tmcp's own notification type comes from json-rpc-2.0
  send: (notification: any) => void | Promise<void>
  close: (reason: 'closed' | 'cancelled') => void | Promise<void>
}

/**
 * Takes the place of tmcp's `InMemorySubscriptionManager`: notifications reach the subscriptions of
 * every node, and one that is stuck holds up nobody.
 *
 * @example
 * ```ts
 * import { InMemorySubscriptionManager } from 'mcp-sessions/tmcp'
 *
 * const subscriptionManager = new InMemorySubscriptionManager('memory://subscriptions-example')
 * // new HttpTransport(server, { subscriptionManager })
 * await subscriptionManager.send({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' })
 * ```
 */
export class InMemorySubscriptionManager {
  #source: Source
  #closed = false

  /** Nothing for a private hub, a URL such as `memory://name`, an engine, or options. */
  constructor(argument?: ManagerArgument) {
    this.#source = sourceOf(argument, 'subscriptions')
    this.#source.follow(this)
  }

  /** Registers a subscription: acknowledged first, then its notifications in order. */
  create(
    subscription: { id: string | number; origin: string; filters: SubscriptionFilter },
    callbacks: Callbacks,
  ): Promise<boolean> {
    return this.#attempt('subscriptions.create', () =>
      this.#source.engine.subscriptions.create(subscription, {
        acknowledge: () => callbacks.acknowledge(),
        send: (notification) => callbacks.send(notification),
        // tmcp knows two ends: a server that shuts down ends gracefully, a slow client is cut off.
        close: (reason) => callbacks.close(reason === 'closed' || reason === 'shutdown' ? 'closed' : 'cancelled'),
      }),
    )
  }

  /** Sends a notification to the matching subscriptions of every node. */
  send(notification: { jsonrpc: '2.0'; method: string; params?: unknown }): Promise<void> {
    return this.#attempt('subscriptions.send', () =>
      this.#source.engine.subscriptions.send(notification as Notification),
    )
  }

  /** Ends one subscription; false when there is none. */
  close(id: string | number, origin: string, reason: 'closed' | 'cancelled'): Promise<boolean> {
    return this.#attempt('subscriptions.close', () => this.#source.engine.subscriptions.close(id, origin, reason))
  }

  /** Ends every subscription, or those of one origin. */
  closeAll(origin?: string, reason: 'closed' | 'cancelled' = 'cancelled'): Promise<void> {
    return this.#attempt('subscriptions.close', async () => {
      await this.#source.engine.subscriptions.closeAll(origin, reason)
    })
  }

  /** Lets go of the engine, and closes it if this was the last manager on it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#source.unfollow()
    this.#source.release()
  }

  #attempt<T>(operation: string, work: () => Promise<T>): Promise<T> {
    return this.#source.failures.attempt(operation, work)
  }
}
