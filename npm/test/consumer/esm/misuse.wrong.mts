// What must not compile, each with the error that says so.
import { HttpTransport } from '@tmcp/transport-http'
import { Engine, type Event } from 'mcp-sessions'
import {
  InMemoryInfoSessionManager,
  InMemoryStreamSessionManager,
  InMemorySubscriptionManager,
  resumable,
} from 'mcp-sessions/tmcp'

const engine = Engine.memory()
const stream = await engine.streams.open('s1')

// error TS2673
new Engine('memory://', {})
// error TS2345
Engine.connect(7)
// error TS2561
Engine.memory({ retentoin: { events: 1 } })
// error TS2322
Engine.memory({ maxPayloadBytes: 'much' })
// error TS2345
engine.streams.open(7)
// error TS2322
engine.streams.open('s1', { conflict: 'steal' })
// error TS2345
engine.streams.send('s1', { n: 1 })
// error TS2345
engine.streams.send(null, 'x')
// error TS2345
engine.info.setLogLevel('s1', 'loud')
// error TS2345
engine.info.setClientInfo('s1', 'x')
// error TS2561
engine.info.put('s1', { loglevel: 'debug' })
// error TS2540
stream.id = 's2'
// error TS2322
export const event: Event = await stream.next()
// error TS2739
engine.subscriptions.create({ id: 1, origin: 'o', filters: {} }, { acknowledge() {} })
// error TS2345
engine.subscriptions.close(1, 'o', 'bored')
// error TS2345
new InMemoryStreamSessionManager(7)
// error TS2353
new InMemoryInfoSessionManager({ uri: 'memory://x' })
// error TS2741
resumable(
  { respond: async () => null },
  { sessionManager: { streams: new InMemoryStreamSessionManager(), info: new InMemoryInfoSessionManager() } },
)
// error TS2741
resumable(
  { respond: async () => null, close() {} },
  { sessionManager: { streams: new InMemoryStreamSessionManager() } },
)
// error TS2741
new HttpTransport({} as never, { subscriptionManager: new InMemoryStreamSessionManager() })
// error TS2307
import('mcp-sessions/dist/port.js')
// error TS2339
new InMemorySubscriptionManager().has('s1')
