// What the runner takes for the package: in a Worker an engine is its managers, and the sync layer where these have
// no word for what a step asks.

import { checkSessionId } from '../../../dist/check.js'
import { Objects } from '../../../dist/cloudflare/objects.mjs'
import {
  DurableObjectSessionRegistry,
  DurableObjectStreamSessionManager,
  DurableObjectSubscriptionManager,
  KVInfoSessionManager,
} from '../../../dist/cloudflare.mjs'
import { ACKNOWLEDGED_MS, FRAME_BYTES, framed, WorkerStream } from './stream.mjs'
import { WorkerSubscription } from './subscription.mjs'

export { McpSessionsError } from '../../../dist/errors.js'

const BINDING = 'TMCP_DURABLE_OBJECT'
/**
 * The lease of a Worker's stream is its reader's, and scenarios read when they like: that nothing is read for a
 * while does not mean that nobody is there.
 */
const LEASE = { renewMs: ACKNOWLEDGED_MS / 2, ttlMs: 600_000 }
const MAX_PAYLOAD_BYTES = 4 << 20
/** Expected failures are nothing to log. */
const onError = () => {}

/** The managers of one node. */
export class Engine {
  /** Sessions that a Worker registered name no process. */
  nodeId = '0'.repeat(32)
  /** @type {Set<WorkerStream | WorkerSubscription>} */
  #held = new Set()
  #objects

  /**
   * @param {string} prefix
   * @param {{ maxPayloadBytes?: number }} options
   */
  static async connect(prefix, options = {}) {
    const maxPayloadBytes = (options.maxPayloadBytes ?? MAX_PAYLOAD_BYTES) + FRAME_BYTES
    return new Engine({ ...options, lease: LEASE, maxPayloadBytes, prefix, onError })
  }

  /** @param {object} options */
  constructor(options) {
    const objects = new Objects(BINDING, options)
    this.#objects = objects
    this.streams = new Streams(objects, new DurableObjectStreamSessionManager(BINDING, options), this.#held)
    this.info = new Info(objects, new KVInfoSessionManager(undefined, options))
    this.subscriptions = new Subscriptions(new DurableObjectSubscriptionManager(BINDING, options), this.#held)
    this.registry = new DurableObjectSessionRegistry(BINDING, options)
  }

  stats() {
    const open = [...this.#held].filter((one) => one.end === undefined)
    const streams = open.filter((one) => one instanceof WorkerStream).length
    return { streams, subscriptions: open.length - streams }
  }

  /** What was accepted before is on its way once every object has answered. */
  async health() {
    await this.#objects.askAll('health', { ask: 'Ping' })
  }

  /** What it holds ends with its request. */
  async shutdown() {
    await Promise.all([...this.#held].map((one) => one.leave()))
  }

  async abandon() {}

  async [Symbol.asyncDispose]() {}
}

class Streams {
  #objects
  #manager
  #held

  /**
   * @param {Objects} objects
   * @param {DurableObjectStreamSessionManager} manager
   * @param {Set<WorkerStream | WorkerSubscription>} held
   */
  constructor(objects, manager, held) {
    this.#objects = objects
    this.#manager = manager
    this.#held = held
  }

  /**
   * @param {string} id
   * @param {{ after?: string, conflict?: 'replace' | 'reject' }} how
   */
  async open(id, how) {
    const stream = await WorkerStream.open(this.#manager, id, how)
    this.#held.add(stream)
    return stream
  }

  /**
   * @param {string | string[] | undefined} to
   * @param {string} payload
   * @param {{ idempotencyKey?: string }} [options]
   */
  send(to, payload, options) {
    return this.#manager.accept(typeof to === 'string' ? [to] : to, framed(payload), options)
  }

  /** @param {string} id */
  has(id) {
    return this.#manager.has(id)
  }

  /** @param {string} id */
  known(id) {
    return this.#manager.known(id)
  }

  /** @param {string} id */
  async close(id) {
    checkSessionId(id, 'streams.close')
    return this.#objects.ask('streams.close', id, { end: id })
  }

  /** @param {string} id */
  async forget(id) {
    checkSessionId(id, 'streams.forget')
    return this.#objects.ask('streams.forget', id, { forget: id })
  }
}

/** The manager, whose `delete` does not tell whether there was something. */
class Info {
  #objects

  /**
   * @param {Objects} objects
   * @param {KVInfoSessionManager} manager
   */
  constructor(objects, manager) {
    this.#objects = objects
    for (const name of ['ClientInfo', 'ClientCapabilities', 'LogLevel']) {
      this[`get${name}`] = manager[`get${name}`].bind(manager)
      this[`set${name}`] = manager[`set${name}`].bind(manager)
    }
    for (const name of ['getSubscriptions', 'addSubscription', 'removeSubscription']) {
      this[name] = manager[name].bind(manager)
    }
    this.manager = manager
  }

  /** @param {string} id */
  async getSessionSubscriptions(id) {
    checkSessionId(id, 'info.session_subscriptions')
    return this.#objects.ask('info.session_subscriptions', id, { ask: { Subscriptions: id } })
  }

  /** @param {string} id */
  async delete(id) {
    checkSessionId(id, 'info.delete')
    const had = await this.#objects.ask('info.get', id, { info: id })
    await this.manager.delete(id)
    return had !== null
  }
}

class Subscriptions {
  #manager
  #held

  /**
   * @param {DurableObjectSubscriptionManager} manager
   * @param {Set<WorkerStream | WorkerSubscription>} held
   */
  constructor(manager, held) {
    this.#manager = manager
    this.#held = held
  }

  /** @param {any} request */
  async listen(request) {
    const subscription = await WorkerSubscription.listen(this.#manager, request)
    if (subscription !== undefined) this.#held.add(subscription)
    return subscription
  }

  /** @param {any} notification */
  send(notification) {
    return this.#manager.send(notification)
  }

  /**
   * @param {string | number} id
   * @param {string} origin
   * @param {'closed' | 'cancelled'} reason
   */
  close(id, origin, reason) {
    return this.#manager.close(id, origin, reason)
  }
}
