/**
 * Classes that take the place of those of `@tmcp/session-manager` by changing an import.
 *
 * @packageDocumentation
 */

export type { Controller } from './tmcp/controlled-stream'
export type { OnError } from './tmcp/failures'
export { InMemoryInfoSessionManager } from './tmcp/info'
export { type Resumable, type ResumableOptions, type ResumableTransport, resumable } from './tmcp/resumable'
export type { ManagerArgument, ManagerOptions } from './tmcp/source'
export { InMemoryStreamSessionManager } from './tmcp/streams'
export { InMemorySubscriptionManager } from './tmcp/subscriptions'
