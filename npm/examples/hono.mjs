// An MCP server on Hono and `@modelcontextprotocol/server` for clients of both eras: those of 2025 have sessions,
// which live on every replica; those of 2026 have none.
//
//   BACKEND=postgresql://localhost/app PORT=3000 node hono.mjs
import { serve } from '@hono/node-server'
import {
  createMcpHandler,
  isLegacyRequest,
  McpServer,
  WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server'
import { Hono } from 'hono'
import { createSessionHandler } from 'mcp-sessions/sdk'

const { BACKEND: url = 'memory://app', PORT = '3000', NAME = 'hono' } = process.env

function makeServer() {
  const server = new McpServer({ name: 'notes', version: '1.0.0' }, { capabilities: { logging: {} } })
  server.registerTool('whoami', { description: 'Who answers' }, async () => ({
    content: [{ type: 'text', text: NAME }],
  }))
  server.registerTool('announce', { description: 'Says something outside of the request' }, async () => {
    await server.server.sendLoggingMessage({ level: 'info', data: `news from ${NAME}` })
    return { content: [{ type: 'text', text: 'announced' }] }
  })
  return server
}

const sessions = createSessionHandler(makeServer, {
  url,
  Transport: WebStandardStreamableHTTPServerTransport,
  transportOptions: { retryInterval: 250 },
})
const modern = createMcpHandler(makeServer, { legacy: 'reject' })

const app = new Hono()
app.all('/mcp', async ({ req }) => ((await isLegacyRequest(req.raw)) ? sessions.fetch(req.raw) : modern.fetch(req.raw)))
app.get('/stats', async (c) => c.json(await sessions.getStats()))

const http = serve({ fetch: app.fetch, port: Number(PORT), hostname: '127.0.0.1' }, ({ port }) =>
  console.log(`http://127.0.0.1:${port}/mcp`),
)

process.once('SIGTERM', async () => {
  await sessions.close({ deadlineMs: 10_000 })
  http.close()
})
