import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as errors from 'mcp-sessions'
import { Engine, McpSessionsError } from 'mcp-sessions'
import { hub, turn } from './helpers.mjs'

test('an event crosses from one node to another', async () => {
  const url = hub('engine')
  const [a, b] = await Promise.all([Engine.connect(url), Engine.connect(url)])
  assert.notEqual(a.nodeId, b.nodeId)
  const stream = await a.streams.open('s1')
  assert.deepEqual(await b.streams.send('s1', 'hello'), { accepted: 1, dropped: 0, duplicates: 0 })
  const event = await stream.next()
  assert.equal(event.payload, 'hello')
  assert.equal(event.kind, 'directed')
  assert.equal(stream.cursor, event.cursor)
  await a.shutdown()
  await b.shutdown()
})

test('a stream is read by iterating, in batches, and without waiting', async () => {
  const engine = Engine.memory()
  const stream = await engine.streams.open('s1')
  assert.equal(stream.tryNext(), undefined)
  await Promise.all(Array.from({ length: 600 }, (_, n) => engine.streams.send('s1', `m${n}`)))
  assert.equal(stream.tryNext().payload, 'm0')
  const batch = await stream.nextBatch(100)
  assert.deepEqual([batch.length, batch[0].payload, batch.at(-1).payload], [100, 'm1', 'm100'])
  assert.equal(stream.cursor, batch.at(-1).cursor)
  let n = 101
  for await (const event of stream) {
    assert.equal(event.payload, `m${n++}`)
    if (n === 600) break
  }
  assert.equal(stream.end, 'closed', 'leaving the loop closes the stream')
  await engine.shutdown()
})

test('readers that wait are served in order', async () => {
  const engine = Engine.memory()
  const stream = await engine.streams.open('s1')
  const waiting = [stream.next(), stream.nextBatch(2), stream.next()]
  for (const payload of ['a', 'b', 'c', 'd']) await engine.streams.send('s1', payload)
  const [first, second, third] = await Promise.all(waiting)
  assert.deepEqual([first.payload, ...second.map((event) => event.payload), third.payload].slice(0, 2), ['a', 'b'])
  assert.equal(third.payload, second.length === 2 ? 'd' : 'c')
  await engine.shutdown()
})

test('payloads of every size and script arrive as they were sent', async () => {
  const engine = Engine.memory()
  const stream = await engine.streams.open('s1')
  const payloads = [
    '',
    'é',
    '👩‍👩‍👧',
    '\u0000\n\r',
    'x'.repeat(4 * 1024 * 1024),
    'ß'.repeat(300_000),
    '漢'.repeat(200_000),
  ]
  for (const payload of payloads) {
    assert.equal((await engine.streams.send('s1', payload)).accepted, 1)
    assert.ok((await stream.next()).payload === payload)
  }
  await engine.shutdown()
})

test('a taken over stream ends, and delivers nothing that waited', async () => {
  const engine = Engine.memory()
  const old = await engine.streams.open('s1')
  await engine.streams.send('s1', 'unread')
  const stream = await engine.streams.open('s1')
  assert.equal(await old.ended, 'replaced')
  assert.equal(await old.next(), undefined)
  assert.equal((await stream.next()).payload, 'unread')
  await old.close()
  assert.equal(await engine.streams.has('s1'), true, 'the old one has nothing to give back')
  await engine.shutdown()
})

test('errors are real classes with codes', async () => {
  const engine = Engine.memory()
  const error = await engine.info.getClientInfo('s1').catch((error) => error)
  assert.ok(error instanceof errors.NotFoundError)
  assert.ok(error instanceof McpSessionsError)
  assert.equal(error.name, 'NotFoundError')
  assert.equal(error.code, 'not_found')
  assert.equal(error.message, 'Client info not found for session s1')
  assert.deepEqual([error.retryable, error.outcomeUnknown], [false, false])
  assert.match(error.stack, /engine\.test\.mjs/)
  await engine.shutdown()
})

test('connecting to what makes no sense is a config error', async () => {
  for (const [url, options] of [
    ['', {}],
    ['pigeons://user:secret@host', {}],
    ['memory://a/b', {}],
    ['memory://x', { queue: { events: 0 } }],
    ['memory://x', { retension: {} }],
    [7, {}],
  ]) {
    const error = await Engine.connect(url, options).catch((error) => error)
    assert.equal(error.code, 'config', `${url} ${JSON.stringify(options)}`)
    assert.ok(!error.message.includes('secret'))
  }
  assert.throws(() => Engine.memory({ lease: { ttlMs: 1, renewMs: 2 } }), { code: 'config' })
  assert.throws(() => new Engine(), { code: 'config' })
})

