// tmcp's managers: what a transport sees of them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Engine } from 'mcp-sessions'
import {
  InMemoryInfoSessionManager,
  InMemoryStreamSessionManager,
  InMemorySubscriptionManager,
} from 'mcp-sessions/tmcp'
import { controlled, deferred, fails, frameOf, SseReader, within } from './support.mjs'

const changed = (n) => ({ jsonrpc: '2.0', method: 'notifications/tools/list_changed', params: { n } })
const filters = { toolsListChanged: true }
const quiet = { acknowledge() {}, send() {}, close() {} }
const trio = (argument) => ({
  streams: new InMemoryStreamSessionManager(argument),
  info: new InMemoryInfoSessionManager(argument),
  subscriptions: new InMemorySubscriptionManager(argument),
})

/** A stream that is open, and its reader. */
function opened(streams, id, strategy) {
  const { body, controller, cancelled } = controlled(strategy)
  const created = streams.create(id, controller)
  return { sse: new SseReader(body), body, controller, cancelled, created }
}

test('create, send and read in one turn', async () => {
  const streams = new InMemoryStreamSessionManager({ frameIds: false })
  const written = []
  const controller = {
    desiredSize: 1,
    enqueue: (bytes) => written.push(Buffer.from(bytes).toString()),
    close() {},
    error() {},
  }
  streams.create('s1', controller)
  streams.send(['s1'], 'data: 1\n\n')
  streams.send(undefined, 'data: 2\n\n')
  streams.send(['nobody', 's1'], 'data: 3\n\n')
  // No await so far: whatever waits crosses at the end of this turn at the latest.
  await Promise.resolve()
  await Promise.resolve()
  assert.equal(written.join(''), 'data: 1\n\ndata: 2\n\ndata: 3\n\n')
  await streams.close()
})

test('frames carry ids, in front, and nothing else is changed', async () => {
  const streams = new InMemoryStreamSessionManager()
  const { body, controller } = controlled()
  streams.create('s1', controller)
  streams.send(['s1'], frameOf({ n: 1 }))
  streams.send(undefined, frameOf({ n: 2, text: 'grüße 😀' }))
  await streams.delete('s1')
  const text = await new Response(body).text()
  const ids = [...text.matchAll(/^id: (.*)$/gm)].map(([, id]) => id)
  assert.equal(ids.length, 2)
  assert.notEqual(ids[0], ids[1])
  for (const id of ids) assert.match(id, /^[\x21-\x7e]+$/)
  assert.equal(text.replaceAll(/^id: .*\n/gm, ''), frameOf({ n: 1 }) + frameOf({ n: 2, text: 'grüße 😀' }))
  await streams.close()
})

test('without frameIds, frames are as tmcp writes them', async () => {
  const streams = new InMemoryStreamSessionManager({ frameIds: false })
  const { body, controller } = controlled()
  streams.create('s1', controller)
  streams.send(undefined, frameOf({ n: 1 }))
  await streams.delete('s1')
  assert.equal(await new Response(body).text(), frameOf({ n: 1 }))
})

test('delete closes the controller, also when another node holds it', async () => {
  const url = 'memory://delete-closes'
  const [here, there] = [await Engine.connect(url), await Engine.connect(url)]
  const mine = new InMemoryStreamSessionManager({ engine: here })
  const theirs = new InMemoryStreamSessionManager({ engine: there })
  for (const [holder, closer] of [
    [mine, mine],
    [mine, theirs],
    [theirs, mine],
  ]) {
    const { sse, created } = opened(holder, 's1')
    await created
    assert.deepEqual([await mine.has('s1'), await theirs.has('s1')], [true, true])
    await closer.delete('s1')
    assert.equal(await sse.frame(), undefined)
    assert.deepEqual([await mine.has('s1'), await theirs.has('s1')], [false, false])
  }
  // Once more, and for a session that never was: nothing happens.
  await mine.delete('s1')
  await mine.delete('nobody')
  await here.shutdown()
  await there.shutdown()
})

