// What must not compile of the pieces for the official SDKs.
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { Engine } from 'mcp-sessions'
import { createSessionHandler, eventStore, SessionManager } from 'mcp-sessions/sdk'

const engine = Engine.memory()
const make = () => new McpServer({ name: 'consumer', version: '1.0.0' })

// error TS2345
eventStore('memory://hub')
// error TS2322
eventStore(engine, { conflict: 'steal' })
// error TS2322
eventStore(engine, { sessionId: 7 })
// error TS2322
createSessionHandler(() => ({ connect: 7 }))
// error TS2322
createSessionHandler(make, { Transport: StreamableHTTPServerTransport })
// error TS2353
createSessionHandler(make, { engine, transportOptions: { sessionIdGenerator: () => 'x' } })
// error TS2322
createSessionHandler(make, { owner: () => 7 })
// error TS2322
createSessionHandler(make, { metadata: () => new Date() })
// error TS2353
new SessionManager({ engine, staleTimeout: 7 })
// error TS2741
new SessionManager<{ connect(): void }>({ engine })
const sessions = new SessionManager<McpServer, StreamableHTTPServerTransport>({ engine })
// error TS2740
sessions.createSession({ close: async () => {} })
// error TS2345
sessions.createSession(make(), 7)
// error TS2741
export const stats: { totalSessions: number } = sessions.getStats()
