import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as tmcp from '@tmcp/session-manager'
import { Engine } from 'mcp-sessions'
import { InMemoryInfoSessionManager, InMemoryStreamSessionManager } from 'mcp-sessions/tmcp'
import { hub, turn } from './helpers.mjs'

const client = { name: 'inspector', version: '1.0.0', title: 'Inspector' }
const capabilities = { roots: { listChanged: true }, sampling: {} }

for (const [whose, Manager] of Object.entries({
  tmcp: tmcp.InMemoryInfoSessionManager,
  ours: InMemoryInfoSessionManager,
})) {
  test(`${whose}: what is set without await is read at once`, async () => {
    const info = new Manager()
    assert.equal(info.setClientInfo('s1', client), undefined)
    assert.equal(info.setClientCapabilities('s1', capabilities), undefined)
    assert.equal(info.setLogLevel('s1', 'warning'), undefined)
    assert.deepEqual(await info.getClientInfo('s1'), client)
    assert.deepEqual(await info.getClientCapabilities('s1'), capabilities)
    assert.equal(await info.getLogLevel('s1'), 'warning')
    info.setLogLevel('s1', 'error')
    assert.equal(await info.getLogLevel('s1'), 'error')
    await turn()
    assert.deepEqual(await info.getClientInfo('s1'), client)
  })

  test(`${whose}: what was never set is an error, in these words`, async () => {
    const info = new Manager()
    await assert.rejects(info.getClientInfo('s1'), { message: 'Client info not found for session s1' })
    await assert.rejects(info.getClientCapabilities('s1'), { message: 'Client capabilities not found for session s1' })
    await assert.rejects(info.getLogLevel('s1'), { message: 'Log Level not found for session s1' })
    info.setLogLevel('s1', 'info')
    await assert.rejects(info.getClientInfo('s1'), { message: 'Client info not found for session s1' })
  })

  test(`${whose}: subscriptions are sets, both ways`, async () => {
    const info = new Manager()
    assert.deepEqual(await info.getSubscriptions('u1'), [])
    info.addSubscription('s1', 'u1')
    info.addSubscription('s1', 'u1')
    info.addSubscription('s2', 'u1')
    info.addSubscription('s1', 'u1:x')
    assert.deepEqual((await info.getSubscriptions('u1')).sort(), ['s1', 's2'])
    info.removeSubscription('s1', 'u1')
    info.removeSubscription('s3', 'u1')
    assert.deepEqual(await info.getSubscriptions('u1'), ['s2'])
    assert.deepEqual(await info.getSubscriptions('u1:x'), ['s1'])
  })

  test(`${whose}: delete forgets one session, and nothing of another`, async () => {
    const info = new Manager()
    for (const id of ['s1', 's2']) {
      info.setClientInfo(id, { ...client, title: id })
      info.setClientCapabilities(id, capabilities)
      info.setLogLevel(id, 'debug')
      info.addSubscription(id, 'u')
    }
    info.delete('s1')
    info.delete('s1')
    await assert.rejects(info.getClientInfo('s1'))
    await assert.rejects(info.getClientCapabilities('s1'))
    await assert.rejects(info.getLogLevel('s1'))
    assert.deepEqual(await info.getSubscriptions('u'), ['s2'])
    assert.equal((await info.getClientInfo('s2')).title, 's2')
  })

  test(`${whose}: set, delete and set in one turn`, async () => {
    const info = new Manager()
    info.setClientInfo('s1', client)
    info.delete('s1')
    info.setLogLevel('s1', 'alert')
    await assert.rejects(info.getClientInfo('s1'))
    assert.equal(await info.getLogLevel('s1'), 'alert')
    await turn()
    await assert.rejects(info.getClientInfo('s1'))
    assert.equal(await info.getLogLevel('s1'), 'alert')
  })
}

test('a change on one node is seen at once on another, in the same turn', async () => {
  const url = hub('turns')
  const [nodeA, nodeB] = [await Engine.connect(url), await Engine.connect(url)]
  const [a, b] = [nodeA, nodeB].map((engine) => new InMemoryInfoSessionManager({ engine }))
  for (let n = 0; n < 50; n++) {
    const [one, other] = n % 2 ? [a, b] : [b, a]
    one.setClientInfo('s1', { ...client, version: String(n) })
    assert.equal((await other.getClientInfo('s1')).version, String(n))
    assert.equal((await one.getClientInfo('s1')).version, String(n))
    one.addSubscription('s1', `u${n}`)
    assert.deepEqual(await other.getSubscriptions(`u${n}`), ['s1'])
    if (n % 7 === 0) await turn()
  }
  a.delete('s1')
  await assert.rejects(b.getClientInfo('s1'))
  // Both set a field each: neither loses the other's.
  a.setLogLevel('s2', 'info')
  b.setClientInfo('s2', client)
  assert.deepEqual(await a.getClientInfo('s2'), client)
  assert.equal(await b.getLogLevel('s2'), 'info')
  await nodeA.shutdown()
  await nodeB.shutdown()
})

test('two managers of one URL, and the engine itself, share what they know', async () => {
  const url = hub('shared')
  const [a, b] = [new InMemoryInfoSessionManager(url), new InMemoryInfoSessionManager(url)]
  const engine = await Engine.connect(url)
  a.setClientInfo('s1', client)
  assert.deepEqual(await b.getClientInfo('s1'), client)
  assert.deepEqual(await engine.info.getClientInfo('s1'), client)
  await engine.info.setClientInfo('s1', { name: 'other', version: '2' })
  assert.equal((await a.getClientInfo('s1')).name, 'other')
  assert.equal((await b.getClientInfo('s1')).name, 'other')
  await engine.shutdown()
  await a.close()
  await b.close()
})

test('what is set crosses before what is sent later', async () => {
  const streams = new InMemoryStreamSessionManager()
  const info = new InMemoryInfoSessionManager()
  streams.send(undefined, 'first of the turn')
  info.setLogLevel('s1', 'info')
  streams.send(['s1'], 'the session is known')
  assert.equal(await streams.known('s1'), true)
  await streams.close()
  await info.close()
})

test('info expires unless it is read', async () => {
  const engine = await Engine.connect(`${hub('ttl')}?clock=manual`, { sessionTtlMs: 60_000 })
  const info = new InMemoryInfoSessionManager({ engine })
  info.setClientInfo('read', client)
  info.setClientInfo('unread', client)
  for (let n = 0; n < 6; n++) {
    await engine.advanceClock(20_000)
    assert.deepEqual(await info.getClientInfo('read'), client)
  }
  await assert.rejects(info.getClientInfo('unread'))
  await engine.shutdown()
})

test('a cache of many sessions is bounded, and true', async () => {
  const info = new InMemoryInfoSessionManager()
  for (let n = 0; n < 10_000; n++) info.setClientInfo(`s${n}`, { ...client, version: String(n) })
  for (let n = 0; n < 10_000; n += 7) assert.equal((await info.getClientInfo(`s${n}`)).version, String(n))
  await turn()
  for (let n = 0; n < 10_000; n += 7) assert.equal((await info.getClientInfo(`s${n}`)).version, String(n))
  await info.close()
})
