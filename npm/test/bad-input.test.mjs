import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Engine, McpSessionsError } from 'mcp-sessions'
import {
  InMemoryInfoSessionManager,
  InMemoryStreamSessionManager,
  InMemorySubscriptionManager,
  resumable,
} from 'mcp-sessions/tmcp'
import { turn } from './helpers.mjs'

const LONE = '\ud800'
const badIds = [
  '',
  'a b',
  'a\n',
  'é',
  'a\u0000',
  'a\u007f',
  'x'.repeat(257),
  LONE,
  undefined,
  null,
  7,
  {},
  [],
  Symbol('id'),
]
const cycle = { name: 'x' }
cycle.self = cycle
const badObjects = [
  undefined,
  null,
  'text',
  7,
  true,
  [],
  () => {},
  { f: () => {} },
  { n: 1n },
  { n: Number.NaN },
  { n: Number.POSITIVE_INFINITY },
  { s: Symbol('s') },
  { s: LONE },
  { [LONE]: 1 },
  { list: [() => {}] },
  { toJSON: () => 'text' },
  { deep: { toJSON: () => 1n } },
  {
    toJSON: () => {
      throw new Error('from toJSON')
    },
  },
  cycle,
]

/** What must be refused, by the code it is refused with. */
function table(engine) {
  const { streams, info, subscriptions } = engine
  const rows = []
  const add = (code, name, call) => rows.push({ code, name, call })
  for (const id of badIds) {
    const shown = typeof id === 'symbol' ? 'a symbol' : JSON.stringify(id)?.slice(0, 20)
    for (const name of ['open', 'has', 'close', 'forget', 'known'])
      add('invalid_input', `streams.${name} ${shown}`, () => streams[name](id))
    if (id !== undefined && !Array.isArray(id)) add('invalid_input', `send to ${shown}`, () => streams.send(id, 'm'))
    add('invalid_input', `send to a list with ${shown}`, () => streams.send(['s1', id], 'm'))
    for (const name of ['get', 'getClientInfo', 'getLogLevel', 'getSessionSubscriptions', 'delete']) {
      add('invalid_input', `info.${name} ${shown}`, () => info[name](id))
    }
    add('invalid_input', `info.setLogLevel ${shown}`, () => info.setLogLevel(id, 'info'))
    add('invalid_input', `info.put ${shown}`, () => info.put(id, { logLevel: 'info' }))
    add('invalid_input', `info.addSubscription ${shown}`, () => info.addSubscription(id, 'u'))
  }
  for (const payload of [undefined, null, 7, {}, [], LONE, `a${LONE}b`, '\udc00\ud800']) {
    add('invalid_input', `payload ${JSON.stringify(payload)}`, () => streams.send('s1', payload))
    add('invalid_input', `payload ${JSON.stringify(payload)} to all`, () => streams.send(undefined, payload))
  }
  add('too_large', 'a large payload', () => streams.send('s1', 'x'.repeat(1001)))
  add('too_large', 'a large payload in two bytes', () => streams.send('s1', 'é'.repeat(501)))
  add('invalid_input', 'an empty key', () => streams.send('s1', 'm', { idempotencyKey: '' }))
  add('invalid_input', 'a long key', () => streams.send('s1', 'm', { idempotencyKey: 'k'.repeat(129) }))
  add('invalid_input', 'a key that is no text', () => streams.send('s1', 'm', { idempotencyKey: 7 }))
  add('invalid_input', 'a lone surrogate in a key', () => streams.send('s1', 'm', { idempotencyKey: LONE }))
  for (const after of ['', 'x', 7, {}, LONE, 'A'.repeat(1000)])
    add('invalid_input', `cursor ${JSON.stringify(after).slice(0, 20)}`, () => streams.open('s1', { after }))
  add('invalid_input', 'a conflict rule', () => streams.open('s1', { conflict: 'fight' }))
  for (const [at, value] of badObjects.entries()) {
    add('invalid_input', `client info ${at}`, () => info.setClientInfo('s1', value))
    add('invalid_input', `capabilities ${at}`, () => info.setClientCapabilities('s1', value))
    add('invalid_input', `params ${at}`, () => info.setInitializeParams('s1', value))
  }
  add('too_large', 'large client info', () => info.setClientInfo('s1', { name: 'x'.repeat(1001) }))
  add('too_large', 'client info of many values', () => info.setClientInfo('s1', { list: Array(2000).fill(1) }))
  for (const level of ['loud', '', undefined, null, 3, 'INFO'])
    add('invalid_input', `level ${level}`, () => info.setLogLevel('s1', level))
  for (const version of ['', undefined, 7, LONE])
    add('invalid_input', `version ${version}`, () => info.setProtocolVersion('s1', version))
  add('invalid_input', 'an unknown field', () => info.put('s1', { nickname: 'x' }))
  add('invalid_input', 'no patch', () => info.put('s1', null))
  for (const uri of ['', undefined, 7, LONE]) {
    add('invalid_input', `uri ${uri}`, () => info.addSubscription('s1', uri))
    add('invalid_input', `uri ${uri} asked for`, () => info.getSubscriptions(uri))
  }
  add('too_large', 'a long uri', () => info.addSubscription('s1', 'u'.repeat(8193)))
  const callbacks = { acknowledge() {}, send() {}, close() {} }
  for (const id of [undefined, null, Number.NaN, {}, LONE, true]) {
    add('invalid_input', `subscription id ${String(id)}`, () =>
      subscriptions.create({ id, origin: 'o', filters: {} }, callbacks),
    )
  }
  for (const origin of [undefined, 7, LONE])
    add('invalid_input', `origin ${origin}`, () => subscriptions.listen({ id: 1, origin, filters: {} }))
  for (const filters of [undefined, null, { resourceSubscriptions: 'u' }, { toolsListChanged: 'yes' }]) {
    add('invalid_input', `filters ${JSON.stringify(filters)}`, () =>
      subscriptions.listen({ id: 1, origin: 'o', filters }),
    )
  }
  add('invalid_input', 'no callbacks', () => subscriptions.create({ id: 1, origin: 'o', filters: {} }))
  add('invalid_input', 'no request', () => subscriptions.create(undefined, callbacks))
  add('invalid_input', 'a close reason', () => subscriptions.close(1, 'o', 'why'))
  for (const one of [
    undefined,
    null,
    'text',
    7,
    {},
    { jsonrpc: '2.0' },
    { method: 7 },
    { method: LONE },
    { method: 'x', n: 1n },
    () => {},
  ]) {
    add('invalid_input', `notification ${String(one)}`, () => subscriptions.send(one))
  }
  add('too_large', 'a large notification', () => subscriptions.send({ jsonrpc: '2.0', method: 'x'.repeat(1001) }))
  return rows
}

