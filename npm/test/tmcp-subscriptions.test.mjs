import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as tmcp from '@tmcp/session-manager'
import { Engine } from 'mcp-sessions'
import { InMemorySubscriptionManager } from 'mcp-sessions/tmcp'
import { hub, turn } from './helpers.mjs'

const tools = { jsonrpc: '2.0', method: 'notifications/tools/list_changed' }
const prompts = { jsonrpc: '2.0', method: 'notifications/prompts/list_changed' }
const updated = (uri) => ({ jsonrpc: '2.0', method: 'notifications/resources/updated', params: { uri } })

/** Callbacks that note what they are called with. */
function noted(more = {}) {
  const log = []
  return {
    log,
    acknowledge: () => void log.push('acknowledged'),
    send: (notification) => void log.push(notification.params?.uri ?? notification.params?.n ?? notification.method),
    close: (reason) => void log.push(`closed: ${reason}`),
    ...more,
  }
}

for (const [whose, Manager] of Object.entries({
  tmcp: tmcp.InMemorySubscriptionManager,
  ours: InMemorySubscriptionManager,
})) {
  test(`${whose}: acknowledged first, then what matches, in order, then closed`, async () => {
    const manager = new Manager()
    const one = noted()
    assert.equal(
      await manager.create(
        { id: 1, origin: 'o', filters: { toolsListChanged: true, resourceSubscriptions: ['u1'] } },
        one,
      ),
      true,
    )
    await manager.send(tools)
    await manager.send(prompts)
    await manager.send(updated('u1'))
    await manager.send(updated('u2'))
    assert.equal(await manager.close(1, 'o', 'closed'), true)
    assert.equal(await manager.close(1, 'o', 'closed'), false)
    await manager.send(tools)
    assert.deepEqual(one.log, ['acknowledged', 'notifications/tools/list_changed', 'u1', 'closed: closed'])
  })

  test(`${whose}: an id keeps its type, and is taken once an origin`, async () => {
    const manager = new Manager()
    const [number, text, taken, elsewhere] = [noted(), noted(), noted(), noted()]
    const filters = { toolsListChanged: true }
    assert.equal(await manager.create({ id: 1, origin: 'o', filters }, number), true)
    assert.equal(await manager.create({ id: '1', origin: 'o', filters }, text), true)
    assert.equal(await manager.create({ id: 1, origin: 'o', filters }, taken), false)
    assert.equal(await manager.create({ id: 1, origin: 'other', filters }, elsewhere), true)
    assert.deepEqual(taken.log, [])
    assert.equal(await manager.close('1', 'o', 'cancelled'), true)
    await manager.send(tools)
    assert.equal(number.log.length, 2)
    assert.deepEqual(text.log, ['acknowledged', 'closed: cancelled'])
    await manager.closeAll('o')
    assert.equal(number.log.at(-1), 'closed: cancelled')
    assert.equal(elsewhere.log.length, 2)
    await manager.closeAll(undefined, 'closed')
    assert.equal(elsewhere.log.at(-1), 'closed: closed')
  })

  test(`${whose}: what matches before the acknowledgement is written waits for it`, async () => {
    const manager = new Manager()
    let written
    const one = noted({ acknowledge: () => new Promise((resolve) => (written = resolve)) })
    const creating = manager.create({ id: 1, origin: 'o', filters: { toolsListChanged: true } }, one)
    const sending = manager.send({ ...tools, params: { n: 1 } })
    const sending2 = manager.send({ ...tools, params: { n: 2 } })
    await turn()
    assert.deepEqual(one.log, [])
    written()
    assert.equal(await creating, true)
    await Promise.all([sending, sending2])
    await turn()
    assert.deepEqual(one.log, [1, 2])
    await manager.closeAll()
  })

  test(`${whose}: one at a time where callbacks take time`, async () => {
    const manager = new Manager()
    const log = []
    const one = noted({
      send: async ({ params }) => {
        log.push(`begin ${params.n}`)
        await turn()
        log.push(`end ${params.n}`)
      },
    })
    await manager.create({ id: 1, origin: 'o', filters: { toolsListChanged: true } }, one)
    await Promise.all(Array.from({ length: 40 }, (_, n) => manager.send({ ...tools, params: { n } })))
    await manager.close(1, 'o', 'closed')
    assert.deepEqual(log, Array.from({ length: 40 }, (_, n) => [`begin ${n}`, `end ${n}`]).flat())
    assert.deepEqual(one.log, ['acknowledged', 'closed: closed'])
  })

  test(`${whose}: an acknowledgement that fails undoes the registration`, async () => {
    const manager = new Manager()
    const request = { id: 1, origin: 'o', filters: {} }
    const thrown = noted({
      acknowledge: () => {
        throw new Error('cannot write')
      },
    })
    await assert.rejects(manager.create(request, thrown), /cannot write/)
    const rejected = noted({
      acknowledge: async () => {
        throw new Error('cannot write')
      },
    })
    await assert.rejects(manager.create(request, rejected), /cannot write/)
    assert.equal(await manager.create(request, noted()), true)
    await manager.closeAll()
  })
}

