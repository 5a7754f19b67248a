// The classes take the place of tmcp's: they are assignable to its own types.
import { ZodJsonSchemaAdapter } from '@tmcp/adapter-zod'
import type * as theirs from '@tmcp/session-manager'
import { HttpTransport, type HttpTransportOptions } from '@tmcp/transport-http'
import { SseTransport, type SseTransportOptions } from '@tmcp/transport-sse'
import { Engine, type McpSessionsError } from 'mcp-sessions'
import {
  InMemoryInfoSessionManager,
  InMemoryStreamSessionManager,
  InMemorySubscriptionManager,
  PostgresInfoSessionManager,
  PostgresSessionManager,
  PostgresStreamSessionManager,
  PostgresSubscriptionManager,
  RedisInfoSessionManager,
  RedisStreamSessionManager,
  RedisSubscriptionManager,
  type Resumable,
  resumable,
} from 'mcp-sessions/tmcp'
import { McpServer } from 'tmcp'

const streams: theirs.StreamSessionManager = new InMemoryStreamSessionManager()
const info: theirs.InfoSessionManager = new InMemoryInfoSessionManager('memory://hub')
const subscriptionManager: theirs.SubscriptionManager = new InMemorySubscriptionManager({ url: 'memory://hub' })

// Where tmcp's own classes are declared, ours do as well.
const asTheirs: {
  streams: theirs.InMemoryStreamSessionManager extends infer T ? Pick<T, keyof T> : never
  info: theirs.InMemoryInfoSessionManager extends infer T ? Pick<T, keyof T> : never
  subscriptions: theirs.InMemorySubscriptionManager extends infer T ? Pick<T, keyof T> : never
} = {
  streams: new InMemoryStreamSessionManager(),
  info: new InMemoryInfoSessionManager(),
  subscriptions: new InMemorySubscriptionManager(),
}

export const http: HttpTransportOptions = { path: '/mcp', sessionManager: { streams, info }, subscriptionManager }
export const sse: SseTransportOptions = {
  path: '/sse',
  sessionManager: { streams: asTheirs.streams, info: asTheirs.info },
}

const server = new McpServer(
  { name: 'consumer', version: '1.0.0' },
  { adapter: new ZodJsonSchemaAdapter(), capabilities: { logging: {} } },
)
const engine: Engine = await Engine.connect('memory://hub', { retention: { events: 10 } })
const onError = (error: McpSessionsError) => console.error(error.code, error.retryable)
const sessionManager = {
  streams: new InMemoryStreamSessionManager({ engine, onError }),
  info: new InMemoryInfoSessionManager(engine),
}
const bare = new HttpTransport(server, {
  path: '/mcp',
  sessionManager,
  subscriptionManager: new InMemorySubscriptionManager(engine),
})
const transport = resumable(bare, {
  sessionManager,
  unknownSessions: 'reject',
  conflict: 'replace',
  retryMs: 500,
  onGap: ({ sessionId, lastEventId }) => console.warn(sessionId.length, lastEventId?.length),
})
export const response: Response | null = await transport.respond(new Request('http://localhost/mcp'))
export const closed: boolean = await transport.closeSubscription(new Response())
export const same: Resumable<HttpTransport> = transport
export const overSse = resumable(new SseTransport(server, { sessionManager }), { sessionManager })
await overSse.close()

// With a context of one's own, respond asks for it.
const custom = new McpServer(
  { name: 'c', version: '1' },
  { adapter: new ZodJsonSchemaAdapter(), capabilities: {} },
).withContext<{ user: string }>()
const withContext = resumable(new HttpTransport(custom, { path: '/mcp', sessionManager }), { sessionManager })
await withContext.respond(new Request('http://localhost/mcp'), { user: 'x' })

// On Redis: where tmcp's own managers go, ours do as well.
const url = 'redis://localhost:6379'
const onRedis = {
  streams: new RedisStreamSessionManager(url),
  info: new RedisInfoSessionManager({ url, prefix: 'app:', sessionTtlMs: 60_000, interop: 'tmcp', history: false }),
} satisfies { streams: theirs.StreamSessionManager; info: theirs.InfoSessionManager }
const subscriptionsOnRedis: theirs.SubscriptionManager = new RedisSubscriptionManager(engine)
export const httpOnRedis = resumable(
  new HttpTransport(server, { path: '/mcp', sessionManager: onRedis, subscriptionManager: subscriptionsOnRedis }),
  { sessionManager: onRedis },
)
await onRedis.streams.ready()

// On PostgreSQL, too, with tmcp's options.
const connectionString = 'postgresql://localhost/app'
const onPostgres = {
  streams: new PostgresStreamSessionManager({ connectionString, tableName: 'sessions', create: false }),
  info: new PostgresInfoSessionManager({
    connectionString,
    tableNames: { clientCapabilities: 'a', clientInfo: 'b', logLevel: 'c', subscriptions: 'd' },
  }),
} satisfies { streams: theirs.StreamSessionManager; info: theirs.InfoSessionManager }
const alike: theirs.StreamSessionManager = new PostgresSessionManager({ connectionString })
const subscriptionsOnPostgres: theirs.SubscriptionManager = new PostgresSubscriptionManager({
  connectionString,
  tableName: 'tmcp_subscription_messages',
})
export const httpOnPostgres = resumable(
  new HttpTransport(server, { sessionManager: onPostgres, subscriptionManager: subscriptionsOnPostgres }),
  { sessionManager: onPostgres },
)
await alike.has('s1')
