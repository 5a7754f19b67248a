// `eventStore`: the SDKs' own transports on it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Engine } from 'mcp-sessions'
import { eventStore } from 'mcp-sessions/sdk'
import { hubUrl, makeServer, Peer, SDKS, shout } from './sdk-support.mjs'
import { fails } from './support.mjs'

const message = (n) => ({ jsonrpc: '2.0', method: 'notifications/message', params: { data: n } })

async function replayed(store, after) {
  const sent = []
  const stream = await store.replayEventsAfter(after, {
    send: async (id, one) => void sent.push([id, one.params.data]),
  })
  return { stream, sent }
}

test('what is stored is replayed after an id, on any node, and nothing else', async () => {
  const url = hubUrl()
  const [here, there] = [await Engine.connect(url), await Engine.connect(url)]
  const { eventStore: store, sessionId, sessionIdGenerator } = eventStore(here)
  assert.equal(sessionIdGenerator(), sessionId)
  assert.match(sessionId, /^[\w-]{43}$/)
  const first = await store.storeEvent('_GET_stream', message(1))
  const second = await store.storeEvent('_GET_stream', message(2))
  await store.storeEvent('another', message('not this'))
  const third = await store.storeEvent('_GET_stream', message(3))
  const elsewhere = eventStore(there, { sessionId }).eventStore
  assert.deepEqual(await replayed(elsewhere, first), {
    stream: '_GET_stream',
    sent: [
      [second, 2],
      [third, 3],
    ],
  })
  assert.deepEqual(await replayed(elsewhere, third), { stream: '_GET_stream', sent: [] })
  assert.equal(new Set([first, second, third]).size, 3)
  for (const id of [first, second, third]) assert.match(id, /^[\w-]+$/)
  await store.forget()
  assert.deepEqual((await replayed(elsewhere, first)).sent, [])
  await Promise.all([here.shutdown(), there.shutdown()])
})

test('priming gives an id, and is not replayed', async () => {
  const engine = Engine.memory()
  const { eventStore: store } = eventStore(engine)
  const primed = await store.storeEvent('s', {})
  const one = await store.storeEvent('s', message(1))
  await store.storeEvent('s', {})
  assert.deepEqual((await replayed(store, primed)).sent, [[one, 1]])
  await engine.shutdown()
})

test('every session has a store of its own, though the SDKs call their streams the same', async () => {
  const engine = Engine.memory()
  const [ours, theirs] = [eventStore(engine), eventStore(engine)]
  assert.notEqual(ours.sessionId, theirs.sessionId)
  const id = await ours.eventStore.storeEvent('_GET_stream', message('ours'))
  await theirs.eventStore.storeEvent('_GET_stream', message('theirs'))
  assert.deepEqual((await replayed(ours.eventStore, id)).sent, [])
  await fails('invalid_input', () => replayed(theirs.eventStore, id))
  assert.equal(await theirs.eventStore.getStreamIdForEventId(id), undefined)
  for (const forged of ['', '_GET_stream_1', `${id}A`, 'x'.repeat(10_000)])
    assert.equal(await ours.eventStore.getStreamIdForEventId(forged), undefined, forged.slice(0, 20))
  await engine.shutdown()
})

test('an answer that can not be kept is sent all the same; what nobody asked for fails', async () => {
  const problems = []
  const engine = await Engine.connect(hubUrl(), { operationTimeoutMs: 200 })
  const { eventStore: store } = eventStore(engine, { onError: (error) => problems.push(error.code) })
  engine.setOutage(true)
  assert.equal(await store.storeEvent('a request', { jsonrpc: '2.0', id: 1, result: {} }), '')
  await assert.rejects(store.storeEvent('_GET_stream', message(1)), { retryable: true })
  assert.equal(problems.length, 1)
  engine.setOutage(false)
  await engine.shutdown()
})

test('what makes no sense is refused', async () => {
  await fails('config', async () => eventStore(undefined))
  await fails('invalid_input', async () => eventStore(Engine.memory(), { sessionId: 'with space' }))
})

for (const kind of SDKS) {
  test(`${kind.sdk}: its own transport resumes on it, and takes over from a stream that still stands`, async () => {
    const gaps = []
    const engine = Engine.memory({ retention: { events: 4 } })
    const { eventStore: store, ...rest } = eventStore(engine, { onGap: (gap) => gaps.push(gap) })
    const transport = new kind.Web({ ...rest, eventStore: store })
    const server = makeServer(kind)
    await server.connect(transport)
    const peer = new Peer((request) => transport.handleRequest(request))
    await peer.initialize()
    assert.equal(peer.id, rest.sessionId)
    const stream = await peer.stream()
    await shout(server, 1)
    assert.equal(await stream.heard(), 1)
    await stream.sse.cancel()
    await shout(server, 2)
    const resumed = await peer.stream(stream.last)
    assert.equal(await resumed.heard(), 2)
    // Its connection is dead, which nobody has noticed.
    const again = await peer.stream(resumed.last)
    assert.equal(again.status, 200)
    await shout(server, 3)
    assert.equal(await again.heard(), 3)
    assert.equal((await peer.stream('forged')).status, 400)
    await again.sse.cancel()
    for (const n of [4, 5, 6, 7, 8, 9]) await shout(server, n)
    const late = await peer.stream(again.last)
    assert.deepEqual([await late.heard(), gaps], [6, [{ sessionId: peer.id, lastEventId: again.last }]])
    await server.close()
    await engine.shutdown()
  })

  test(`${kind.sdk}: with conflict: reject a second stream is a conflict while the first stands`, async () => {
    const engine = Engine.memory()
    const transport = new kind.Web({ ...eventStore(engine, { conflict: 'reject' }) })
    const server = makeServer(kind)
    await server.connect(transport)
    const peer = new Peer((request) => transport.handleRequest(request))
    await peer.initialize()
    const stream = await peer.stream()
    await shout(server, 1)
    assert.equal(await stream.heard(), 1)
    assert.equal((await peer.stream(stream.last)).status, 409)
    await server.close()
    await engine.shutdown()
  })

  test(`${kind.sdk}: the answer to a request is resumed after its connection was cut`, async () => {
    const engine = Engine.memory()
    const transport = new kind.Web({ ...eventStore(engine) })
    const server = makeServer(kind)
    await server.connect(transport)
    const peer = new Peer((request) => transport.handleRequest(request))
    await peer.initialize()
    const asked = await peer.post({ id: 5, method: 'tools/call', params: { name: 'whoami', arguments: {} } })
    const [, primed] = (await asked.text()).match(/^id: (.+)$/m)
    assert.equal((await (await peer.stream(primed)).next()).result.content[0].text, 'test')
    await server.close()
    await engine.shutdown()
  })
}
