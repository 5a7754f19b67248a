// The managers on Redis: those of tmcp's `@tmcp/session-manager-redis` by changing an import.

import { Engine } from '../engine'
import { ConfigError } from '../errors'
import { InfoSessionManager } from './info'
import { type Kind, type ManagerOptions, type Source, sourceOf, withParameters } from './source'
import { StreamSessionManager } from './streams'
import { SubscriptionManager } from './subscriptions'

/** How a manager on Redis is made. */
export interface RedisManagerOptions extends ManagerOptions {
  /** `redis://user:password@host:6379/0`, `rediss://…` with TLS, or `redis+unix:///path`. */
  url?: string
  /** What the keys begin with (default: `tmcp:`). */
  prefix?: string
  /** `tmcp`: shares sessions with processes that still run tmcp's own package. */
  interop?: 'tmcp'
}

/** A URL, options, or an engine that was connected to Redis. */
export type RedisManagerArgument = string | RedisManagerOptions | Engine

const REDIS_URL = /^(redis|valkey|unix)[a-z+-]*:/i

/** The engine of these managers: connected in the background, one a process for the same URL and options. */
function redisSource(argument: RedisManagerArgument, kind: Kind): Source {
  if (argument instanceof Engine) return sourceOf(argument, kind)
  const given = typeof argument === 'string' ? { url: argument } : argument
  if (typeof given !== 'object' || given === null || (given.url === undefined && given.engine === undefined)) {
    throw new ConfigError('a manager on Redis is made with a URL such as redis://localhost:6379', 'connect')
  }
  const { prefix, interop, ...options } = given
  if (options.url === undefined) {
    if (prefix === undefined && interop === undefined) return sourceOf(options, kind)
    throw new ConfigError('the engine that is given has its prefix and interop already', 'connect')
  }
  if (typeof options.url !== 'string' || !REDIS_URL.test(options.url)) {
    throw new ConfigError('a Redis URL begins with redis://, rediss:// or redis+unix://', 'connect')
  }
  return sourceOf({ ...options, url: withParameters(options.url, { prefix, interop }) }, kind)
}

/**
 * Takes the place of tmcp's `RedisStreamSessionManager`: streams that can be resumed on any process. It
 * connects in the background and keeps at it; calls wait for that, or fail with `unavailable`.
 *
 * @example
 * ```ts
 * import { RedisInfoSessionManager, RedisStreamSessionManager, resumable } from 'mcp-sessions/tmcp'
 *
 * declare const url: string
 * const makeManagers = () => ({
 *   streams: new RedisStreamSessionManager(url),
 *   info: new RedisInfoSessionManager(url),
 * })
 * // const transport = resumable(new HttpTransport(server, { sessionManager }), { sessionManager })
 * console.log(typeof resumable, typeof makeManagers)
 * ```
 */
export class RedisStreamSessionManager extends StreamSessionManager {
  /** A URL, options, or an engine. Throws `config`. */
  constructor(argument: RedisManagerArgument) {
    super(redisSource(argument, 'streams'))
  }
}

/**
 * Takes the place of tmcp's `RedisInfoSessionManager`: in the same keys, with a time to live, and served
 * from memory while nothing changes.
 *
 * @example
 * ```ts
 * import { RedisInfoSessionManager } from 'mcp-sessions/tmcp'
 *
 * declare const url: string
 * const makeInfo = () => new RedisInfoSessionManager({ url, sessionTtlMs: 3_600_000 })
 * console.log(typeof makeInfo)
 * ```
 */
export class RedisInfoSessionManager extends InfoSessionManager {
  /** A URL, options, or an engine. Throws `config`. */
  constructor(argument: RedisManagerArgument) {
    super(redisSource(argument, 'info'))
  }
}

/**
 * Takes the place of tmcp's `RedisSubscriptionManager`: notifications reach the subscriptions of every
 * process, and what is sent while Redis is away is reported, not swallowed.
 *
 * @example
 * ```ts
 * import { RedisSubscriptionManager } from 'mcp-sessions/tmcp'
 *
 * declare const url: string
 * const makeSubscriptions = () => new RedisSubscriptionManager({ url, prefix: 'app:' })
 * // new HttpTransport(server, { subscriptionManager: makeSubscriptions() })
 * console.log(typeof makeSubscriptions)
 * ```
 */
export class RedisSubscriptionManager extends SubscriptionManager {
  /** A URL, options, or an engine. Throws `config`. */
  constructor(argument: RedisManagerArgument) {
    super(redisSource(argument, 'subscriptions'))
  }
}
