import type { Engine } from '../engine'
import { ClosedError } from '../errors'
import type { Notification, SubscriptionFilter } from '../subscriptions'
import { embeddedSource, type ManagerArgument, type Source } from './source'

/** What tmcp's subscriptions call. */
interface Callbacks {
  acknowledge: () => void | Promise<void>
  // biome-ignore lint/suspicious/noExplicitAny: tmcp's own notification type comes from json-rpc-2.0
  send: (notification: any) => void | Promise<void>
  close: (reason: 'closed' | 'cancelled') => void | Promise<void>
}

/** What the subscription managers of all backends have in common; tmcp calls these methods. */
export abstract class SubscriptionManager {
  #source: Source
  #closed = false

  /** @internal */
  constructor(source: Source) {
    this.#source = source
    source.follow(this)
  }

  /** Registers a subscription: acknowledged first, then its notifications in order. */
  create(
    subscription: { id: string | number; origin: string; filters: SubscriptionFilter },
    callbacks: Callbacks,
  ): Promise<boolean> {
    return this.#attempt('subscriptions.create', (engine) =>
      engine.subscriptions.create(subscription, {
        acknowledge: () => callbacks.acknowledge(),
        send: (notification) => callbacks.send(notification),
        // tmcp knows two ends: a server that shuts down ends gracefully, a slow client is cut off.
        close: (reason) => callbacks.close(reason === 'closed' || reason === 'shutdown' ? 'closed' : 'cancelled'),
      }),
    )
  }

  /** Sends a notification to the matching subscriptions of every node. */
  send(notification: { jsonrpc: '2.0'; method: string; params?: unknown }): Promise<void> {
    return this.#attempt('subscriptions.send', (engine) => engine.subscriptions.send(notification as Notification))
  }

  /** Ends one subscription; false when there is none. */
  close(id: string | number, origin: string, reason: 'closed' | 'cancelled'): Promise<boolean> {
    return this.#attempt('subscriptions.close', async (engine) => {
      try {
        return await engine.subscriptions.close(id, origin, reason)
      } catch (error) {
        // tmcp's transport closes what a client that goes away had, in a promise that nobody awaits: a
        // server that shuts down meanwhile, and has ended them all, must not die of it.
        if (error instanceof ClosedError) return false
        throw error
      }
    })
  }

  /** Ends every subscription, or those of one origin. */
  closeAll(origin?: string, reason: 'closed' | 'cancelled' = 'cancelled'): Promise<void> {
    return this.#attempt('subscriptions.close', async (engine) => {
      await engine.subscriptions.closeAll(origin, reason)
    })
  }

  /** Lets go of the engine, and closes it if this was the last manager on it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#source.unfollow()
    await this.#source.release()
  }

  #attempt<T>(operation: string, work: (engine: Engine) => Promise<T>): Promise<T> {
    const { engine, failures } = this.#source
    if (engine === undefined) return this.#source.later(operation, () => this.#attempt(operation, work))
    return failures.attempt(operation, () => work(engine))
  }
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
export class InMemorySubscriptionManager extends SubscriptionManager {
  /** Nothing for a private hub, a URL such as `memory://name`, an engine, or options. */
  constructor(argument?: ManagerArgument) {
    super(embeddedSource(argument, 'subscriptions'))
  }
}