test('notifications reach every node, and the subscriptions of both managers of a URL', async () => {
  const url = hub('subscriptions')
  const engine = await Engine.connect(url)
  const [a, b] = [new InMemorySubscriptionManager(url), new InMemorySubscriptionManager({ engine })]
  const [one, two] = [noted(), noted()]
  await a.create({ id: 1, origin: 'o', filters: { toolsListChanged: true } }, one)
  await b.create({ id: 1, origin: 'o', filters: { toolsListChanged: true } }, two)
  for (let n = 0; n < 20; n++) await (n % 2 ? a : b).send({ ...tools, params: { n } })
  const wanted = ['acknowledged', ...Array.from({ length: 20 }, (_, n) => n)]
  assert.deepEqual(one.log, wanted)
  assert.deepEqual(two.log, wanted)
  await engine.shutdown()
  await turn()
  assert.equal(two.log.at(-1), 'closed: closed')
  await a[Symbol.asyncDispose]()
  await turn()
  assert.equal(one.log.at(-1), 'closed: closed')
  // as tmcp's transport does when the client of a server that has shut down goes away
  for (const manager of [a, b]) assert.equal(await manager.close(1, 'o', 'cancelled'), false)
})

test('a callback that throws or never settles is told, holds up nobody, and can be closed', async () => {
  const told = []
  const manager = new InMemorySubscriptionManager({ onError: (error) => told.push([error.code, error.operation]) })
  const filters = { toolsListChanged: true }
  const well = noted()
  const stuck = noted({ send: () => new Promise(() => {}) })
  const thrower = noted({
    send: () => {
      throw new Error('send failed')
    },
    close: () => {
      throw new Error('close failed')
    },
  })
  const unacknowledged = noted({ acknowledge: () => new Promise(() => {}), close: () => new Promise(() => {}) })
  await manager.create({ id: 'stuck', origin: 'o', filters }, stuck)
  await manager.create({ id: 'thrower', origin: 'o', filters }, thrower)
  const creating = manager.create({ id: 'unacknowledged', origin: 'o', filters }, unacknowledged)
  await manager.create({ id: 'well', origin: 'o', filters }, well)
  for (let n = 0; n < 100; n++) await manager.send({ ...tools, params: { n } })
  assert.equal(well.log.length, 101)
  assert.equal(told.length, 100)
  assert.deepEqual(told[0], ['invalid_input', 'subscriptions.send'])
  const began = performance.now()
  assert.equal(await manager.close('stuck', 'o', 'cancelled'), true)
  await manager.closeAll()
  assert.ok(performance.now() - began < 5_000)
  assert.equal(await creating, true)
  assert.equal(stuck.log.at(-1), 'closed: cancelled')
  assert.equal(told.at(-1)[1], 'subscriptions.close')
})

test('a subscriber that is too slow ends, and the others go on', async () => {
  const engine = Engine.memory({ queue: { events: 50 } })
  const manager = new InMemorySubscriptionManager(engine)
  const filters = { toolsListChanged: true }
  const slow = noted({ send: () => new Promise(() => {}) })
  const quick = noted()
  await manager.create({ id: 'slow', origin: 'o', filters }, slow)
  await manager.create({ id: 'quick', origin: 'o', filters }, quick)
  for (let n = 0; n < 200; n++) await manager.send({ ...tools, params: { n } })
  assert.equal(quick.log.length, 201)
  assert.equal(engine.stats().subscriptionOverflows, 1)
  assert.equal(engine.stats().subscriptions, 1)
  await engine.shutdown()
})

test('a subscription that is asked for its notifications', async () => {
  const engine = Engine.memory()
  const request = { id: 1, origin: 'o', filters: { toolsListChanged: true } }
  const subscription = await engine.subscriptions.listen(request)
  assert.equal(await engine.subscriptions.listen(request), undefined)
  const waiting = subscription.next()
  await engine.subscriptions.send({ ...tools, params: { n: 1 } })
  assert.equal(subscription.tryNext(), undefined, 'not before the acknowledgement')
  subscription.acknowledge()
  assert.deepEqual(await waiting, { ...tools, params: { n: 1 } })
  const rest = (async () => {
    const got = []
    for await (const one of subscription) got.push(one.params.n)
    return got
  })()
  for (let n = 2; n < 5; n++) await engine.subscriptions.send({ ...tools, params: { n } })
  await turn()
  assert.equal(await engine.subscriptions.close(1, 'o', 'closed'), true)
  assert.equal(await subscription.ended, 'closed')
  assert.deepEqual(await rest, [2, 3, 4])
  await engine.shutdown()
})
