// What must not compile from CommonJS either.
import sessions = require('mcp-sessions')
import tmcp = require('mcp-sessions/tmcp')

// error TS2339
export const missing = sessions.Motor
// error TS2345
export const stream = sessions.Engine.memory().streams.open(7)
// error TS2345
export const manager = new tmcp.InMemoryInfoSessionManager(7)