test('bad input is refused with a typed error, and changes nothing', async () => {
  const engine = Engine.memory({ maxPayloadBytes: 1000, maxInfoBytes: 1000 })
  const stream = await engine.streams.open('s1')
  const before = engine.stats()
  const rows = table(engine)
  assert.ok(rows.length > 250)
  for (const { code, name, call } of rows) {
    const error = await Promise.resolve()
      .then(call)
      .then(
        () => undefined,
        (error) => error,
      )
    assert.ok(error instanceof McpSessionsError, `${name}: ${error}`)
    assert.equal(error.code, code, `${name}: ${error.message}`)
    assert.ok(error.message.length > 0 && error.operation.length > 0, name)
  }
  assert.deepEqual(engine.stats(), before)
  assert.equal(await engine.info.get('s1'), undefined)
  assert.equal(stream.tryNext(), undefined)
  assert.equal(stream.end, undefined)
  await engine.shutdown()
})

test('what looks odd but is right is taken', async () => {
  const engine = Engine.memory()
  await engine.info.setClientInfo('s1', {
    name: '👍',
    nothing: undefined,
    date: new Date(0),
    list: [undefined, null],
    __proto__: null,
  })
  assert.deepEqual(await engine.info.getClientInfo('s1'), {
    name: '👍',
    date: '1970-01-01T00:00:00.000Z',
    list: [null, null],
  })
  await engine.info.setClientCapabilities('!~', {})
  assert.deepEqual(await engine.info.getClientCapabilities('!~'), {})
  await engine.subscriptions.send({ jsonrpc: '2.0', method: 'x', text: '\\ud800' })
  await engine.shutdown()
})