test('what was sent before a delete is delivered before the end', async () => {
  const streams = new InMemoryStreamSessionManager()
  const { sse } = opened(streams, 's1')
  streams.send(['s1'], frameOf({ n: 1 }))
  streams.send(['s1'], frameOf({ n: 2 }))
  streams.delete('s1')
  assert.deepEqual([(await sse.event()).data, (await sse.event()).data], ['{"n":1}', '{"n":2}'])
  assert.equal(await sse.frame(), undefined)
})

test('a reader that went away without a word is forgotten at the next send; others do not notice', async () => {
  const errors = []
  const streams = new InMemoryStreamSessionManager({ onError: (error) => errors.push(error) })
  const gone = opened(streams, 'gone')
  const here = opened(streams, 'here')
  await gone.sse.cancel()
  streams.send(undefined, frameOf({ n: 1 }))
  assert.equal((await here.sse.event()).data, '{"n":1}')
  assert.equal(await streams.has('gone'), false)
  assert.equal(await streams.has('here'), true)
  assert.deepEqual(errors, [])
})

test('what was never set is said in tmcp’s words', async () => {
  const info = new InMemoryInfoSessionManager()
  const texts = {
    getClientInfo: 'Client info not found for session s1',
    getClientCapabilities: 'Client capabilities not found for session s1',
    getLogLevel: 'Log Level not found for session s1',
  }
  for (const [method, text] of Object.entries(texts))
    assert.equal((await fails('not_found', () => info[method]('s1'))).message, text)
})

test('setters are not awaited: what was set is read at once, here and on other nodes', async () => {
  const url = 'memory://not-awaited'
  const [here, there] = [await Engine.connect(url), await Engine.connect(url)]
  const mine = new InMemoryInfoSessionManager({ engine: here })
  const theirs = new InMemoryInfoSessionManager({ engine: there })
  mine.setClientInfo('s1', { name: 'x', version: '1' })
  mine.setClientCapabilities('s1', { sampling: {} })
  mine.setLogLevel('s1', 'warning')
  mine.addSubscription('s1', 'u:1')
  for (const info of [mine, theirs]) {
    assert.deepEqual(await info.getClientInfo('s1'), { name: 'x', version: '1' })
    assert.deepEqual(await info.getClientCapabilities('s1'), { sampling: {} })
    assert.equal(await info.getLogLevel('s1'), 'warning')
    assert.deepEqual(await info.getSubscriptions('u:1'), ['s1'])
  }
  theirs.setLogLevel('s1', 'error')
  theirs.removeSubscription('s1', 'u:1')
  assert.equal(await mine.getLogLevel('s1'), 'error')
  assert.deepEqual(await mine.getSubscriptions('u:1'), [])
  mine.delete('s1')
  for (const info of [mine, theirs]) await fails('not_found', () => info.getLogLevel('s1'))
  await here.shutdown()
  await there.shutdown()
})

test('a session subscribes once, to exactly that URI, and delete ends all of it', async () => {
  const info = new InMemoryInfoSessionManager()
  for (const uri of ['u:1', 'u:1', 'u:1:x']) info.addSubscription('s1', uri)
  info.addSubscription('s2', 'u:1')
  assert.deepEqual((await info.getSubscriptions('u:1')).sort(), ['s1', 's2'])
  info.removeSubscription('s1', 'u:1')
  assert.deepEqual(await info.getSubscriptions('u:1:x'), ['s1'])
  info.delete('s1')
  assert.deepEqual(await info.getSubscriptions('u:1:x'), [])
  assert.deepEqual(await info.getSubscriptions('u:1'), ['s2'])
})

