// `createSessionHandler`: what a client is answered, on one replica and on two.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Engine } from 'mcp-sessions'
import { ada, answerOf, bob, hubUrl, Peer, replica, SDKS, shout, soon, twoReplicas, VERSION } from './sdk-support.mjs'
import { deferred, fails, within } from './support.mjs'

for (const kind of SDKS) {
  const each = (name, run) => test(`${kind.sdk}: ${name}`, run)
  const one = (options = {}) => replica(kind, { url: hubUrl(), ...options })

  each('a session from initialize to DELETE', async () => {
    const ended = []
    const a = one({ onSessionClosed: (id, reason) => ended.push([id, reason]) })
    const peer = new Peer(a.fetch)
    const response = await peer.initialize()
    assert.equal(response.status, 200)
    assert.match(peer.id, /^[\x21-\x7e]{43,}$/)
    assert.equal(await peer.call('whoami'), 'a')
    const { registry, info } = await a.handler.engine()
    assert.equal((await registry.peek(peer.id)).state, 'active')
    const said = await info.get(peer.id)
    assert.equal(said.protocolVersion, VERSION)
    assert.deepEqual(said.clientInfo, { name: 'peer', version: '1' })
    assert.equal((await peer.delete()).status, 200)
    assert.deepEqual(ended, [[peer.id, 'deleted']])
    assert.equal(await peer.call('whoami'), 404)
    assert.equal((await peer.delete()).status, 404)
    assert.equal((await peer.stream()).status, 404)
    const { totalSessions, localSessions, localRequests, localStreams } = await a.handler.getStats()
    assert.deepEqual([totalSessions, localSessions, localRequests, localStreams], [0, 0, 0, 0])
    await a.close()
  })

  each('what is no request of a session is refused as the specification says', async () => {
    const a = one()
    const peer = new Peer(a.fetch)
    const ping = { id: 1, method: 'ping' }
    assert.equal((await peer.post(ping)).status, 400, 'no session id')
    assert.equal((await peer.send('GET', { headers: { accept: 'text/event-stream' } })).status, 400)
    assert.equal((await peer.send('DELETE')).status, 400)
    const put = await peer.send('PUT', { body: ping })
    assert.deepEqual([put.status, put.headers.get('allow')], [405, 'GET, POST, DELETE'])
    peer.id = 'nobody-knows-this-one'
    for (const method of ['POST', 'GET', 'DELETE']) {
      const response = await peer.send(method, method === 'POST' ? { body: { jsonrpc: '2.0', ...ping } } : {})
      assert.equal(response.status, 404, method)
      assert.equal((await response.json()).error.code, -32001)
    }
    assert.equal((await peer.post(ping, { id: 'x'.repeat(257) })).status, 400)
    await peer.initialize()
    assert.equal((await peer.send('GET', { headers: { accept: 'application/json' } })).status, 406)
    const modern = { accept: 'text/event-stream', 'mcp-protocol-version': '2026-07-28' }
    assert.equal((await peer.send('GET', { headers: modern })).status, 400)
    const params = { protocolVersion: VERSION, capabilities: {}, clientInfo: { name: 'p', version: '1' } }
    assert.equal((await peer.post({ id: 2, method: 'initialize', params })).status, 400, 'initialized already')
    const broken = new Request('http://localhost/mcp', {
      method: 'POST',
      headers: { accept: 'application/json, text/event-stream', 'content-type': 'application/json' },
      body: '{',
    })
    assert.equal((await a.fetch(broken)).status, 400)
    await a.close()
  })

  each('a body that is too large is refused, however long it says it is', async () => {
    const a = one({ transportOptions: { maxRequestBodySize: 1_000 } })
    const peer = new Peer(a.fetch)
    await peer.initialize()
    assert.equal((await peer.post({ id: 1, method: 'ping', params: { x: 'x'.repeat(2_000) } })).status, 413)
    assert.equal(await peer.call('whoami'), 'a')
    await a.close()
  })

  each('an initialize that the transport refuses leaves nothing', async () => {
    const a = one()
    const peer = new Peer(a.fetch)
    const params = { protocolVersion: VERSION, capabilities: {}, clientInfo: { name: 'p', version: '1' } }
    const refused = await peer.post({ id: 0, method: 'initialize', params }, { headers: { accept: 'text/plain' } })
    assert.equal(refused.status, 406)
    const { totalSessions, localSessions } = await a.handler.getStats()
    assert.deepEqual([totalSessions, localSessions], [0, 0])
    await a.close()
  })

  each('a server that can not be made leaves nothing', async () => {
    const problems = []
    const a = one({ onError: (error) => problems.push(error.message) })
    const { createSessionHandler } = await import('mcp-sessions/sdk')
    const failing = createSessionHandler(
      () => {
        throw new Error('no server today')
      },
      { Transport: kind.Web, url: hubUrl(), onError: (error) => problems.push(error.message) },
    )
    assert.equal((await new Peer(failing.fetch).initialize()).status, 500)
    assert.deepEqual(problems, ['no server today'])
    const { totalSessions, localSessions } = await failing.getStats()
    assert.deepEqual([totalSessions, localSessions], [0, 0])
    await Promise.all([failing.close(), a.close()])
  })

  each('only its owner reaches a session, and nobody else learns that it is there', async () => {
    const [a, b] = twoReplicas(kind)
    const peer = new Peer(a.fetch, ada)
    await peer.initialize()
    for (const { fetch } of [a, b]) {
      for (const auth of [bob, undefined]) {
        const intruder = new Peer(fetch, auth)
        intruder.id = peer.id
        assert.equal(await intruder.call('whoami'), 404)
        assert.equal((await intruder.stream()).status, 404)
        const refused = await intruder.delete()
        assert.equal(refused.status, 404)
        assert.deepEqual(await refused.json(), {
          jsonrpc: '2.0',
          error: { code: -32001, message: 'Session not found' },
          id: null,
        })
      }
    }
    assert.equal(await peer.call('whoami'), 'a')
    assert.equal(await peer.at(b.fetch).call('whoami'), 'b')
    await Promise.all([a.close(), b.close()])
  })

  each('a renewed token of the same subject is the same owner', async () => {
    const a = one()
    const token = (text, sub) => ({ token: text, clientId: 'client', scopes: [], extra: { sub } })
    const peer = new Peer(a.fetch, token('first', 'ada'))
    await peer.initialize()
    peer.auth = token('second', 'ada')
    assert.equal(await peer.call('whoami'), 'a')
    peer.auth = token('second', 'bob')
    assert.equal(await peer.call('whoami'), 404)
    await a.close()
  })

  each('any replica serves any session, with what the client said', async () => {
    const [a, b] = twoReplicas(kind)
    const peer = new Peer(a.fetch, ada)
    await peer.initialize()
    await answerOf(await peer.post({ id: 7, method: 'logging/setLevel', params: { level: 'warning' } }))
    // Two requests at once make one home.
    const there = peer.at(b.fetch)
    assert.deepEqual(await Promise.all([there.call('whoami'), there.call('whoami')]), ['b', 'b'])
    assert.deepEqual(b.made, [{ sessionId: peer.id, authInfo: ada, adopted: true }])
    const { server } = b.servers.get(peer.id)
    assert.deepEqual(server.getClientVersion(), { name: 'peer', version: '1' })
    assert.deepEqual(server.getClientCapabilities(), { roots: {} })
    assert.equal(await peer.call('whoami'), 'a')
    assert.equal((await b.handler.getStats()).totalSessions, 1)
    await Promise.all([a.close(), b.close()])
  })

  each('with adopt: false sessions of other replicas answer 404', async () => {
    const [a, b] = twoReplicas(kind, { adopt: false })
    const peer = new Peer(a.fetch)
    await peer.initialize()
    assert.equal(await peer.at(b.fetch).call('whoami'), 404)
    assert.equal(await peer.call('whoami'), 'a')
    await Promise.all([a.close(), b.close()])
  })

  each('what any replica says reaches the one stream, in order and once', async () => {
    const [a, b] = twoReplicas(kind)
    const peer = new Peer(a.fetch)
    await peer.initialize()
    assert.equal(await peer.at(b.fetch).call('whoami'), 'b')
    // Before the first stream: it waits for it.
    await shout(a.servers.get(peer.id), 'early')
    const stream = await peer.at(b.fetch).stream()
    assert.equal(await stream.heard(), 'early')
    await shout(a.servers.get(peer.id), 1)
    await shout(b.servers.get(peer.id), 2)
    await shout(a.servers.get(peer.id), 3)
    assert.deepEqual([await stream.heard(), await stream.heard(), await stream.heard()], [1, 2, 3])
    await stream.sse.cancel()
    await shout(b.servers.get(peer.id), 4)
    await shout(a.servers.get(peer.id), 5)
    const resumed = await peer.stream(stream.last)
    assert.equal(resumed.response.headers.get('mcp-sessions-gap'), null)
    assert.deepEqual([await resumed.heard(), await resumed.heard()], [4, 5])
    await resumed.sse.cancel()
    await Promise.all([a.close(), b.close()])
  })

  each('a new stream takes over from one that still stands', async () => {
    const [a, b] = twoReplicas(kind)
    const peer = new Peer(a.fetch)
    await peer.initialize()
    const first = await peer.stream()
    await shout(a.servers.get(peer.id), 1)
    assert.equal(await first.heard(), 1)
    const second = await peer.at(b.fetch).stream(first.last)
    assert.equal(await first.next(), undefined, 'the old one ended')
    await shout(a.servers.get(peer.id), 2)
    assert.equal(await second.heard(), 2)
    await Promise.all([a.close(), b.close()])
  })

  each('a stream begins with an id, so that a client that got nothing can come back', async () => {
    const a = one()
    for (const version of ['2025-11-25', '2025-06-18']) {
      const peer = new Peer(a.fetch)
      peer.version = version
      await peer.initialize()
      const stream = await peer.stream()
      const frames = [await stream.sse.frame(), await stream.sse.frame()]
      const id = frames.find((frame) => frame.id)?.id
      assert.ok(id, version)
      assert.ok(frames.some((frame) => frame.retry))
      await stream.sse.cancel()
      await shout(a.servers.get(peer.id), 'missed')
      assert.equal(await (await peer.stream(id)).heard(), 'missed')
    }
    await a.close()
  })

  each('the answer to a request is resumed on the other replica, too', async () => {
    const url = hubUrl()
    const told = { waiting: deferred(), gate: deferred() }
    const a = replica(kind, { url, maxSubscriptions: 1 }, 'a', told)
    const b = replica(kind, { url, maxSubscriptions: 2 }, 'b')
    const peer = new Peer(a.fetch)
    await peer.initialize()
    const asked = await peer.post({ id: 5, method: 'tools/call', params: { name: 'wait', arguments: {} } })
    const reader = asked.body.getReader()
    const primed = new TextDecoder().decode((await reader.read()).value)
    const [, lastEventId] = primed.match(/^id: (.+)$/m)
    await within(told.waiting.promise, 'the call')
    await reader.cancel()
    const resumed = await peer.at(b.fetch).stream(lastEventId)
    told.gate.resolve()
    assert.equal((await resumed.next()).result.content[0].text, 'waited')
    assert.equal(await resumed.next(), undefined, 'the answer is the last thing on its stream')
    await Promise.all([a.close(), b.close()])
  })

  each('event ids of other sessions and forged ones are refused', async () => {
    const a = one()
    const [victim, intruder] = [new Peer(a.fetch), new Peer(a.fetch)]
    await victim.initialize()
    await intruder.initialize()
    const stream = await victim.stream()
    await shout(a.servers.get(victim.id), 'secret')
    await stream.heard()
    for (const id of [stream.last, `${stream.last}x`, 'garbage', '_GET_stream_1'])
      assert.equal((await intruder.stream(id)).status, 400, id)
    assert.equal((await a.handler.getStats()).localStreams, 1)
    await a.close()
  })

  each('a gap is told', async () => {
    const gaps = []
    const a = one({ retention: { events: 2 }, onGap: (gap) => gaps.push(gap) })
    const peer = new Peer(a.fetch)
    await peer.initialize()
    const stream = await peer.stream()
    await shout(a.servers.get(peer.id), 0)
    assert.equal(await stream.heard(), 0)
    await stream.sse.cancel()
    for (const n of [1, 2, 3, 4]) await shout(a.servers.get(peer.id), n)
    const resumed = await peer.stream(stream.last)
    assert.equal(resumed.response.headers.get('mcp-sessions-gap'), 'true')
    assert.deepEqual(gaps, [{ sessionId: peer.id, lastEventId: stream.last }])
    assert.equal(await resumed.heard(), 3)
    await a.close()
  })

  each('closed by its owner from another replica, it ends here', async () => {
    const ended = deferred()
    const url = hubUrl()
    const a = replica(kind, { url, maxSubscriptions: 1, onSessionClosed: (...told) => ended.resolve(told) }, 'a')
    const b = replica(kind, { url, maxSubscriptions: 2 }, 'b')
    const peers = []
    for (const auth of [ada, ada, bob]) {
      const peer = new Peer(a.fetch, auth)
      await peer.initialize()
      peers.push(peer)
    }
    const stream = await peers[0].stream()
    const server = a.servers.get(peers[0].id)
    const closed = deferred()
    server.server.onclose = closed.resolve
    assert.equal(await b.handler.closeSessionsByOwner(ada.token, 'revoked'), 2)
    assert.equal((await within(ended.promise, 'the end'))[1], 'revoked')
    await within(closed.promise, 'the end of the server')
    while ((await stream.next()) !== undefined);
    await soon(async () => (await a.handler.getStats()).localSessions === 1, 'one session is left')
    assert.deepEqual(await Promise.all(peers.map((peer) => peer.call('whoami'))), [404, 404, 'a'])
    await Promise.all([a.close(), b.close()])
  })

  each('a server that closes itself ends its session everywhere', async () => {
    const [a, b] = twoReplicas(kind)
    const peer = new Peer(a.fetch)
    await peer.initialize()
    await peer.at(b.fetch).call('whoami')
    await a.servers.get(peer.id).close()
    await soon(async () => (await peer.at(b.fetch).call('whoami')) === 404, 'the end on the other replica')
    assert.equal(await peer.call('whoami'), 404)
    await Promise.all([a.close(), b.close()])
  })

  each('an idle session is swept; one with a request or an open stream is not', async () => {
    const url = `${hubUrl()}?clock=manual`
    const told = { waiting: deferred(), gate: deferred() }
    const a = replica(kind, { url, registry: { staleMs: 60_000, sweepMs: 1_000 } }, 'a', told)
    const [idle, busy, listening] = [new Peer(a.fetch), new Peer(a.fetch), new Peer(a.fetch)]
    for (const peer of [idle, busy, listening]) await peer.initialize()
    const asked = await busy.post({ id: 5, method: 'tools/call', params: { name: 'wait', arguments: {} } })
    const stream = await listening.stream()
    await within(told.waiting.promise, 'the call')
    const engine = await a.handler.engine()
    for (let step = 0; step < 20; step += 1) await engine.advanceClock(4_000)
    assert.equal(await idle.call('whoami'), 404)
    assert.equal(await listening.call('whoami'), 'a')
    told.gate.resolve()
    assert.equal((await answerOf(asked)).result.content[0].text, 'waited')
    await stream.sse.cancel()
    await soon(async () => (await engine.registry.peek(busy.id)).activeRequests === 0, 'the end of the request')
    for (let step = 0; step < 20; step += 1) await engine.advanceClock(4_000)
    assert.deepEqual([await busy.call('whoami'), await listening.call('whoami')], [404, 404])
    assert.equal((await a.handler.getStats()).localSessions, 0)
    await a.close()
  })

  each('shutting down waits for requests, ends streams, and leaves the sessions to the others', async () => {
    const url = hubUrl()
    const told = { waiting: deferred(), gate: deferred() }
    const a = replica(kind, { url, maxSubscriptions: 1 }, 'a', told)
    const b = replica(kind, { url, maxSubscriptions: 2 }, 'b')
    const peer = new Peer(a.fetch)
    await peer.initialize()
    const stream = await peer.stream()
    await shout(a.servers.get(peer.id), 1)
    assert.equal(await stream.heard(), 1)
    const asked = await peer.post({ id: 5, method: 'tools/call', params: { name: 'wait', arguments: {} } })
    await within(told.waiting.promise, 'the call')
    const closing = a.close()
    while ((await stream.next()) !== undefined);
    assert.equal(await peer.call('whoami'), 503)
    told.gate.resolve()
    assert.equal((await answerOf(asked)).result.content[0].text, 'waited')
    await within(closing, 'the close')
    const there = peer.at(b.fetch)
    assert.equal(await there.call('whoami'), 'b')
    await shout(b.servers.get(peer.id), 2)
    assert.equal(await (await there.stream(stream.last)).heard(), 2)
    await b.close({ endSessions: true })
  })

  each('shutting down does not wait for ever, and ends the sessions if it is told to', async () => {
    const url = hubUrl()
    const told = { waiting: deferred(), gate: deferred() }
    const a = replica(kind, { url, maxSubscriptions: 1 }, 'a', told)
    const b = replica(kind, { url, maxSubscriptions: 2 }, 'b')
    const peer = new Peer(a.fetch)
    await peer.initialize()
    await peer.post({ id: 5, method: 'tools/call', params: { name: 'wait', arguments: {} } })
    await within(told.waiting.promise, 'the call')
    await within(a.close({ deadlineMs: 10, endSessions: true }), 'the close')
    assert.equal(await peer.at(b.fetch).call('whoami'), 404)
    assert.equal((await b.handler.getStats()).totalSessions, 0)
    told.gate.resolve()
    await b.close()
  })

  each('during an outage clients are asked to come back, and sessions go on after it', async () => {
    const problems = []
    const engine = await Engine.connect(hubUrl(), { operationTimeoutMs: 500 })
    const a = replica(kind, { engine, onError: (error) => problems.push(error.code) })
    const peer = new Peer(a.fetch)
    await peer.initialize()
    engine.setOutage(true)
    assert.equal(await peer.call('whoami'), 503)
    assert.equal((await new Peer(a.fetch).initialize()).status, 503)
    assert.equal((await peer.stream()).status, 503)
    assert.equal((await peer.delete()).status, 503)
    assert.equal((await new Peer(a.fetch).initialize()).headers.get('retry-after'), '1')
    engine.setOutage(false)
    await soon(async () => (await peer.call('whoami')) === 'a', 'the session goes on')
    assert.equal((await a.handler.getStats()).totalSessions, 1)
    assert.equal((await peer.delete()).status, 200)
    await a.close()
    await engine.shutdown()
  })

  each('answers as JSON, where the transport is told to', async () => {
    const [a, b] = twoReplicas(kind, { transportOptions: { enableJsonResponse: true } })
    const peer = new Peer(a.fetch)
    await peer.initialize()
    assert.equal(await peer.call('whoami'), 'a')
    assert.equal(await peer.at(b.fetch).call('whoami'), 'b')
    await Promise.all([a.close(), b.close()])
  })
}

test('options that make no sense are refused at once', async () => {
  const { createSessionHandler } = await import('mcp-sessions/sdk')
  for (const options of [{ Transport: 7 }, { owner: 'x' }, { adopt: 1 }, { url: 'nonsense://' }, { retentoin: {} }])
    await fails('config', async () => createSessionHandler(() => ({}), options), JSON.stringify(options))
  await fails('config', async () => createSessionHandler('x'))
})
