// The engine's own API, strictly typed.
import {
  type EndReason,
  Engine,
  type ErrorCode,
  type Event,
  McpSessionsError,
  NotFoundError,
  type Receipt,
} from 'mcp-sessions'

await using engine = Engine.memory({
  queue: { events: 10, bytes: 1_000 },
  lease: { ttlMs: 5_000, renewMs: 2_000 },
  frameIds: false,
})
await using stream = await engine.streams.open('s1', { after: undefined, conflict: 'reject' })
export const receipt: Receipt = await engine.streams.send(['s1', 's2'], 'x', { idempotencyKey: 'once' })
await engine.streams.send(undefined, 'to all')
for await (const { payload, cursor, kind } of stream) {
  const event: Event = { payload, cursor, kind }
  console.log(event.payload.length, kind === 'broadcast')
}
export const next: Event | undefined = await stream.next()
export const end: EndReason | undefined = stream.end
export const ended: EndReason = await stream.ended
export const has: boolean = await engine.streams.has('s1')
await engine.info.put('s1', { logLevel: 'debug', clientInfo: { name: 'x' } })
export const level: string | undefined = engine.info.cached('s1')?.logLevel
export const subscribers: string[] = await engine.info.getSubscriptions('u:1')
export const created: boolean = await engine.subscriptions.create(
  { id: 1, origin: 'o', filters: { toolsListChanged: true, resourceSubscriptions: ['u:1'] } },
  { acknowledge() {}, send: async ({ method }) => console.log(method.length), close: (reason) => console.log(reason) },
)
try {
  await engine.info.getClientInfo('s1')
} catch (error) {
  if (error instanceof NotFoundError) console.log(error.operation)
  else if (error instanceof McpSessionsError) {
    const code: ErrorCode = error.code
    console.log(code, error.outcomeUnknown)
  }
}
export const ready: boolean = (await engine.health()).ready
export const accepted: number = engine.stats().accepted
export const manual: boolean = engine.capability.manualClock
await engine.shutdown(1_000)
