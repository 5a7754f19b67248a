// What is refused leaves nothing behind: limits to the byte, and subscriptions whose callbacks misbehave.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Engine } from 'mcp-sessions'
import { InMemorySubscriptionManager } from 'mcp-sessions/tmcp'
import { childEnds, deferred, fails, within } from './support.mjs'

const LONE = 'a\ud800b'
const LIMITS = { maxPayloadBytes: 100, maxUriBytes: 20, maxInfoBytes: 1000, maxSubscriptions: 3 }
const changed = (n) => ({ jsonrpc: '2.0', method: 'notifications/tools/list_changed', params: { n } })
const filters = { toolsListChanged: true }
const quiet = { acknowledge() {}, send() {}, close() {} }

test('the limits themselves are allowed, one byte more is not', async () => {
  const engine = Engine.memory(LIMITS)
  const id = '~'.repeat(256)
  const stream = await engine.streams.open(id)
  const largest = `${'é'.repeat(48)}😀`
  assert.equal(Buffer.byteLength(largest), 100)
  assert.equal((await engine.streams.send(id, largest)).accepted, 1)
  assert.equal((await stream.next()).payload, largest)
  await fails('too_large', () => engine.streams.send(id, `${largest}x`))
  assert.equal((await engine.streams.send(id, '')).accepted, 1)
  assert.equal((await stream.next()).payload, '')
  await engine.info.addSubscription(id, 'u'.repeat(20))
  await fails('too_large', () => engine.info.addSubscription(id, 'u'.repeat(21)))
  const info = { name: 'x'.repeat(989) }
  assert.equal(JSON.stringify(info).length, 1000)
  await engine.info.setClientInfo(id, info)
  await fails('too_large', () => engine.info.setClientInfo(id, { name: 'x'.repeat(990) }))
  assert.deepEqual(await engine.info.getClientInfo(id), info)
  assert.deepEqual(await engine.info.getSessionSubscriptions(id), ['u'.repeat(20)])
  await engine.shutdown()
})

test('a session has no more subscriptions than it may', async () => {
  const engine = Engine.memory(LIMITS)
  for (const uri of ['u:1', 'u:2', 'u:3']) assert.equal(await engine.info.addSubscription('s1', uri), true)
  await fails('too_large', () => engine.info.addSubscription('s1', 'u:4'))
  assert.equal(await engine.info.addSubscription('s1', 'u:3'), false)
  assert.deepEqual(await engine.info.getSessionSubscriptions('s1'), ['u:1', 'u:2', 'u:3'])
  assert.deepEqual(await engine.info.getSubscriptions('u:4'), [])
  await engine.shutdown()
})

test('filters outside the rules register nothing', async () => {
  const engine = Engine.memory(LIMITS)
  const bad = [
    null,
    'all',
    { toolsListChanged: 'yes' },
    ...['u:1', [7], [1n], [LONE]].map((resourceSubscriptions) => ({ resourceSubscriptions })),
  ]
  for (const one of bad) {
    await fails('invalid_input', () => engine.subscriptions.create({ id: 1, origin: 'o', filters: one }, quiet))
    await fails('invalid_input', () => engine.subscriptions.listen({ id: 1, origin: 'o', filters: one }))
  }
  assert.equal(engine.stats().subscriptions, 0)
  assert.equal(await engine.subscriptions.create({ id: 1, origin: 'o', filters }, quiet), true)
  await engine.shutdown()
})

test('options that JSON can’t carry are a config error, and what was refused keeps no process alive', async () => {
  const { out } = await childEnds(`
    import { Engine } from 'mcp-sessions'
    const engine = Engine.memory()
    const callbacks = { acknowledge() {}, send() {}, close() {} }
    for (const filters of [null, { resourceSubscriptions: [1n] }, { resourceSubscriptions: 'x' }]) {
      await engine.subscriptions.create({ id: 1, origin: 'o', filters }, callbacks).catch(() => {})
      await engine.subscriptions.listen({ id: 1, origin: 'o', filters }).catch(() => {})
    }
    const cycle = {}
    cycle.self = cycle
    for (const options of [{ maxPayloadBytes: 1n }, { queue: cycle }]) {
      await Engine.connect('memory://', options).catch((error) => console.log(error.code))
    }
  `)
  assert.equal(out, 'config\nconfig\n')
})

describe('callbacks that misbehave', () => {
  const failures = {
    throws() {
      throw new Error('boom')
    },
    rejects: () => Promise.reject(new Error('boom')),
  }
  for (const [how, fail] of Object.entries(failures)) {
    test(`an acknowledgement that ${how} undoes the registration`, async () => {
      const engine = Engine.memory()
      const request = { id: 1, origin: 'o', filters }
      const create = () => engine.subscriptions.create(request, { ...quiet, acknowledge: fail })
      const error = await fails('invalid_input', create)
      assert.deepEqual([error.message, error.cause.message], ['boom', 'boom'])
      assert.equal(engine.stats().subscriptions, 0)
      assert.equal(await engine.subscriptions.create(request, quiet), true)
      await engine.shutdown()
    })

    test(`a send that ${how} is told, and the next one goes on`, async () => {
      const errors = []
      const manager = new InMemorySubscriptionManager({ onError: (error) => errors.push(error) })
      const got = deferred()
      const send = (one) => (one.params.n === 1 ? fail() : got.resolve(one))
      await manager.create({ id: 1, origin: 'o', filters }, { ...quiet, send })
      await manager.send(changed(1))
      await manager.send(changed(2))
      assert.equal((await within(got.promise)).params.n, 2)
      const told = errors.map(({ code, operation, message }) => [code, operation, message])
      assert.deepEqual(told, [['invalid_input', 'subscriptions.send', 'boom']])
    })

    test(`a close that ${how} is told, and the subscription is gone`, async () => {
      const errors = []
      const manager = new InMemorySubscriptionManager({ onError: (error) => errors.push(error) })
      await manager.create({ id: 1, origin: 'o', filters }, { ...quiet, close: fail })
      assert.equal(await within(manager.close(1, 'o', 'closed')), true)
      assert.deepEqual(
        errors.map(({ operation, message }) => [operation, message]),
        [['subscriptions.close', 'boom']],
      )
      assert.equal(await manager.close(1, 'o', 'closed'), false)
    })
  }

  for (const stuck of ['acknowledge', 'send', 'close']) {
    test(`a ${stuck} that never settles holds up neither its end, nor others, nor a shutdown`, async () => {
      const engine = Engine.memory()
      const got = deferred()
      const closed = deferred()
      const callbacks = { ...quiet, close: closed.resolve }
      callbacks[stuck] = (value) => {
        if (stuck === 'close') closed.resolve(value)
        return new Promise(() => {})
      }
      const created = engine.subscriptions.create({ id: 1, origin: 'o', filters }, callbacks)
      await engine.subscriptions.create({ id: 2, origin: 'o', filters }, { ...quiet, send: got.resolve })
      await within(engine.subscriptions.send(changed(1)))
      assert.equal((await within(got.promise, 'the other subscription')).params.n, 1)
      assert.equal(await within(engine.subscriptions.close(1, 'o', 'cancelled'), 'close'), true)
      assert.equal(await within(closed.promise), 'cancelled')
      assert.equal(await within(created, 'create'), true)
      assert.equal(engine.stats().subscriptions, 1)
      await within(engine.shutdown(), 'shutdown')
    })
  }
})
