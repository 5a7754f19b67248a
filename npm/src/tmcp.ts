/**
 * Classes that take the place of those of `@tmcp/session-manager`, `@tmcp/session-manager-redis` and
 * `@tmcp/session-manager-postgres` by changing an import.
 *
 * @packageDocumentation
 */

export type { Controller } from './tmcp/controlled-stream'
export type { OnError } from './tmcp/failures'
export { type InfoSessionManager, InMemoryInfoSessionManager } from './tmcp/info'
export {
  PostgresInfoSessionManager,
  type PostgresManagerOptions,
  PostgresSessionManager,
  PostgresStreamSessionManager,
  PostgresSubscriptionManager,
  type PostgresSubscriptionOptions,
  type PostgresTableOptions,
} from './tmcp/postgres'
export {
  RedisInfoSessionManager,
  type RedisManagerArgument,
  type RedisManagerOptions,
  RedisStreamSessionManager,
  RedisSubscriptionManager,
} from './tmcp/redis'
export type { Authenticated, OwnerOptions, Sender, Verifier } from './tmcp/registered'
export { type Resumable, type ResumableOptions, type ResumableTransport, resumable } from './tmcp/resumable'
export type { ManagerArgument, ManagerOptions } from './tmcp/source'
export { InMemoryStreamSessionManager, type StreamSessionManager } from './tmcp/streams'
export { InMemorySubscriptionManager, type SubscriptionManager } from './tmcp/subscriptions'