test('through the tmcp classes it is told, rejected for those who await, and nothing throws', async () => {
  const told = []
  const onError = (error) => told.push(error)
  const streams = new InMemoryStreamSessionManager({ onError, maxPayloadBytes: 1000 })
  const info = new InMemoryInfoSessionManager({ onError, maxPayloadBytes: 1000 })
  const subscriptions = new InMemorySubscriptionManager({ onError, maxPayloadBytes: 1000 })
  const controller = { desiredSize: 1, enqueue() {}, close() {}, error() {} }
  for (const [code, call] of [
    ['invalid_input', () => streams.create('a b', controller)],
    ['invalid_input', () => streams.create('s1', undefined)],
    ['invalid_input', () => streams.delete('a b')],
    ['invalid_input', () => streams.has('a b')],
    ['invalid_input', () => streams.known('a b')],
    ['invalid_input', () => info.setClientInfo('a b', { name: 'x', version: '1' })],
    ['invalid_input', () => info.setClientInfo('s1', 'x')],
    ['invalid_input', () => info.setLogLevel('s1', 'loud')],
    ['invalid_input', () => info.getClientInfo('a b')],
    ['invalid_input', () => info.addSubscription('s1', '')],
    ['invalid_input', () => info.removeSubscription('a b', 'u')],
    ['invalid_input', () => info.delete('a b')],
    ['invalid_input', () => subscriptions.send({})],
    ['invalid_input', () => subscriptions.close(1, 'o', 'why')],
  ]) {
    told.length = 0
    const result = call()
    assert.equal(told.length, result instanceof Promise ? told.length : 1, String(call))
    await assert.rejects(Promise.resolve(result), { code }, String(call))
    assert.deepEqual(
      told.map((error) => error.code),
      [code],
      String(call),
    )
  }
  // Transports wait for these inside listeners that nobody waits for: they must not reject.
  for (const [code, call, result] of [
    ['invalid_input', () => streams.send(['a b'], 'm')],
    ['invalid_input', () => streams.send(['s1', 'a b'], 'm')],
    ['invalid_input', () => streams.send('s1', 'm')],
    ['invalid_input', () => streams.send(undefined, LONE)],
    ['invalid_input', () => streams.send(undefined, 7)],
    ['too_large', () => streams.send(undefined, 'x'.repeat(1001))],
    ['invalid_input', () => info.getSubscriptions(''), []],
    ['too_large', () => info.getSubscriptions('u'.repeat(9000)), []],
  ]) {
    told.length = 0
    assert.deepEqual(await call(), result, String(call))
    assert.deepEqual(
      told.map((error) => error.code),
      [code],
      String(call),
    )
  }
  await turn()
  for (const manager of [streams, info, subscriptions]) await manager[Symbol.asyncDispose]()
})

test('closed managers answer `closed`, and closing twice is fine', async () => {
  const told = []
  const options = { onError: (error) => told.push(error.code) }
  const streams = new InMemoryStreamSessionManager(options)
  const info = new InMemoryInfoSessionManager(options)
  const subscriptions = new InMemorySubscriptionManager(options)
  for (const manager of [streams, info, subscriptions]) {
    await manager[Symbol.asyncDispose]()
    await manager[Symbol.asyncDispose]()
  }
  const controller = { desiredSize: 1, enqueue() {}, close() {}, error() {} }
  for (const call of [
    () => streams.create('s1', controller),
    () => streams.has('s1'),
    () => info.setClientInfo('s1', { name: 'x', version: '1' }),
    () => info.getClientInfo('s1'),
    () => info.delete('s1'),
    () => subscriptions.send({ jsonrpc: '2.0', method: 'x' }),
    () => subscriptions.create({ id: 1, origin: 'o', filters: {} }, { acknowledge() {}, send() {}, close() {} }),
  ]) {
    await assert.rejects(Promise.resolve(call()), { code: 'closed' }, String(call))
  }
  told.length = 0
  assert.equal(await streams.send(['s1'], 'm'), undefined)
  assert.deepEqual(await info.getSubscriptions('u'), [])
  assert.deepEqual(told, ['closed', 'closed'])
  await streams.delete('s1')
})

test('a manager or a resumable transport that makes no sense is a config error', () => {
  for (const argument of [
    7,
    'redis://x',
    { url: 'memory://a', engine: Engine.memory() },
    { engine: {} },
    { onError: 'x' },
    { queue: { events: 0 } },
    { oops: 1 },
  ]) {
    assert.throws(() => new InMemoryStreamSessionManager(argument), { code: 'config' })
  }
  const sessionManager = { streams: new InMemoryStreamSessionManager(), info: new InMemoryInfoSessionManager() }
  const transport = { respond: async () => null, close() {} }
  for (const options of [
    undefined,
    {},
    { sessionManager: { streams: {}, info: {} } },
    { sessionManager, unknownSessions: 'maybe' },
    { sessionManager, conflict: 'fight' },
    { sessionManager, retryMs: -1 },
    { sessionManager, onGap: 7 },
  ]) {
    assert.throws(() => resumable(transport, options), { code: 'config' })
  }
})
