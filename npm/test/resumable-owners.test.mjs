// resumable() with the registry: owners from the transport's own auth info, and ends that every replica knows.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { HttpTransport } from '@tmcp/transport-http'
import { SseTransport } from '@tmcp/transport-sse'
import { Engine } from 'mcp-sessions'
import { InMemoryInfoSessionManager, InMemoryStreamSessionManager, resumable } from 'mcp-sessions/tmcp'
import { McpServer } from 'tmcp'
import { deferred, fails, frameOf, SseReader, within } from './support.mjs'

const params = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'test', version: '1' } }
const INITIALIZE = { jsonrpc: '2.0', id: 1, method: 'initialize', params }
const PING = { jsonrpc: '2.0', id: 2, method: 'ping' }

/** As tmcp's `oauth`: a bearer token names its subject; without one, the client is asked for it. */
const oauth = {
  verify(request) {
    const token = request.headers.get('authorization')?.replace('Bearer ', '')
    return token ? { token, clientId: 'client', scopes: [], extra: { sub: token.split('-')[0] } } : null
  },
  respond(request) {
    if (request.method === 'OPTIONS' || request.headers.has('authorization')) return null
    return new Response(null, { status: 401, headers: { 'www-authenticate': 'Bearer' } })
  },
}

async function node(url, options, { Transport = HttpTransport, engineOptions, tools = () => {} } = {}) {
  const engine = await Engine.connect(url, engineOptions)
  const sessionManager = {
    streams: new InMemoryStreamSessionManager({ engine, onError() {} }),
    info: new InMemoryInfoSessionManager({ engine, onError() {} }),
  }
  const adapter = { toJsonSchema: async () => ({ type: 'object' }) }
  const capabilities = { logging: {}, tools: {} }
  const server = new McpServer({ name: 'test', version: '1.0.0' }, { adapter, capabilities })
  tools(server)
  const bare = new Transport(server, { path: '/mcp', sessionManager, ...(options.oauth && { oauth: options.oauth }) })
  const transport = resumable(bare, { sessionManager, unknownSessions: 'reject', ...options })
  const ask = (method, { id, who, body, query = '', path = '/mcp' } = {}) => {
    const headers = { accept: 'application/json, text/event-stream' }
    if (id) headers['mcp-session-id'] = id
    if (who) headers.authorization = `Bearer ${who}`
    if (body) headers['content-type'] = 'application/json'
    const init = { method, headers, ...(body && { body: JSON.stringify(body) }) }
    return within(transport.respond(new Request(`http://localhost${path}${query}`, init), { user: who }), method)
  }
  const initialize = async (who) => {
    const response = await ask('POST', { who, body: INITIALIZE })
    assert.equal(response.status, 200)
    await response.text()
    return response.headers.get('mcp-session-id')
  }
  const ping = async (id, who) => {
    const response = await ask('POST', { id, who, body: PING })
    await response.text()
    return response.status
  }
  return { engine, ...sessionManager, ask, initialize, ping }
}

async function two(options, more) {
  const url = `memory://owners-${randomUUID()}`
  return [await node(url, options, more), await node(url, options, more)]
}

test('a session answers its owner on every replica, and is unknown to everybody else', async () => {
  const [a, b] = await two({ oauth })
  const id = await a.initialize('ada-1')
  for (const here of [a, b]) {
    assert.equal(await here.ping(id, 'ada-1'), 200)
    assert.equal(await here.ping(id, 'ada-renewed'), 200)
    const refused = await here.ask('POST', { id, who: 'bob-1', body: PING })
    const unknown = await here.ask('POST', { id: 'nobody-knows-this-one', who: 'bob-1', body: PING })
    assert.deepEqual([refused.status, unknown.status], [404, 404])
    assert.deepEqual(await refused.json(), await unknown.json())
    assert.equal((await here.ask('GET', { id, who: 'bob-1' })).status, 404)
    assert.equal((await here.ask('DELETE', { id, who: 'bob-1' })).status, 404)
    // Who says nothing is asked who it is.
    assert.equal((await here.ask('POST', { id, body: PING })).status, 401)
    // Nor can anybody begin it again.
    assert.equal((await here.ask('POST', { id, who: 'bob-1', body: INITIALIZE })).status, 404)
  }
  const stream = await b.ask('GET', { id, who: 'ada-1' })
  assert.equal(stream.status, 200)
  const sse = new SseReader(stream.body)
  await a.streams.send([id], frameOf({ n: 1 }))
  let event = await sse.event()
  while (event.data !== '{"n":1}') event = await sse.event()
  await sse.cancel()
  await Promise.all([a.engine.shutdown(), b.engine.shutdown()])
})

test('owners are named as the application says', async () => {
  const [a, b] = await two({ owner: async ({ ctx, auth, request }) => (auth ?? request.headers.get('x') ?? ctx).user })
  const id = await a.initialize('ada')
  assert.deepEqual([await b.ping(id, 'ada'), await b.ping(id, 'bob'), await b.ping(id)], [200, 404, 404])
  const nobodys = await a.initialize()
  assert.deepEqual([await b.ping(nobodys), await b.ping(nobodys, 'ada')], [200, 404])
  await Promise.all([a.engine.shutdown(), b.engine.shutdown()])
})

