/**
 * One session engine for every MCP server: streams that survive a cut connection, session info that
 * every process sees, notifications that reach every client.
 *
 * @packageDocumentation
 */

export type { LogLevel } from './check'
export { type Capability, Engine, type Health, type Stats } from './engine'
export {
  ClosedError,
  ConfigError,
  ConflictError,
  CorruptError,
  type ErrorCode,
  type ErrorDetails,
  InvalidInputError,
  McpSessionsError,
  NotFoundError,
  TimeoutError,
  TooLargeError,
  UnauthorizedError,
  UnavailableError,
} from './errors'
export type { EventLog, EventTail, LoggedEvent, Replay } from './events'
export type { Info, SessionInfo } from './info'
export type { JsonObject } from './json'
export type { Options, RetentionOptions } from './options'
export type { Receipt } from './port'
export type {
  ActiveRequest,
  Caller,
  Closing,
  Closings,
  JsonValue,
  NewSession,
  PageRequest,
  Registry,
  RegistryStats,
  SessionFilter,
  SessionPage,
  SessionRecord,
  SessionState,
} from './registry'
export type { EndReason, Event, EventStream, OpenOptions, SendOptions, Streams } from './streams'
export type {
  Notification,
  Subscription,
  SubscriptionCallbacks,
  SubscriptionEnd,
  SubscriptionFilter,
  SubscriptionRequest,
  Subscriptions,
} from './subscriptions'
