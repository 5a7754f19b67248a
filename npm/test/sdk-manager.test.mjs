// `SessionManager`: the methods of the manager that many servers carry, on every replica.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { Engine } from 'mcp-sessions'
import { getSessionManager, SessionManager } from 'mcp-sessions/sdk'
import { hubUrl, makeServer, Peer, SDKS, shout, soon } from './sdk-support.mjs'
import { childEnds, deferred, fails, within } from './support.mjs'

for (const kind of SDKS) {
  const each = (name, run) => test(`${kind.sdk}: ${name}`, run)
  const manager = (options = {}) => new SessionManager({ Transport: kind.Node, url: hubUrl(), ...options })
  /** Two replicas of one hub. */
  const two = (options = {}) => {
    const url = hubUrl()
    return [1, 2].map((n) => manager({ url, maxSubscriptions: n, ...options }))
  }
  const open = async (sessions, token) => {
    const server = makeServer(kind)
    return { server, ...(await sessions.createSession(server, token)) }
  }

  each('a session is made, found, counted and closed', async () => {
    const sessions = manager()
    const { server, sessionId, transport } = await open(sessions, 'token-of-ada')
    assert.ok(transport instanceof kind.Node)
    assert.ok(sessions.hasSession(sessionId))
    const session = sessions.getSession(sessionId)
    assert.equal(session.server, server)
    assert.equal(session.transport, transport)
    assert.deepEqual([session.id, session.activeRequests, session.isClosing], [sessionId, 0, false])
    assert.ok(session.createdAt instanceof Date && session.lastAccessedAt >= session.createdAt)
    assert.equal(sessions.getSessionByToken('token-of-ada'), session)
    assert.equal(sessions.getSessionByToken('token-of-bob'), undefined)
    assert.ok(sessions.isOwner(sessionId, 'token-of-ada'))
    assert.equal(sessions.isOwner(sessionId, 'token-of-bob'), false)
    assert.equal(
      JSON.stringify(session, (key, value) => (key === 'server' || key === 'transport' ? undefined : value)).includes(
        'token',
      ),
      false,
    )
    const active = { totalSessions: 1, activeSessions: 1, staleSessions: 0, closingSessions: 0, localSessions: 1 }
    assert.deepEqual(await sessions.getStats(), active)
    const closed = deferred()
    server.server.onclose = closed.resolve
    assert.equal(await sessions.closeSession(sessionId), true)
    await within(closed.promise, 'the end of the server')
    assert.equal(await sessions.closeSession(sessionId), false)
    assert.equal(sessions.getSession(sessionId), undefined)
    assert.equal(sessions.hasSession(sessionId), false)
    assert.equal((await sessions.getStats()).totalSessions, 0)
    await sessions.shutdown()
  })

  each('sessions without an owner are nobody`s', async () => {
    const sessions = manager()
    const { sessionId } = await open(sessions)
    assert.ok(sessions.isOwner(sessionId, undefined))
    assert.equal(sessions.isOwner(sessionId, 'token-of-ada'), false)
    assert.equal(await sessions.closeSessionsByToken('token-of-ada'), 0)
    await sessions.shutdown()
  })

  each('statistics and closing speak for all replicas', async () => {
    const [a, b] = two()
    const here = await open(a, 'token-of-ada')
    const there = await open(b, 'token-of-ada')
    const other = await open(b, 'token-of-bob')
    assert.equal((await a.getStats()).totalSessions, 3)
    assert.deepEqual([(await a.getStats()).localSessions, (await b.getStats()).localSessions], [1, 2])
    const ended = deferred()
    there.server.server.onclose = ended.resolve
    assert.equal(await a.closeSessionsByToken('token-of-ada'), 2)
    assert.equal(a.hasSession(here.sessionId), false)
    await within(ended.promise, 'the end on the other replica')
    await soon(() => !b.hasSession(there.sessionId), 'the end')
    assert.ok(b.hasSession(other.sessionId))
    assert.equal(await a.closeSession(other.sessionId), true)
    await soon(() => !b.hasSession(other.sessionId), 'the end')
    assert.equal((await b.getStats()).totalSessions, 0)
    await Promise.all([a.shutdown(), b.shutdown()])
  })

  each('a transport that is closed closes its session everywhere', async () => {
    const [a, b] = two()
    const { sessionId, transport, server } = await open(a, 'token-of-ada')
    const ended = deferred()
    server.server.onclose = ended.resolve
    await transport.close()
    await within(ended.promise, 'the end of the server')
    assert.equal(a.hasSession(sessionId), false)
    await soon(async () => (await b.getStats()).totalSessions === 0, 'the end for all')
    await Promise.all([a.shutdown(), b.shutdown()])
  })

  each('a session whose server can not be connected is not there', async () => {
    const sessions = manager()
    const server = { connect: () => Promise.reject(new Error('not today')), close: async () => {} }
    await assert.rejects(sessions.createSession(server, 'token-of-ada'), /not today/)
    assert.deepEqual([(await sessions.getStats()).totalSessions, (await sessions.getStats()).localSessions], [0, 0])
    await sessions.shutdown()
  })

  each('what goes wrong at the end of one keeps nothing from ending', async () => {
    const problems = []
    const sessions = manager({ onError: (error) => problems.push(error.message) })
    const { sessionId, server } = await open(sessions)
    const { close } = server
    server.close = () => {
      server.close = close
      throw new Error('it sticks')
    }
    assert.equal(await sessions.closeSession(sessionId), true)
    assert.deepEqual(problems, ['it sticks'])
    assert.equal(sessions.hasSession(sessionId), false)
    await server.close()
    await sessions.shutdown()
  })

  each('requests keep a session from being swept, and are counted for all', async () => {
    const engine = await Engine.connect(`${hubUrl()}?clock=manual`, { registry: { staleMs: 60_000, sweepMs: 1_000 } })
    const sessions = new SessionManager({ Transport: kind.Node, engine })
    const [busy, idle] = [await open(sessions), await open(sessions)]
    sessions.incrementActiveRequests(busy.sessionId)
    sessions.incrementActiveRequests(busy.sessionId)
    sessions.decrementActiveRequests(busy.sessionId)
    assert.equal(sessions.getSession(busy.sessionId).activeRequests, 1)
    await soon(async () => (await engine.registry.peek(busy.sessionId)).activeRequests === 1, 'one request')
    for (let step = 0; step < 20; step += 1) await engine.advanceClock(4_000)
    await soon(() => !sessions.hasSession(idle.sessionId), 'the sweep')
    assert.ok(sessions.hasSession(busy.sessionId))
    sessions.decrementActiveRequests(busy.sessionId)
    sessions.decrementActiveRequests(busy.sessionId)
    assert.equal(sessions.getSession(busy.sessionId).activeRequests, 0)
    await soon(async () => (await engine.registry.peek(busy.sessionId)).activeRequests === 0, 'no request')
    for (let step = 0; step < 20; step += 1) await engine.advanceClock(4_000)
    await soon(() => !sessions.hasSession(busy.sessionId), 'the sweep')
    sessions.incrementActiveRequests('nobody')
    sessions.decrementActiveRequests('nobody')
    await sessions.shutdown()
    await engine.shutdown()
  })

  each('looking a session up counts as access, and costs no write each time', async () => {
    const engine = await Engine.connect(`${hubUrl()}?clock=manual`, { registry: { staleMs: 2_000, sweepMs: 100_000 } })
    let reads = 0
    const { get } = engine.registry
    engine.registry.get = (...given) => {
      reads += 1
      return get.apply(engine.registry, given)
    }
    const sessions = new SessionManager({ Transport: kind.Node, engine })
    const { sessionId } = await open(sessions)
    for (let n = 0; n < 1_000; n += 1) sessions.getSession(sessionId)
    assert.ok(reads <= 100, `${reads} reads`)
    await engine.advanceClock(800)
    // A 20th of the time later the next one counts.
    await soon(() => sessions.getSession(sessionId) && reads > 0, 'a read')
    await soon(async () => (await engine.registry.peek(sessionId)).idleMs === 0, 'the touch')
    await sessions.shutdown()
    await engine.shutdown()
  })

  each('during an outage a session is not closed, and is after it', async () => {
    const problems = []
    const engine = await Engine.connect(hubUrl(), { operationTimeoutMs: 200 })
    const sessions = new SessionManager({ Transport: kind.Node, engine, onError: (error) => problems.push(error.code) })
    const [one, other] = [await open(sessions, 'token-of-ada'), await open(sessions, 'token-of-ada')]
    engine.setOutage(true)
    await assert.rejects(sessions.closeSession(one.sessionId), { retryable: true })
    assert.ok(sessions.hasSession(one.sessionId))
    await assert.rejects(open(sessions), { retryable: true })
    // Its transport is gone, whatever the backend knows.
    await other.transport.close()
    await soon(() => problems.length > 0, 'the report')
    assert.equal(sessions.hasSession(other.sessionId), false)
    engine.setOutage(false)
    await soon(
      async () => (await sessions.getStats().catch(() => ({}))).totalSessions === 1,
      'the other one to be closed',
    )
    assert.equal(await sessions.closeSession(one.sessionId), true)
    await sessions.shutdown()
    await engine.shutdown()
  })

  each('shutting down waits for requests, then closes what is here', async () => {
    const [a, b] = two()
    const { sessionId } = await open(a, 'token-of-ada')
    const there = await open(b, 'token-of-ada')
    a.incrementActiveRequests(sessionId)
    let over = false
    const closing = a.shutdown().then(() => {
      over = true
    })
    await fails('closed', () => open(a))
    assert.equal(over, false)
    a.decrementActiveRequests(sessionId)
    await within(closing, 'the shutdown')
    assert.equal(a.hasSession(sessionId), false)
    assert.ok(b.hasSession(there.sessionId))
    assert.equal((await b.getStats()).totalSessions, 1)
    await a.shutdown()
    await b.shutdown()
  })

  each('shutting down does not wait for ever', async () => {
    const sessions = manager()
    const { sessionId } = await open(sessions)
    sessions.incrementActiveRequests(sessionId)
    await within(sessions.shutdown(20), 'the shutdown')
    assert.equal(sessions.hasSession(sessionId), false)
  })

  each('it serves over node:http, and resumes', async () => {
    const sessions = manager()
    const http = createServer(async (req, res) => {
      const id = req.headers['mcp-session-id']
      const session = id === undefined ? undefined : sessions.getSession(id)
      if (session !== undefined) return session.transport.handleRequest(req, res)
      if (id !== undefined) return res.writeHead(404).end()
      const { transport } = await sessions.createSession(makeServer(kind))
      return transport.handleRequest(req, res)
    })
    await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve))
    const url = `http://127.0.0.1:${http.address().port}/mcp`
    const peer = new Peer((request) =>
      fetch(url, { method: request.method, headers: request.headers, body: request.body, duplex: 'half' }),
    )
    await peer.initialize()
    assert.equal(await peer.call('whoami'), 'test')
    const { server } = sessions.getSession(peer.id)
    const stream = await peer.stream()
    await shout(server, 1)
    assert.equal(await stream.heard(), 1)
    await stream.sse.cancel()
    await shout(server, 2)
    const resumed = await peer.stream(stream.last)
    assert.equal(await resumed.heard(), 2)
    assert.equal((await peer.delete()).status, 200)
    await soon(async () => (await sessions.getStats()).totalSessions === 0, 'the end')
    assert.equal(await peer.call('whoami'), 404)
    await sessions.shutdown()
    http.closeAllConnections()
    await new Promise((resolve) => http.close(resolve))
  })
}

