// G10: a reader that stops is paused, bounded, then ended; others do not notice.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HttpTransport } from '@tmcp/transport-http'
import { Engine } from 'mcp-sessions'
import { InMemoryInfoSessionManager, InMemoryStreamSessionManager, resumable } from 'mcp-sessions/tmcp'
import { McpServer } from 'tmcp'
import { controlled, frameOf, SseReader, within } from './support.mjs'

/** Events that may wait in the engine for one reader. */
const QUEUE = 50
const adapter = { toJsonSchema: async () => ({ type: 'object' }) }

const tick = () => new Promise((resolve) => setImmediate(resolve))

test('a reader that stops is paused, bounded, and ended with overflow; others get everything', async () => {
  const engine = Engine.memory({ queue: { events: QUEUE } })
  const streams = new InMemoryStreamSessionManager({ engine })
  const slow = controlled()
  const quick = controlled()
  await streams.create('slow', slow.controller)
  await streams.create('quick', quick.controller)
  const quickly = new SseReader(quick.body)
  let most = 0
  let sent = 0
  for (; engine.stats().overflows === 0 && sent < 2_000; sent++) {
    streams.send(undefined, frameOf({ n: sent }))
    assert.equal((await quickly.event()).data, `{"n":${sent}}`, 'the quick reader misses nothing')
    most = Math.max(most, 1 - slow.controller.desiredSize)
  }
  assert.equal(engine.stats().overflows, 1)
  assert.ok(most <= 128, `${most} chunks waited in the controller`)
  assert.ok(sent >= QUEUE, `it was ended after ${sent} events, before its queue was full`)
  assert.ok(sent <= most + QUEUE + 64, `${sent} events were sent before a reader with a queue of ${QUEUE} was ended`)
  assert.equal(await streams.has('slow'), false)
  assert.equal(await streams.has('quick'), true)
  assert.equal(engine.stats().streams, 1)
  await engine.shutdown()
})

test('bytes are bounded as well as events', async () => {
  const engine = Engine.memory({ queue: { bytes: 256 * 1024 } })
  const streams = new InMemoryStreamSessionManager({ engine })
  const slow = controlled()
  await streams.create('slow', slow.controller)
  const large = frameOf({ text: 'x'.repeat(64 * 1024) })
  let sent = 0
  for (; engine.stats().overflows === 0 && sent < 500; sent++) await streams.send(['slow'], large)
  assert.equal(engine.stats().overflows, 1)
  // A megabyte in the controller, and what the queue holds.
  assert.ok(sent <= 30, `${sent} times 64 KiB were taken for a reader that reads nothing`)
  await engine.shutdown()
})

test('a reader that stops for a while goes on, without loss', async () => {
  const engine = Engine.memory({ queue: { events: 1_000 } })
  const streams = new InMemoryStreamSessionManager({ engine })
  const { body, controller } = controlled()
  await streams.create('s1', controller)
  for (let n = 0; n < 500; n++) streams.send(['s1'], frameOf({ n }))
  await tick()
  assert.ok(1 - controller.desiredSize < 500, 'it was not paused')
  const reader = new SseReader(body)
  for (let n = 0; n < 500; n++) assert.equal((await reader.event()).data, `{"n":${n}}`)
  streams.send(['s1'], frameOf({ n: 500 }))
  assert.equal((await reader.event()).data, '{"n":500}')
  assert.equal(engine.stats().overflows, 0)
  await engine.shutdown()
})

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
