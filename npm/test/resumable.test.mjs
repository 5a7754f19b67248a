import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ZodJsonSchemaAdapter } from '@tmcp/adapter-zod'
import { HttpTransport } from '@tmcp/transport-http'
import { SseTransport } from '@tmcp/transport-sse'
import { Engine } from 'mcp-sessions'
import {
  InMemoryInfoSessionManager,
  InMemoryStreamSessionManager,
  InMemorySubscriptionManager,
  resumable,
} from 'mcp-sessions/tmcp'
import { McpServer } from 'tmcp'
import { Frames, hub, turn } from './helpers.mjs'

const ORIGIN = 'http://localhost'

/** A server behind a resumable HttpTransport. */
function serve({ engine = Engine.memory(), transport = {}, ...options } = {}) {
  const server = new McpServer(
    { name: 'test', version: '1.0.0' },
    {
      adapter: new ZodJsonSchemaAdapter(),
      capabilities: { tools: { listChanged: true }, resources: { subscribe: true, listChanged: true }, logging: {} },
    },
  )
  server.tool({ name: 'whoami', description: 'Tells the client its name' }, () => ({
    content: [{ type: 'text', text: server.ctx.sessionInfo?.clientInfo?.name ?? 'nobody' }],
  }))
  server.resource({ uri: 'file:///a', name: 'a', description: 'a' }, () => ({ contents: [] }))
  const sessionManager = {
    streams: new InMemoryStreamSessionManager(engine),
    info: new InMemoryInfoSessionManager(engine),
  }
  const subscriptionManager = new InMemorySubscriptionManager(engine)
  const http = new HttpTransport(server, {
    path: '/mcp',
    allowedOrigins: true,
    sessionManager,
    subscriptionManager,
    ...transport,
  })
  return { engine, server, sessionManager, http: resumable(http, { sessionManager, ...options }) }
}

