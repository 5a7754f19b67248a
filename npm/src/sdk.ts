/**
 * Sessions for servers on the official SDKs, `@modelcontextprotocol/sdk` 1.32 and `@modelcontextprotocol/server`
 * 2.4: on every replica, on any backend.
 *
 * @packageDocumentation
 */

export { type EventStoreOptions, eventStore, type ScopedEventStore, type SessionEvents } from './sdk/event-store'
export {
  type CloseOptions,
  createSessionHandler,
  type HandlerStats,
  type ServerContext,
  type ServerFactory,
  type SessionHandler,
  type SessionHandlerOptions,
} from './sdk/handler'
export type { NodeRequest, RequestContext } from './sdk/node-http'
export { ownerOf } from './sdk/owner'
export {
  getSessionManager,
  type McpSession,
  SessionManager,
  type SessionManagerOptions,
  type SessionStats,
} from './sdk/session-manager'
export type {
  AuthInfo,
  MadeWith,
  NodeTransport,
  SessionServer,
  SessionTransport,
  TransportClass,
  TransportOptions,
  WebTransport,
} from './sdk/types'
