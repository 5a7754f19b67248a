// resumable(): the real transports, with resumption.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { HttpTransport } from '@tmcp/transport-http'
import { SseTransport } from '@tmcp/transport-sse'
import { Engine } from 'mcp-sessions'
import { InMemoryInfoSessionManager, InMemoryStreamSessionManager, resumable } from 'mcp-sessions/tmcp'
import { McpServer } from 'tmcp'
import { frameOf, SseReader } from './support.mjs'

const adapter = { toJsonSchema: async () => ({ type: 'object' }) }
const INITIALIZE = {
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'test', version: '1' } },
}
const PING = { jsonrpc: '2.0', id: 2, method: 'ping' }
const UNKNOWN = 'mcp-sessions-test'

/** A node: an engine, its managers, a server, and the transport that is wrapped. */
async function node(Transport, { url = 'memory://', options, transport: own, engineOptions } = {}) {
  const engine = url === 'memory://' ? Engine.memory(engineOptions) : await Engine.connect(url, engineOptions)
  const sessionManager = {
    streams: new InMemoryStreamSessionManager({ engine }),
    info: new InMemoryInfoSessionManager({ engine }),
  }
  const server = new McpServer({ name: 'test', version: '1.0.0' }, { adapter, capabilities: { logging: {} } })
  const bare = new Transport(server, { path: '/mcp', sessionManager, ...own })
  const transport = resumable(bare, { sessionManager, ...options })
  const ask = (method, id, { headers, body, path = '/mcp', query = '' } = {}) =>
    transport.respond(
      new Request(`http://localhost${path}${query}`, {
        method,
        headers: {
          accept: 'application/json, text/event-stream',
          ...(id && { 'mcp-session-id': id }),
          ...(body && { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body && { body: JSON.stringify(body) }),
      }),
    )
  const open = async (id, lastEventId, more = {}) => {
    const response = await ask('GET', id, {
      headers: { ...(lastEventId && { 'last-event-id': lastEventId }), ...more },
    })
    assert.equal(response.status, 200, await (response.status === 200 ? '' : response.clone().text()))
    return { response, sse: new SseReader(response.body) }
  }
  const send = (n, to = ['s1']) => sessionManager.streams.send(to, frameOf({ n }))
  return { engine, ...sessionManager, server, bare, transport, ask, open, send }
}

/** Reads what a stream begins with: `retry`, where it starts, and the transport's own first frame. */
async function greeted(sse) {
  assert.equal((await sse.frame()).retry, '1000')
  const start = await sse.frame()
  assert.deepEqual([start.event, start.data], ['cursor', '{}'])
  await sse.frame()
  return start.id
}

/** The answer to a refused request. */
async function refusedWith(response, status) {
  assert.equal(response.status, status)
  assert.equal(response.headers.get('content-type'), 'application/json')
  const { jsonrpc, id, error } = await response.json()
  assert.deepEqual([jsonrpc, id], ['2.0', null])
  assert.equal(typeof error.code, 'number')
  assert.notEqual(error.message, '')
  return error
}

for (const [name, Transport] of Object.entries({ HttpTransport, SseTransport })) {
  describe(name, () => {
    test('a GET says when to come back, before its first event', async () => {
      const { open, send, engine } = await node(Transport, { options: { retryMs: 1234 } })
      const { sse } = await open('s1')
      assert.equal((await sse.frame()).retry, '1234')
      if (name === 'SseTransport') assert.equal((await sse.event()).data, '/message?session_id=s1')
      await send(1)
      assert.equal((await sse.event()).data, '{"n":1}')
      await engine.shutdown()
    })

    test('a GET with Last-Event-ID gets what it missed, once and in order, on another node', async () => {
      const url = `memory://resume-${name}`
      const here = await node(Transport, { url })
      const there = await node(Transport, { url })
      const first = await here.open('s1')
      await here.send(1)
      let frame = await first.sse.event()
      while (frame.id === undefined) frame = await first.sse.event()
      assert.equal(frame.data, '{"n":1}')
      await first.sse.cancel()
      await here.send(2)
      await there.send(3, undefined)
      const second = await there.open('s1', frame.id)
      assert.equal(second.response.headers.get('mcp-sessions-gap'), null)
      await here.send(4)
      const seen = []
      while (seen.length < 3) {
        const event = await second.sse.event()
        if (event.id !== undefined) seen.push(event.data)
      }
      assert.deepEqual(seen, ['{"n":2}', '{"n":3}', '{"n":4}'])
      await here.engine.shutdown()
      await there.engine.shutdown()
    })

    test('a client that lost its stream before the first event resumes from where it started', async () => {
      const { open, send, engine } = await node(Transport)
      const first = await open('s1')
      const start = await greeted(first.sse)
      // Delivered to a line that is dead: nobody will ever read it.
      await send(1)
      await open('s1')
      const third = await open('s1', start)
      await send(2)
      const seen = []
      while (seen.length < 2) {
        const event = await third.sse.event()
        if (event.id !== undefined) seen.push(event.data)
      }
      assert.deepEqual(seen, ['{"n":1}', '{"n":2}'])
      await engine.shutdown()
    })

    test('a newer GET replaces the older one', async () => {
      const { open, send, engine } = await node(Transport)
      const old = await open('s1')
      await greeted(old.sse)
      const fresh = await open('s1')
      await send(1)
      assert.equal(await old.sse.frame(), undefined)
      let event = await fresh.sse.event()
      while (event.id === undefined) event = await fresh.sse.event()
      assert.equal(event.data, '{"n":1}')
      await engine.shutdown()
    })

    test('what waited for a replaced reader is not read after it: the new stream has it', async () => {
      const { open, send, engine } = await node(Transport)
      const old = await open('s1')
      await send(1)
      await open('s1')
      await assert.rejects(async () => {
        while ((await old.sse.frame()) !== undefined);
      }, /replaced/)
      await assert.rejects(old.sse.cancel(), /replaced/)
      await engine.shutdown()
    })

    test('the late cancel of an old stream does not end the new one', async () => {
      const { open, send, streams, info, engine } = await node(Transport)
      info.setLogLevel('s1', 'debug')
      const old = await open('s1')
      await greeted(old.sse)
      const fresh = await open('s1')
      await old.sse.cancel('the connection is gone')
      assert.equal(await streams.has('s1'), true)
      assert.equal(await info.getLogLevel('s1'), 'debug')
      await send(1)
      let event = await fresh.sse.event()
      while (event.id === undefined) event = await fresh.sse.event()
      assert.equal(event.data, '{"n":1}')
      await engine.shutdown()
    })

    test('conflict: reject answers 409 while the old stream stands', async () => {
      const { open, ask, send, engine } = await node(Transport, { options: { conflict: 'reject' } })
      const old = await open('s1')
      assert.equal((await ask('GET', 's1')).status, 409)
      await send(1)
      let event = await old.sse.event()
      while (event.id === undefined) event = await old.sse.event()
      assert.equal(event.data, '{"n":1}')
      await old.sse.cancel()
      const fresh = await open('s1', event.id)
      assert.equal((await fresh.sse.frame()).retry, '1000')
      await engine.shutdown()
    })

    test('a disconnect keeps the session; a DELETE terminates it', async () => {
      const { open, ask, send, streams, info, engine } = await node(Transport, {
        options: { unknownSessions: 'reject' },
      })
      info.setLogLevel('s1', 'debug')
      const first = await open('s1')
      await first.sse.cancel()
      assert.equal(await streams.has('s1'), false)
      assert.equal(await streams.known('s1'), true)
      assert.equal(await info.getLogLevel('s1'), 'debug')
      const second = await open('s1')
      await send(1)
      let event = await second.sse.event()
      while (event.id === undefined) event = await second.sse.event()
      assert.equal((await ask('DELETE', 's1')).status, 200)
      for (let frame = await second.sse.frame(); frame !== undefined; frame = await second.sse.frame())
        assert.equal(frame.id, undefined)
      assert.equal(await streams.known('s1'), false)
      await assert.rejects(info.getLogLevel('s1'), { code: 'not_found' })
      for (const method of ['GET', 'DELETE']) await refusedWith(await ask(method, 's1'), 404)
      await refusedWith(await ask('GET', 's1', { headers: { 'last-event-id': event.id } }), 404)
      await engine.shutdown()
    })

    test('unknownSessions: accept lets strangers pass, as tmcp does', async () => {
      const { open, ask, engine } = await node(Transport)
      assert.equal((await ask('DELETE', UNKNOWN)).status, 200)
      const { sse } = await open(UNKNOWN)
      assert.equal((await sse.frame()).retry, '1000')
      await engine.shutdown()
    })

    test('a malformed or foreign Last-Event-ID is a 400, and disturbs nobody', async () => {
      const { open, ask, send, streams, engine } = await node(Transport)
      const { sse } = await open('s1')
      await send(1)
      let event = await sse.event()
      while (event.id === undefined) event = await sse.event()
      for (const cursor of ['nonsense', '0', event.id.slice(0, -1), `${event.id}x`]) {
        await refusedWith(await ask('GET', 's1', { headers: { 'last-event-id': cursor } }), 400)
      }
      await refusedWith(await ask('GET', 's2', { headers: { 'last-event-id': event.id } }), 400)
      assert.deepEqual([await streams.has('s1'), await streams.has('s2')], [true, false])
      await send(2)
      assert.equal((await sse.event()).data, '{"n":2}')
      await engine.shutdown()
    })

    test('an id that is none is a 400', async () => {
      const { ask, engine } = await node(Transport)
      for (const id of ['a b', 'x'.repeat(257)]) {
        for (const method of ['GET', 'DELETE']) await refusedWith(await ask(method, id), 400)
      }
      await engine.shutdown()
    })

    test('a gap is told in a header, to the hook and in the stream', async () => {
      const gaps = []
      const { open, send, engine } = await node(Transport, {
        engineOptions: { retention: { events: 2 } },
        options: { onGap: (gap) => gaps.push(gap) },
      })
      const first = await open('s1')
      await send(0)
      let event = await first.sse.event()
      while (event.id === undefined) event = await first.sse.event()
      await first.sse.cancel()
      for (let n = 1; n <= 5; n++) await send(n)
      const second = await open('s1', event.id)
      assert.equal(second.response.headers.get('mcp-sessions-gap'), 'true')
      assert.deepEqual(gaps, [{ sessionId: 's1', lastEventId: event.id }])
      assert.equal((await second.sse.frame()).retry, '1000')
      assert.match((await second.sse.frame()).comment, /^gap/)
      const seen = []
      while (seen.length < 2) {
        const frame = await second.sse.event()
        if (frame.id !== undefined) seen.push(frame.data)
      }
      assert.deepEqual(seen, ['{"n":4}', '{"n":5}'])
      await engine.shutdown()
    })

    test('refusals have the transport’s CORS headers, and its opinion of the origin', async () => {
      const transport = {
        cors: { origin: 'https://app.example', exposedHeaders: ['mcp-session-id'] },
        allowedOrigins: ['https://app.example'],
      }
      const { ask, engine } = await node(Transport, { transport, options: { unknownSessions: 'reject' } })
      const headers = { origin: 'https://app.example' }
      for (const [more, status] of [
        [{}, 404],
        [{ 'last-event-id': 'nonsense' }, 404],
      ]) {
        const response = await ask('GET', UNKNOWN, { headers: { ...headers, ...more } })
        assert.equal(response.headers.get('access-control-allow-origin'), 'https://app.example')
        assert.equal(response.headers.get('access-control-expose-headers'), 'mcp-session-id')
        await refusedWith(response, status)
      }
      assert.equal((await ask('GET', UNKNOWN, { headers: { origin: 'https://evil.example' } })).status, 403)
      const preflight = await ask('OPTIONS', undefined, { headers })
      assert.equal(preflight.status, 204)
      assert.equal(preflight.headers.get('access-control-allow-origin'), 'https://app.example')
      await engine.shutdown()
    })

    test('other paths are not the transport’s, known session or not', async () => {
      const { ask, engine } = await node(Transport, { options: { unknownSessions: 'reject' } })
      assert.equal(await ask('GET', UNKNOWN, { path: '/elsewhere' }), null)
      assert.equal(await ask('DELETE', UNKNOWN, { path: '/elsewhere' }), null)
      await engine.shutdown()
    })
  })
}

describe('HttpTransport only', () => {
  test('initialize makes a session; a POST of an unknown one is a 404, one without an id a 400', async () => {
    const { ask, info, engine } = await node(HttpTransport, { options: { unknownSessions: 'reject' } })
    await refusedWith(await ask('POST', UNKNOWN, { body: PING }), 404)
    await refusedWith(await ask('POST', undefined, { body: PING }), 400)
    await refusedWith(await ask('GET', undefined), 400)
    const response = await ask('POST', undefined, { body: INITIALIZE })
    assert.equal(response.status, 200)
    assert.match(await response.text(), /"protocolVersion":"2025-06-18"/)
    const id = response.headers.get('mcp-session-id')
    assert.deepEqual(await info.getClientInfo(id), { name: 'test', version: '1' })
    const pong = await ask('POST', id, { body: PING })
    assert.equal(pong.status, 200)
    assert.match(await pong.text(), /"result":\{\}/)
    assert.equal((await ask('DELETE', id)).status, 200)
    await refusedWith(await ask('POST', id, { body: PING }), 404)
    await engine.shutdown()
  })

  test('requests of the modern era pass untouched', async () => {
    const { transport, bare, engine } = await node(HttpTransport, { options: { unknownSessions: 'reject' } })
    const meta = {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientCapabilities': {},
      'io.modelcontextprotocol/clientInfo': { name: 'modern', version: '1' },
    }
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list', params: { _meta: meta } })
    const headers = {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': '2026-07-28',
      'mcp-method': 'tools/list',
    }
    const request = () => new Request('http://localhost/mcp', { method: 'POST', headers, body })
    const through = await transport.respond(request())
    const direct = await bare.respond(request())
    assert.equal(through.status, direct.status)
    assert.equal(await through.text(), await direct.text())
    for (const method of ['GET', 'DELETE']) {
      const modern = () =>
        new Request('http://localhost/mcp', {
          method,
          headers: { 'mcp-protocol-version': '2026-07-28', 'mcp-session-id': UNKNOWN, 'last-event-id': 'nonsense' },
        })
      const [one, other] = [await transport.respond(modern()), await bare.respond(modern())]
      assert.equal(one.status, 405)
      assert.deepEqual([one.status, await one.text()], [other.status, await other.text()])
    }
    // By its metadata alone, a request is of the modern era, too.
    const { 'mcp-protocol-version': _, ...without } = headers
    const bodyOnly = () => new Request('http://localhost/mcp', { method: 'POST', headers: without, body })
    assert.equal((await transport.respond(bodyOnly())).status, (await bare.respond(bodyOnly())).status)
    await engine.shutdown()
  })

  test('the wrapper has the methods of the transport, and they work', async () => {
    const { transport, engine } = await node(HttpTransport)
    assert.deepEqual(Object.keys(transport).sort(), ['close', 'closeSubscription', 'respond'])
    assert.equal(await transport.closeSubscription(new Response()), false)
    await transport.close()
    await engine.shutdown()
  })
})

describe('SseTransport only', () => {
  test('a session id may come in the URL, as its endpoint event says', async () => {
    const { ask, open, engine, transport } = await node(SseTransport, { options: { unknownSessions: 'reject' } })
    assert.deepEqual(Object.keys(transport).sort(), ['close', 'respond'])
    await refusedWith(
      await ask('POST', undefined, { path: '/message', query: `?session_id=${UNKNOWN}`, body: PING }),
      404,
    )
    const { sse, response } = await open()
    const id = response.headers.get('mcp-session-id')
    assert.equal((await sse.event()).data, `/message?session_id=${id}`)
    assert.equal(
      (await ask('POST', undefined, { path: '/message', query: `?session_id=${id}`, body: INITIALIZE })).status,
      202,
    )
    const answer = await sse.event()
    assert.match(answer.data, /"protocolVersion"/)
    await sse.cancel()
    const again = await ask('GET', undefined, { query: `?session_id=${id}`, headers: { 'last-event-id': answer.id } })
    assert.equal(again.status, 200)
    await engine.shutdown()
  })
})