test('subscriptions: notifications wait for the acknowledgement, then follow in order', async () => {
  const manager = new InMemorySubscriptionManager()
  const seen = []
  const acknowledged = deferred()
  const three = deferred()
  const created = manager.create(
    { id: 1, origin: 'o', filters },
    {
      async acknowledge() {
        seen.push('acknowledging')
        await acknowledged.promise
        seen.push('acknowledged')
      },
      async send({ params }) {
        seen.push(params.n)
        await new Promise((resolve) => setImmediate(resolve))
        seen.push(`${params.n} done`)
        if (params.n === 3) three.resolve()
      },
      close: (reason) => void seen.push(reason),
    },
  )
  await manager.send(changed(1))
  await manager.send(changed(2))
  assert.deepEqual(seen, ['acknowledging'])
  acknowledged.resolve()
  assert.equal(await created, true)
  await manager.send(changed(3))
  await within(three.promise)
  assert.equal(await manager.close(1, 'o', 'closed'), true)
  assert.deepEqual(seen, ['acknowledging', 'acknowledged', 1, '1 done', 2, '2 done', 3, '3 done', 'closed'])
  await manager.send(changed(4))
  assert.equal(seen.length, 9)
})

test('subscriptions: only what is asked for is sent', async () => {
  const manager = new InMemorySubscriptionManager()
  const got = []
  const end = deferred()
  const send = ({ method, params }) => {
    got.push([method.slice('notifications/'.length), params?.uri])
    if (method.startsWith('notifications/prompts')) end.resolve()
  }
  const some = { promptsListChanged: true, resourceSubscriptions: ['u:1'], toolsListChanged: false }
  await manager.create({ id: 1, origin: 'o', filters: some }, { ...quiet, send })
  const say = (method, params) => manager.send({ jsonrpc: '2.0', method: `notifications/${method}`, params })
  await say('tools/list_changed')
  await say('resources/list_changed')
  await say('resources/updated', { uri: 'u:2' })
  await say('resources/updated', { uri: 'u:1' })
  await say('message', { level: 'info' })
  await say('prompts/list_changed')
  await within(end.promise)
  assert.deepEqual(got, [
    ['resources/updated', 'u:1'],
    ['prompts/list_changed', undefined],
  ])
})

test('subscriptions: 1 is not "1", and an id is unique in its origin only', async () => {
  const manager = new InMemorySubscriptionManager()
  const closed = []
  const create = (id, origin) =>
    manager.create({ id, origin, filters }, { ...quiet, close: (reason) => void closed.push([id, origin, reason]) })
  assert.deepEqual([await create(1, 'a'), await create('1', 'a'), await create(1, 'b')], [true, true, true])
  assert.deepEqual([await create(1, 'a'), await create('1', 'a')], [false, false])
  assert.equal(await manager.close('1', 'a', 'closed'), true)
  assert.equal(await manager.close('1', 'a', 'closed'), false)
  assert.equal(await manager.close('1', 'b', 'closed'), false)
  await manager.closeAll('a')
  await manager.closeAll(undefined, 'closed')
  assert.deepEqual(closed, [
    ['1', 'a', 'closed'],
    [1, 'a', 'cancelled'],
    [1, 'b', 'closed'],
  ])
  assert.equal(await create(1, 'a'), true)
})

test('subscriptions: one that is stuck still closes, and holds up nobody', async () => {
  const manager = new InMemorySubscriptionManager()
  const stuck = deferred()
  const closed = deferred()
  const got = deferred()
  await manager.create(
    { id: 1, origin: 'o', filters },
    { ...quiet, send: () => new Promise(() => stuck.resolve()), close: closed.resolve },
  )
  await manager.create({ id: 2, origin: 'o', filters }, { ...quiet, send: got.resolve })
  await within(manager.send(changed(1)))
  await within(Promise.all([stuck.promise, got.promise]))
  assert.equal(await within(manager.close(1, 'o', 'cancelled')), true)
  assert.equal(await within(closed.promise), 'cancelled')
})