function request(method, { id, headers = {}, body, path = '/mcp' } = {}) {
  return new Request(`${ORIGIN}${path}`, {
    method,
    headers: {
      ...(id && { 'mcp-session-id': id }),
      ...(body && { 'content-type': 'application/json', accept: 'application/json, text/event-stream' }),
      ...headers,
    },
    ...(body && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
}

const rpc = (method, params = {}, id = 1) => ({ jsonrpc: '2.0', id, method, params })
const initialize = rpc('initialize', {
  protocolVersion: '2025-06-18',
  capabilities: {},
  clientInfo: { name: 'tester', version: '1.0.0' },
})

async function answer(response) {
  const frames = new Frames(response.body.getReader())
  return JSON.parse((await frames.next()).data)
}

/** Begins a session; returns its id. */
async function begin({ http }) {
  const response = await http.respond(request('POST', { body: initialize }))
  assert.equal(response.status, 200)
  assert.equal((await answer(response)).result.protocolVersion, '2025-06-18')
  const id = response.headers.get('mcp-session-id')
  await http.respond(request('POST', { id, body: { jsonrpc: '2.0', method: 'notifications/initialized' } }))
  return id
}

/** Opens a session's stream. */
async function listen({ http }, id, lastEventId, headers = {}) {
  const last = lastEventId === undefined ? {} : { 'last-event-id': lastEventId }
  const response = await http.respond(
    request('GET', { id, headers: { accept: 'text/event-stream', ...last, ...headers } }),
  )
  assert.equal(response.status, 200)
  const reader = response.body.getReader()
  return { response, reader, frames: new Frames(reader) }
}

const changed = (server) => server.changed('tools')
const methodOf = (one) => JSON.parse(one.data).method

test('a client that was cut off gets what it missed, on another node, exactly once', async () => {
  const url = hub('resume')
  const a = serve({ engine: await Engine.connect(url) })
  const b = serve({ engine: await Engine.connect(url) })
  const id = await begin(a)
  const first = await listen(a, id)
  assert.equal((await first.frames.next({ any: true })).retry, '1000')
  for (let n = 0; n < 3; n++) await b.sessionManager.streams.send([id], `event: message\ndata: ${n}\n\n`)
  const got = await first.frames.take(3)
  assert.deepEqual(
    got.map(({ data }) => data),
    ['0', '1', '2'],
  )
  assert.ok(got.every(({ id }) => /^[\w-]{1,64}$/.test(id)))
  await first.reader.cancel()
  assert.equal(await b.sessionManager.streams.has(id), false)
  for (let n = 3; n < 6; n++)
    await a.sessionManager.streams.send(n === 4 ? undefined : [id], `event: message\ndata: ${n}\n\n`)
  const second = await listen(b, id, got[1].id)
  assert.equal(second.response.headers.get('mcp-sessions-gap'), null)
  assert.deepEqual(
    (await second.frames.take(4)).map(({ data }) => data),
    ['2', '3', '4', '5'],
  )
  const who = await b.http.respond(request('POST', { id, body: rpc('tools/call', { name: 'whoami', arguments: {} }) }))
  assert.equal((await answer(who)).result.content[0].text, 'tester', 'the other node knows the client')
  await a.engine.shutdown()
  await b.engine.shutdown()
})

test('a client without a cursor gets what was sent while it was away', async () => {
  const it = serve()
  const id = await begin(it)
  changed(it.server)
  await turn()
  const first = await listen(it, id)
  assert.equal(methodOf(await first.frames.next()), 'notifications/tools/list_changed')
  await first.reader.cancel()
  await it.sessionManager.streams.send([id], 'event: message\ndata: "away"\n\n')
  const second = await listen(it, id)
  assert.equal((await second.frames.next()).data, '"away"')
  await it.engine.shutdown()
})

test('a client that is back before its dead stream was noticed takes it over', async () => {
  const it = serve({ retryMs: 250 })
  const id = await begin(it)
  const dead = await listen(it, id)
  assert.equal((await dead.frames.next({ any: true })).retry, '250')
  const back = await listen(it, id)
  await it.sessionManager.streams.send([id], 'event: message\ndata: 1\n\n')
  assert.equal((await back.frames.next()).data, '1')
  await dead.reader.cancel().catch(() => {})
  await turn()
  assert.equal(await it.sessionManager.streams.has(id), true, 'the old one does not end the new one')
  assert.equal(await it.sessionManager.streams.known(id), true)
  await it.engine.shutdown()
})

test('with conflict: reject it is answered 409 until the old stream is gone', async () => {
  const it = serve({ conflict: 'reject' })
  const id = await begin(it)
  const first = await listen(it, id)
  const refused = await it.http.respond(request('GET', { id }))
  assert.equal(refused.status, 409)
  await first.reader.cancel()
  const second = await listen(it, id)
  await second.reader.cancel()
  await it.engine.shutdown()
})

test('the cancel of an old stream does not end a new one on another node', async () => {
  const url = hub('cancel')
  const a = serve({ engine: await Engine.connect(url) })
  const b = serve({ engine: await Engine.connect(url) })
  const id = await begin(a)
  const old = await listen(a, id)
  const newer = await listen(b, id)
  await old.reader.cancel().catch(() => {})
  await turn()
  assert.equal(await a.sessionManager.streams.has(id), true)
  await a.sessionManager.streams.send([id], 'event: message\ndata: 1\n\n')
  assert.equal((await newer.frames.next()).data, '1')
  await a.engine.shutdown()
  await b.engine.shutdown()
})

test('a malformed, foreign or edited Last-Event-ID is answered 400', async () => {
  const it = serve({ transport: { cors: true } })
  const [id, other] = [await begin(it), await begin(it)]
  const { frames, reader } = await listen(it, other)
  await it.sessionManager.streams.send([other], 'event: message\ndata: 1\n\n')
  const cursor = (await frames.next()).id
  for (const lastEventId of ['x', '0', cursor, `${cursor}A`, cursor.slice(1), 'A'.repeat(500)]) {
    const response = await it.http.respond(request('GET', { id, headers: { 'last-event-id': lastEventId } }))
    assert.equal(response.status, 400, lastEventId)
    assert.equal((await response.json()).error.code, -32600)
    assert.equal(response.headers.get('access-control-allow-origin'), '*')
  }
  assert.equal(await it.sessionManager.streams.has(id), false)
  const good = await listen(it, other, cursor)
  await good.reader.cancel()
  await reader.cancel().catch(() => {})
  const bad = await it.http.respond(request('GET', { headers: { 'mcp-session-id': 'a b' } }))
  assert.equal(bad.status, 400)
  await it.engine.shutdown()
})

test('a gap is told: a hook, a header, a comment', async () => {
  const gaps = []
  const it = serve({ engine: Engine.memory({ retention: { events: 2 } }), onGap: (gap) => gaps.push(gap) })
  const id = await begin(it)
  const first = await listen(it, id)
  await it.sessionManager.streams.send([id], 'event: message\ndata: 0\n\n')
  const lastEventId = (await first.frames.next()).id
  await first.reader.cancel()
  for (let n = 1; n < 10; n++) await it.sessionManager.streams.send([id], `event: message\ndata: ${n}\n\n`)
  const second = await listen(it, id, lastEventId)
  assert.equal(second.response.headers.get('mcp-sessions-gap'), 'true')
  assert.ok((await second.frames.next({ any: true })).retry)
  assert.match((await second.frames.next({ any: true })).comment, /gap/)
  assert.deepEqual(
    (await second.frames.take(2)).map(({ data }) => data),
    ['8', '9'],
  )
  assert.deepEqual(gaps, [{ sessionId: id, lastEventId }])
  await it.engine.shutdown()
})

test('unknown sessions are accepted, as tmcp does, unless they are to be rejected', async () => {
  const accepting = serve()
  const pinged = await accepting.http.respond(request('POST', { id: 'made-up', body: rpc('ping') }))
  assert.deepEqual((await answer(pinged)).result, {})
  await (await listen(accepting, 'made-up')).reader.cancel()
  assert.equal((await accepting.http.respond(request('DELETE', { id: 'made-up-too' }))).status, 200)

  const rejecting = serve({ unknownSessions: 'reject' })
  for (const [method, body] of [
    ['POST', rpc('ping')],
    ['POST', { jsonrpc: '2.0', method: 'notifications/initialized' }],
    ['GET'],
    ['DELETE'],
  ]) {
    const response = await rejecting.http.respond(request(method, { id: 'made-up', body }))
    assert.equal(response.status, 404, method)
    assert.deepEqual(await response.json(), {
      jsonrpc: '2.0',
      id: null,
      error: { code: -32001, message: 'Session not found' },
    })
    assert.equal((await rejecting.http.respond(request(method, { body }))).status, 400, `${method} without an id`)
  }
  assert.equal(await rejecting.http.respond(request('GET', { id: 'made-up', path: '/elsewhere' })), null)
  const id = await begin(rejecting)
  assert.deepEqual((await answer(await rejecting.http.respond(request('POST', { id, body: rpc('ping') })))).result, {})
  const again = await rejecting.http.respond(request('POST', { id: 'chosen', body: initialize }))
  assert.equal(again.status, 200, 'a client may begin with an id of its own')
  assert.equal((await rejecting.http.respond(request('POST', { id: 'made-up', body: '{' }))).status, 400)
  assert.equal((await rejecting.http.respond(request('OPTIONS', { id: 'made-up' }))).status, 204)
  await accepting.engine.shutdown()
  await rejecting.engine.shutdown()
})

test('a DELETE ends the session everywhere, a disconnect does not', async () => {
  const url = hub('delete')
  const a = serve({ engine: await Engine.connect(url), unknownSessions: 'reject' })
  const b = serve({ engine: await Engine.connect(url), unknownSessions: 'reject' })
  const id = await begin(a)
  const stream = await listen(a, id)
  await stream.reader.cancel()
  assert.equal(await b.sessionManager.streams.known(id), true)
  const held = await listen(a, id)
  assert.equal((await b.http.respond(request('DELETE', { id }))).status, 200)
  while (!(await held.reader.read()).done);
  for (const { http, sessionManager } of [a, b]) {
    assert.equal(await sessionManager.streams.known(id), false)
    for (const [method, body] of [['POST', rpc('ping')], ['GET'], ['DELETE']]) {
      assert.equal((await http.respond(request(method, { id, body }))).status, 404, method)
    }
  }
  await a.engine.shutdown()
  await b.engine.shutdown()
})

test('a session is known after initialize on a private hub, too', async () => {
  const server = new McpServer(
    { name: 'test', version: '1' },
    { adapter: new ZodJsonSchemaAdapter(), capabilities: { tools: { listChanged: true } } },
  )
  const sessionManager = { streams: new InMemoryStreamSessionManager(), info: new InMemoryInfoSessionManager() }
  const http = resumable(new HttpTransport(server, { path: '/mcp', sessionManager }), {
    sessionManager,
    unknownSessions: 'reject',
  })
  const id = await begin({ http })
  assert.equal(await sessionManager.streams.known(id), true)
  const { frames } = await listen({ http }, id)
  server.changed('tools')
  assert.equal(methodOf(await frames.next()), 'notifications/tools/list_changed')
  await sessionManager.streams.close()
  await sessionManager.info.close()
})

test('requests of the modern era pass untouched', async () => {
  const it = serve({ unknownSessions: 'reject' })
  const meta = {
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientInfo': { name: 'modern', version: '1' },
    'io.modelcontextprotocol/clientCapabilities': {},
  }
  const headers = { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'subscriptions/listen' }
  const body = rpc('subscriptions/listen', { notifications: { toolsListChanged: true }, _meta: meta }, 7)
  const response = await it.http.respond(request('POST', { headers, body }))
  assert.equal(response.status, 200)
  const frames = new Frames(response.body.getReader())
  assert.equal(methodOf(await frames.next()), 'notifications/subscriptions/acknowledged')
  changed(it.server)
  const one = await frames.next()
  assert.equal(methodOf(one), 'notifications/tools/list_changed')
  assert.equal(one.id, undefined, 'there is no replay')
  assert.equal(await it.http.closeSubscription(response), true)
  assert.equal(JSON.parse((await frames.next()).data).id, 7)
  assert.equal(
    (await it.http.respond(request('GET', { headers: { 'mcp-protocol-version': '2026-07-28' } }))).status,
    405,
  )
  await it.http.close()
  await it.engine.shutdown()
})

test('log levels and resource subscriptions reach the node that has the stream', async () => {
  const url = hub('events')
  const a = serve({ engine: await Engine.connect(url) })
  const b = serve({ engine: await Engine.connect(url) })
  const [subscribed, other] = [await begin(a), await begin(a)]
  const streams = await Promise.all([subscribed, other].map((id) => listen(a, id)))
  const done = await b.http.respond(
    request('POST', { id: subscribed, body: rpc('resources/subscribe', { uri: 'file:///a' }) }),
  )
  assert.deepEqual((await answer(done)).result, {})
  b.server.changed('resource', 'file:///a')
  await turn()
  changed(b.server)
  const first = await streams[0].frames.next()
  assert.equal(methodOf(first), 'notifications/resources/updated')
  assert.equal(methodOf(await streams[0].frames.next()), 'notifications/tools/list_changed')
  assert.equal(methodOf(await streams[1].frames.next()), 'notifications/tools/list_changed')
  await b.http
    .respond(request('POST', { id: subscribed, body: rpc('logging/setLevel', { level: 'error' }) }))
    .then(answer)
  assert.equal(await a.sessionManager.info.getLogLevel(subscribed), 'error')
  await a.engine.shutdown()
  await b.engine.shutdown()
})

test('an SseTransport is resumable, and a disconnect does not forget the client', async () => {
  const engine = Engine.memory()
  const server = new McpServer(
    { name: 'test', version: '1' },
    { adapter: new ZodJsonSchemaAdapter(), capabilities: { tools: { listChanged: true } } },
  )
  const sessionManager = {
    streams: new InMemoryStreamSessionManager(engine),
    info: new InMemoryInfoSessionManager(engine),
  }
  const sse = resumable(new SseTransport(server, { path: '/sse', endpoint: '/message', sessionManager }), {
    sessionManager,
    unknownSessions: 'reject',
  })
  const opened = await sse.respond(request('GET', { path: '/sse' }))
  const id = opened.headers.get('mcp-session-id')
  const reader = opened.body.getReader()
  const frames = new Frames(reader)
  assert.equal((await frames.next({ any: true })).retry, '1000')
  const endpoint = (await frames.next()).data
  assert.equal(endpoint, `/message?session_id=${id}`)
  const posted = await sse.respond(request('POST', { path: endpoint, body: initialize }))
  assert.equal(posted.status, 202)
  const reply = await frames.next()
  assert.equal(JSON.parse(reply.data).result.protocolVersion, '2025-06-18')
  await reader.cancel()
  await turn()
  assert.equal((await sessionManager.info.getClientInfo(id)).name, 'tester')
  await sessionManager.streams.send([id], 'event: message\ndata: "missed"\n\n')
  const back = await sse.respond(
    request('GET', { path: `/sse?session_id=${id}`, headers: { 'last-event-id': reply.id } }),
  )
  const more = new Frames(back.body.getReader())
  const data = [(await more.next()).data, (await more.next()).data].sort()
  assert.deepEqual(data, ['"missed"', `/message?session_id=${id}`])
  assert.equal(
    (await sse.respond(request('POST', { path: '/message?session_id=made-up', body: rpc('ping') }))).status,
    404,
  )
  assert.equal((await sse.respond(request('DELETE', { path: `/sse?session_id=${id}` }))).status, 200)
  await assert.rejects(sessionManager.info.getClientInfo(id))
  assert.equal(await sessionManager.streams.known(id), false)
  await sse.close()
  await engine.shutdown()
})
