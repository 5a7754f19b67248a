/**
 * Sessions in Durable Objects and KV, for Workers: classes that take the place of those of
 * `@tmcp/session-manager-durable-objects` by changing an import, and the way in for engines elsewhere.
 *
 * @packageDocumentation
 */

export { type GatewayOptions, gateway } from './cloudflare/gateway.mjs'
export { type InfoOptions, KVInfoSessionManager } from './cloudflare/info.mjs'
export type { WorkerOptions } from './cloudflare/objects.mjs'
export { DurableObjectSessionRegistry, type WorkerRequest } from './cloudflare/registry.mjs'
export { type Controller, DurableObjectStreamSessionManager } from './cloudflare/streams.mjs'
export { DurableObjectSubscriptionManager } from './cloudflare/subscriptions.mjs'
export { SyncLayer } from './cloudflare/sync-layer.mjs'
export { McpSessionsError } from './errors.js'
export type { Receipt } from './port.js'
export type { SendOptions } from './streams.js'
export { type Resumable, type ResumableOptions, type ResumableTransport, resumable } from './tmcp/resumable.js'