test('a shut down engine answers `closed` everywhere, and shutting down twice is fine', async () => {
  const engine = Engine.memory()
  const stream = await engine.streams.open('s1')
  await Promise.all([engine.shutdown(), engine.shutdown()])
  await engine.shutdown()
  assert.equal(await stream.ended, 'shutdown')
  assert.equal(await stream.next(), undefined)
  await stream.close()
  await stream.close()
  for (const call of [
    () => engine.streams.open('s1'),
    () => engine.streams.send('s1', 'm'),
    () => engine.streams.send(undefined, 'm'),
    () => engine.streams.has('s1'),
    () => engine.streams.close('s1'),
    () => engine.streams.forget('s1'),
    () => engine.streams.known('s1'),
    () => engine.info.get('s1'),
    () => engine.info.put('s1', { logLevel: 'info' }),
    () => engine.info.setLogLevel('s1', 'info'),
    () => engine.info.getLogLevel('s1'),
    () => engine.info.addSubscription('s1', 'u'),
    () => engine.info.removeSubscription('s1', 'u'),
    () => engine.info.getSubscriptions('u'),
    () => engine.info.getSessionSubscriptions('s1'),
    () => engine.info.delete('s1'),
    () => engine.subscriptions.listen({ id: 1, origin: 'o', filters: {} }),
    () => engine.subscriptions.send({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' }),
  ]) {
    await assert.rejects(call, { code: 'closed' }, String(call))
  }
  assert.equal((await engine.health()).ready, false)
  assert.equal(engine.stats().streams, 0)
})

test('disposing shuts down and lets go of everything', async () => {
  const engine = Engine.memory()
  const stream = await engine.streams.open('s1')
  const reading = stream.next()
  await engine[Symbol.asyncDispose]()
  await engine[Symbol.asyncDispose]()
  assert.equal(await reading, undefined)
  assert.equal(stream.end, 'shutdown')
  await assert.rejects(engine.streams.has('s1'), { code: 'closed' })
})

test('streams and subscriptions can be disposed of', async () => {
  const engine = Engine.memory()
  const stream = await engine.streams.open('s1')
  await stream[Symbol.asyncDispose]()
  assert.equal(await engine.streams.has('s1'), false)
  const subscription = await engine.subscriptions.listen({ id: 1, origin: 'o', filters: {} })
  await subscription[Symbol.asyncDispose]()
  assert.equal(engine.stats().subscriptions, 0)
  await engine.shutdown()
})

test('many engines live side by side', async () => {
  const engines = Array.from({ length: 50 }, () => Engine.memory())
  const streams = await Promise.all(engines.map((engine) => engine.streams.open('s1')))
  await Promise.all(engines.map((engine, n) => engine.streams.send('s1', `m${n}`)))
  for (const [n, stream] of streams.entries()) assert.equal((await stream.next()).payload, `m${n}`)
  await Promise.all(engines.map((engine) => engine[Symbol.asyncDispose]()))
})

test('sends of one turn keep their order, and an idempotency key sends once', async () => {
  const engine = Engine.memory()
  const stream = await engine.streams.open('s1')
  const receipts = await Promise.all([
    engine.streams.send('s1', 'a', { idempotencyKey: 'k' }),
    engine.streams.send(undefined, 'b'),
    engine.streams.send('s1', 'a', { idempotencyKey: 'k' }),
    engine.streams.send(['s1', 'nobody'], 'c'),
    engine.streams.send([], 'd'),
  ])
  assert.deepEqual(
    receipts.map(({ accepted, dropped, duplicates }) => [accepted, dropped, duplicates]),
    [
      [1, 0, 0],
      [1, 0, 0],
      [0, 0, 1],
      [1, 1, 0],
      [0, 0, 0],
    ],
  )
  const got = (await stream.nextBatch()).map((event) => [event.payload, event.kind])
  assert.deepEqual(got, [
    ['a', 'directed'],
    ['b', 'broadcast'],
    ['c', 'directed'],
  ])
  await engine.shutdown()
})

test('info is read from a cache that other nodes keep true', async () => {
  const url = hub('info')
  const [a, b] = await Promise.all([Engine.connect(url), Engine.connect(url)])
  await a.info.put('s1', { clientInfo: { name: 'x' }, protocolVersion: '2025-06-18' })
  assert.deepEqual(b.info.cached('s1'), { clientInfo: { name: 'x' }, protocolVersion: '2025-06-18' })
  await b.info.setClientInfo('s1', { name: 'y' })
  assert.deepEqual(await a.info.getClientInfo('s1'), { name: 'y' })
  assert.equal(await a.info.delete('s1'), true)
  assert.equal(b.info.cached('s1'), undefined)
  await a.shutdown()
  await b.shutdown()
})

test('a killed node is silent, and time can be moved', async () => {
  const url = `${hub('clock')}?clock=manual`
  const [a, b] = await Promise.all([Engine.connect(url), Engine.connect(url)])
  await a.streams.open('s1')
  a.abandon()
  assert.equal(await b.streams.has('s1'), true)
  await b.advanceClock(6_000)
  assert.equal(await b.streams.has('s1'), false)
  await turn()
  await b.shutdown()
  const plain = Engine.memory()
  await assert.rejects(plain.advanceClock(1), { code: 'config' })
  await assert.rejects(plain.advanceClock(-1), { code: 'config' })
  await assert.rejects(plain.shutdown(Number.NaN), { code: 'config' })
  await plain.shutdown()
})
