// G10 and G2 together: a client that was too slow comes back over HTTP for what it missed.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HttpTransport } from '@tmcp/transport-http'
import { Engine } from 'mcp-sessions'
import { InMemoryInfoSessionManager, InMemoryStreamSessionManager, resumable } from 'mcp-sessions/tmcp'
import { McpServer } from 'tmcp'
import { frameOf, SseReader, within } from './support.mjs'

/** Events that may wait in the engine for one reader. */
const QUEUE = 50
const adapter = { toJsonSchema: async () => ({ type: 'object' }) }

test('after overflow the client resumes with the last id it saw, over HTTP, and misses nothing', async () => {
  const engine = Engine.memory({
    queue: { events: QUEUE },
    retention: { events: 2_000 },
    broadcastRetention: { events: 2_000 },
  })
  const sessionManager = {
    streams: new InMemoryStreamSessionManager({ engine }),
    info: new InMemoryInfoSessionManager({ engine }),
  }
  const server = new McpServer({ name: 'slow', version: '1.0.0' }, { adapter, capabilities: {} })
  const transport = resumable(new HttpTransport(server, { path: '/mcp', sessionManager }), { sessionManager })
  const get = async (lastEventId) => {
    const headers = {
      'mcp-session-id': 's1',
      accept: 'text/event-stream',
      ...(lastEventId && { 'last-event-id': lastEventId }),
    }
    const response = await transport.respond(new Request('http://localhost/mcp', { headers }))
    assert.equal(response.status, 200)
    assert.equal(response.headers.get('mcp-sessions-gap'), null)
    return new SseReader(response.body)
  }
  const first = await get()
  const seen = []
  let sent = 0
  sessionManager.streams.send(['s1'], frameOf({ n: sent++ }))
  let last = await first.event()
  seen.push(last.data)
  while (engine.stats().overflows === 0) {
    assert.ok(sent < 2_000, 'the reader was never ended')
    await sessionManager.streams.send(sent % 2 ? ['s1'] : undefined, frameOf({ n: sent++ }))
  }
  // What waited in its controller may be cut off; what was read before counts.
  try {
    for (let frame = await first.event(); frame !== undefined; frame = await first.event()) {
      seen.push(frame.data)
      last = frame
    }
  } catch (error) {
    assert.match(error.message, /overflow/)
  }
  assert.ok(seen.length < sent)
  const second = await get(last.id)
  while (seen.length < sent) seen.push((await within(second.event(), 'the replay')).data)
  assert.deepEqual(
    seen,
    Array.from({ length: sent }, (_, n) => `{"n":${n}}`),
  )
  await engine.shutdown()
})