test('managers made without arguments in one turn belong together; two servers stay apart', async () => {
  const one = trio()
  const two = trio()
  const [first, second] = [opened(one.streams, 's1'), opened(two.streams, 's1')]
  one.info.setLogLevel('s1', 'debug')
  // Of one engine: a session that has info is known to the streams.
  one.info.setLogLevel('s9', 'debug')
  assert.deepEqual([await one.streams.known('s9'), await two.streams.known('s9')], [true, false])
  await fails('not_found', () => two.info.getLogLevel('s1'))
  one.streams.send(undefined, frameOf({ server: 1 }))
  two.streams.send(['s1'], frameOf({ server: 2 }))
  assert.equal((await first.sse.event()).data, '{"server":1}')
  assert.equal((await second.sse.event()).data, '{"server":2}')
  await two.subscriptions.create(
    { id: 1, origin: 'o', filters },
    { ...quiet, send: () => assert.fail('it crossed servers') },
  )
  await one.subscriptions.send(changed(1))
  await Promise.all([one.streams.delete('s1'), two.streams.delete('s1')])
})

test('managers made in different turns have nothing in common', async () => {
  const streams = new InMemoryStreamSessionManager()
  await Promise.resolve()
  const info = new InMemoryInfoSessionManager()
  info.setLogLevel('s1', 'debug')
  await info.getLogLevel('s1')
  assert.equal(await streams.known('s1'), false)
})

test('managers of one URL share an engine, until the last one lets go of it', async () => {
  const url = 'memory://one-engine'
  const first = new InMemoryStreamSessionManager(url)
  const second = new InMemoryStreamSessionManager({ url })
  const { sse, created } = opened(first, 's1')
  await created
  // Were they two nodes, the second create would replace the first stream.
  const info = new InMemoryInfoSessionManager({ url, onError() {} })
  info.setLogLevel('s1', 'debug')
  second.send(['s1'], frameOf({ n: 1 }))
  assert.equal((await sse.event()).data, '{"n":1}')
  const witness = await Engine.connect(url)
  await second.close()
  assert.equal(await witness.streams.has('s1'), true)
  assert.equal(await info.getLogLevel('s1'), 'debug')
  await first.close()
  assert.equal(await sse.frame(), undefined)
  assert.equal(await witness.streams.has('s1'), false)
  assert.equal(await info.getLogLevel('s1'), 'debug')
  await info.close()
  await fails('closed', () => info.getLogLevel('s1'))
  await witness.shutdown()
})

test('two engines are two nodes: a stream of one is taken over by the other', async () => {
  const url = 'memory://two-nodes'
  const [here, there] = [await Engine.connect(url), await Engine.connect(url)]
  assert.notEqual(here.nodeId, there.nodeId)
  const mine = new InMemoryStreamSessionManager({ engine: here })
  const theirs = new InMemoryStreamSessionManager({ engine: there })
  const old = opened(mine, 's1')
  await old.created
  mine.send(['s1'], frameOf({ n: 1 }))
  assert.equal((await old.sse.event()).data, '{"n":1}')
  const fresh = opened(theirs, 's1')
  await fresh.created
  assert.equal(await old.sse.event(), undefined)
  mine.send(['s1'], frameOf({ n: 2 }))
  assert.equal((await fresh.sse.event()).data, '{"n":2}')
  assert.deepEqual([here.stats().streams, there.stats().streams], [0, 1])
  assert.equal(here.stats().replaced, 1)
  await here.shutdown()
  assert.equal(await theirs.has('s1'), true)
  await there.shutdown()
  assert.equal(await fresh.sse.event(), undefined)
})

test('an engine that is handed in is not closed by its managers', async () => {
  const engine = Engine.memory()
  const { streams, info } = trio({ engine })
  await streams.close()
  await info.close()
  assert.equal((await engine.health()).open, true)
  await engine.shutdown()
})
