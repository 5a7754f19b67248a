// The pieces for the official SDKs, with both: they fit where the SDKs' own go.

import { createServer } from 'node:http'
import { NodeStreamableHTTPServerTransport } from '@modelcontextprotocol/node'
import { McpServer as McpServer1 } from '@modelcontextprotocol/sdk/server/mcp.js'
import {
  type EventStore as EventStore1,
  StreamableHTTPServerTransport,
} from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { WebStandardStreamableHTTPServerTransport as Web1 } from '@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js'
import {
  type EventStore as EventStore2,
  McpServer as McpServer2,
  WebStandardStreamableHTTPServerTransport as Web2,
} from '@modelcontextprotocol/server'
import { Engine } from 'mcp-sessions'
import {
  createSessionHandler,
  eventStore,
  getSessionManager,
  type McpSession,
  ownerOf,
  type SessionHandler,
  SessionManager,
  type SessionStats,
} from 'mcp-sessions/sdk'

const engine: Engine = await Engine.connect('memory://hub')
const implementation = { name: 'consumer', version: '1.0.0' }

// The event store is one of either SDK, and goes into the options of all their transports.
const one = eventStore(engine, { conflict: 'reject', onGap: ({ sessionId }) => console.warn(sessionId.length) })
export const store1: EventStore1 = one.eventStore
export const store2: EventStore2 = one.eventStore
export const transports = [
  new StreamableHTTPServerTransport({ ...eventStore(engine), retryInterval: 500 }),
  new Web1({ ...eventStore(engine), enableJsonResponse: true }),
  new NodeStreamableHTTPServerTransport({ ...eventStore(engine) }),
  new Web2(eventStore(engine)),
]

// Managers know what is theirs.
const sessions1 = new SessionManager<McpServer1, StreamableHTTPServerTransport>({
  engine,
  Transport: StreamableHTTPServerTransport,
  transportOptions: { retryInterval: 500, keepAliveMs: 0 },
})
const made = await sessions1.createSession(new McpServer1(implementation), 'token', { plan: 'pro' })
const transport: StreamableHTTPServerTransport = made.transport
transport.closeStandaloneSSEStream()
export const found: McpSession<McpServer1, StreamableHTTPServerTransport> | undefined = sessions1.getSession(
  made.sessionId,
)
export const tool = found?.server.registerTool('x', { description: 'x' }, async () => ({ content: [] }))
export const stats: SessionStats = await sessions1.getStats()
export const closed: number = await sessions1.closeSessionsByToken('token')

const sessions2 = new SessionManager<McpServer2, NodeStreamableHTTPServerTransport>({
  url: 'redis://localhost:6379',
  Transport: NodeStreamableHTTPServerTransport,
  eventStore: false,
})
await sessions2.createSession(new McpServer2(implementation))
const plain = getSessionManager<McpServer1>()
const { transport: found1 } = await plain.createSession(new McpServer1(implementation), 'token')

// Handlers serve fetch and node:http.
const handler1: SessionHandler = createSessionHandler(() => new McpServer1(implementation), {
  Transport: Web1,
  url: 'memory://hub',
  owner: (authInfo) => authInfo?.clientId,
  metadata: ({ sessionId }) => ({ sessionId }),
  onSessionClosed: async (sessionId, reason) => console.log(sessionId, reason),
})
const handler2 = createSessionHandler(
  async ({ authInfo, adopted }) => new McpServer2({ ...implementation, title: `${authInfo?.clientId} ${adopted}` }),
  { Transport: Web2, engine, adopt: false, transportOptions: { enableJsonResponse: true }, owner: ownerOf },
)
export const response: Response = await handler2.fetch(new Request('http://localhost/mcp'))
export const http = createServer(async (req, res) => {
  await handler1.node(req, res)
  await found1.handleRequest(req, res)
})
export const revoked: number = await handler2.closeSessionsByOwner('x', 'revoked')
await handler2.close({ deadlineMs: 1_000, endSessions: true })
