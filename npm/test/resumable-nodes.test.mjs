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