test('the transport is found where none is named', async () => {
  const sessions = new SessionManager()
  const { transport } = await sessions.createSession(makeServer(SDKS[0]))
  assert.equal(transport.constructor.name, 'StreamableHTTPServerTransport')
  await sessions.shutdown()
})

test('the process has one manager, until that is shut down', async () => {
  const made = getSessionManager({ url: hubUrl() })
  assert.equal(getSessionManager(), made)
  await fails('config', async () => getSessionManager({ url: hubUrl() }))
  await made.shutdown()
  const next = getSessionManager()
  assert.notEqual(next, made)
  await next.shutdown()
})

test('options that make no sense are refused', async () => {
  for (const options of [{ Transport: 7 }, { eventStore: 'yes' }, { retentoin: {} }, { url: 7 }])
    await fails('config', async () => new SessionManager(options), JSON.stringify(options))
})

test('neither a manager nor a handler keeps the process alive', async () => {
  await childEnds(`
    import { createSessionHandler, SessionManager } from 'mcp-sessions/sdk'
    import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
    const make = () => new McpServer({ name: 'x', version: '1' })
    await new SessionManager().createSession(make())
    const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'c', version: '1' } }
    const response = await createSessionHandler(make).fetch(new Request('http://localhost/mcp', {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params }),
    }))
    await response.text()
  `)
})
