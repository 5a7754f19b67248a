// CommonJS has the same declarations.
import sessions = require('mcp-sessions')
import tmcp = require('mcp-sessions/tmcp')

export async function run(): Promise<string | undefined> {
  const engine: sessions.Engine = sessions.Engine.memory({ retention: { events: 1 } })
  const streams = new tmcp.InMemoryStreamSessionManager({ engine, onError: (error) => console.error(error.code) })
  const known: boolean = await streams.known('s1')
  const stream: sessions.EventStream = await engine.streams.open('s1')
  const event: sessions.Event | undefined = known ? await stream.next() : undefined
  await engine.shutdown()
  return event?.payload
}

export const isOurs = (error: unknown): error is sessions.McpSessionsError => error instanceof sessions.McpSessionsError
