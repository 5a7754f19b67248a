// Which managers share an engine, and which are nodes apart.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Engine } from 'mcp-sessions'
import {
  InMemoryInfoSessionManager,
  InMemoryStreamSessionManager,
  InMemorySubscriptionManager,
} from 'mcp-sessions/tmcp'
import { controlled, fails, frameOf, SseReader } from './support.mjs'

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
