// In a Worker the classes take the place of tmcp's: they are assignable to its own types.
import { ZodJsonSchemaAdapter } from '@tmcp/adapter-zod'
import type * as theirs from '@tmcp/session-manager'
import { HttpTransport, type HttpTransportOptions } from '@tmcp/transport-http'
import { SseTransport, type SseTransportOptions } from '@tmcp/transport-sse'
import {
  DurableObjectSessionRegistry,
  DurableObjectStreamSessionManager,
  DurableObjectSubscriptionManager,
  gateway,
  KVInfoSessionManager,
  type McpSessionsError,
  type Resumable,
  resumable,
  SyncLayer,
} from 'mcp-sessions/cloudflare'
import { McpServer } from 'tmcp'

const onError = (error: McpSessionsError) => console.error(error.code, error.retryable)
const streams: theirs.StreamSessionManager = new DurableObjectStreamSessionManager()
const info: theirs.InfoSessionManager = new KVInfoSessionManager('TMCP_SESSION_INFO', { sessionTtlMs: 60_000 })
const subscriptionManager: theirs.SubscriptionManager = new DurableObjectSubscriptionManager('TMCP_DURABLE_OBJECT', {
  shards: 4,
  onError,
})

export const http: HttpTransportOptions = { path: '/mcp', sessionManager: { streams, info }, subscriptionManager }
export const sse: SseTransportOptions = { path: '/sse', sessionManager: { streams, info } }

const server = new McpServer(
  { name: 'consumer', version: '1.0.0' },
  { adapter: new ZodJsonSchemaAdapter(), capabilities: { logging: {} } },
)
const sessionManager = { streams: new DurableObjectStreamSessionManager(), info: new KVInfoSessionManager() }
const transport: Resumable<HttpTransport> = resumable(new HttpTransport(server, { sessionManager }), {
  sessionManager,
  unknownSessions: 'reject',
})
export const overSse = resumable(new SseTransport(server, { sessionManager }), { sessionManager })
export const response: Response | null = await transport.respond(new Request('http://localhost/mcp'))
export const alive: boolean = await new DurableObjectSessionRegistry().has('s1')
export const answered: Response = await gateway({}, { token: 'secret' })(new Request('http://localhost/sessions'))
export { SyncLayer }