test('a terminated session is unknown on every replica, whatever is still said about it', async () => {
  for (const unknownSessions of ['reject', 'accept']) {
    const [a, b] = await two({ registry: true, unknownSessions })
    const id = await a.initialize()
    const stream = new SseReader((await b.ask('GET', { id })).body)
    assert.equal((await a.ask('DELETE', { id })).status, 200)
    while ((await stream.frame()) !== undefined);
    // What comes late brings nothing back to life.
    await b.info.setLogLevel(id, 'debug')
    for (const here of [a, b]) {
      assert.equal(await here.ping(id), 404)
      assert.equal((await here.ask('GET', { id })).status, 404)
      assert.equal((await here.ask('DELETE', { id })).status, 404)
    }
    assert.equal(await b.ping('nobody-knows-this-one'), unknownSessions === 'accept' ? 200 : 404)
    await Promise.all([a.engine.shutdown(), b.engine.shutdown()])
  }
})

test('closed by its owner, on whatever replica, a session ends', async () => {
  const [a, b] = await two({ oauth, owner: ({ auth }) => auth?.extra.sub })
  const ids = [await a.initialize('ada-1'), await b.initialize('ada-2'), await a.initialize('bob-1')]
  const stream = new SseReader((await a.ask('GET', { id: ids[0], who: 'ada-1' })).body)
  assert.equal(await b.engine.registry.closeByOwner('ada', 'revoked'), 2)
  while ((await stream.frame()) !== undefined);
  assert.deepEqual(
    [await a.ping(ids[0], 'ada-1'), await a.ping(ids[1], 'ada-1'), await b.ping(ids[2], 'bob-1')],
    [404, 404, 200],
  )
  await Promise.all([a.engine.shutdown(), b.engine.shutdown()])
})

test('an idle session is swept; one with a request or an open stream is not', async () => {
  const url = `memory://owners-${randomUUID()}?clock=manual`
  const [called, gate] = [deferred(), deferred()]
  const tools = (server) =>
    server.tool({ name: 'wait', description: 'waits' }, async () => {
      called.resolve()
      await gate.promise
      return { content: [] }
    })
  const engineOptions = { registry: { staleMs: 60_000, sweepMs: 1_000 } }
  const a = await node(url, { registry: true }, { engineOptions, tools })
  const [idle, busy, listening] = [await a.initialize(), await a.initialize(), await a.initialize()]
  const call = { jsonrpc: '2.0', id: 3, method: 'tools/call', params: { name: 'wait', arguments: {} } }
  const answer = await a.ask('POST', { id: busy, body: call })
  const stream = await a.ask('GET', { id: listening })
  await within(called.promise, 'the call')
  for (let step = 0; step < 20; step += 1) await a.engine.advanceClock(4_000)
  assert.equal((await a.engine.registry.stats()).total, 2)
  assert.deepEqual([await a.ping(idle), await a.ping(listening)], [404, 200])
  gate.resolve()
  assert.match(await answer.text(), /"content"/)
  await stream.body.cancel()
  for (let step = 0; step < 20; step += 1) await a.engine.advanceClock(4_000)
  assert.equal((await a.engine.registry.stats()).total, 0)
  await a.engine.shutdown()
})

test('a session of the SSE transport has an owner, too', async () => {
  const [a, b] = await two({ oauth }, { Transport: SseTransport })
  const response = await a.ask('GET', { who: 'ada-1' })
  const sse = new SseReader(response.body)
  let frame = await sse.frame()
  while (frame?.event !== 'endpoint') frame = await sse.frame()
  const { pathname, searchParams } = new URL(frame.data, 'http://localhost')
  const query = `?session_id=${searchParams.get('session_id')}`
  const post = (here, who) => here.ask('POST', { who, body: PING, path: pathname, query })
  assert.equal((await post(b, 'bob-1')).status, 404)
  assert.ok((await post(b, 'ada-1')).ok)
  assert.equal((await a.engine.registry.stats()).total, 1)
  await sse.cancel()
  await Promise.all([a.engine.shutdown(), b.engine.shutdown()])
})

test('a session that can not be registered is not begun', async () => {
  const [a] = await two({ registry: true }, { engineOptions: { operationTimeoutMs: 200 } })
  a.engine.setOutage(true)
  assert.equal((await a.ask('POST', { body: INITIALIZE })).status, 503)
  a.engine.setOutage(false)
  await a.engine.shutdown()
})

test('options that make no sense are refused', async () => {
  const sessionManager = { streams: new InMemoryStreamSessionManager(), info: new InMemoryInfoSessionManager() }
  const transport = { respond: async () => null, close() {} }
  for (const options of [{ registry: 'yes' }, { oauth: {} }, { owner: 'ada' }, { registry: false, oauth }])
    await fails('config', async () => resumable(transport, { sessionManager, ...options }), JSON.stringify(options))
})
