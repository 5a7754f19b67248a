// An MCP server on Express and `@modelcontextprotocol/sdk`: its sessions live on every replica.
//
//   BACKEND=redis://localhost:6379 PORT=3000 node express.mjs
//
// Start as many replicas as you like behind any load balancer. A client whose replica dies goes on with another
// one, and gets what it missed.
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js'
import express from 'express'
import { createSessionHandler } from 'mcp-sessions/sdk'

const { BACKEND: url = 'memory://app', PORT = '3000', NAME = 'express' } = process.env

function makeServer({ authInfo }) {
  const server = new McpServer({ name: 'notes', version: '1.0.0' }, { capabilities: { logging: {} } })
  server.registerTool('whoami', { description: 'Who you are, and who answers' }, async () => ({
    content: [{ type: 'text', text: `${authInfo?.extra?.sub} at ${NAME}` }],
  }))
  server.registerTool('announce', { description: 'Says something outside of the request' }, async () => {
    await server.sendLoggingMessage({ level: 'info', data: `news from ${NAME}` })
    return { content: [{ type: 'text', text: 'announced' }] }
  })
  return server
}

const sessions = createSessionHandler(makeServer, {
  url,
  Transport: WebStandardStreamableHTTPServerTransport,
  transportOptions: { retryInterval: 250 },
})

// In your server the verifier asks your identity provider. `extra.sub` names the owner of a session.
const verifier = {
  async verifyAccessToken(token) {
    const [sub] = token.split('.')
    return { token, clientId: 'example', scopes: [], expiresAt: Date.now() / 1000 + 3_600, extra: { sub } }
  },
}

const app = express()
app.use(express.json({ limit: '4mb' }))
app.all('/mcp', requireBearerAuth({ verifier }), sessions.node)
app.get('/stats', async (_, res) => res.json(await sessions.getStats()))

const http = app.listen(Number(PORT), '127.0.0.1', () => console.log(`http://127.0.0.1:${http.address().port}/mcp`))

// On a deploy requests are finished, streams move on to the other replicas, and sessions live on.
process.once('SIGTERM', async () => {
  await sessions.close({ deadlineMs: 10_000 })
  http.close()
})
