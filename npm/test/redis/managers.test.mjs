// The managers on a real Redis server: how they connect, share, wait and let go.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createConnection } from 'node:net'
import { after, before, test } from 'node:test'
import { Engine } from 'mcp-sessions'
import { RedisInfoSessionManager, RedisStreamSessionManager, RedisSubscriptionManager } from 'mcp-sessions/tmcp'
import { freePort, startRedis } from '../../../tests/support/servers.mjs'
import { Frames, frame, openStream, until } from '../helpers.mjs'
import { childEnds, fails, within } from '../support.mjs'

const TOOLS_CHANGED = { jsonrpc: '2.0', method: 'notifications/tools/list_changed' }

let server
let prefixes = 0
// Waiting for an event does not keep a process alive: these tests need one that is.
let alive
before(async () => {
  alive = setInterval(() => {}, 1_000)
  server = await startRedis()
})
after(async () => {
  clearInterval(alive)
  await server.stop()
})

/** A place nobody else uses. */
const place = () => `${server.url}?prefix=t${prefixes++}:`

function managers(argument) {
  return {
    streams: new RedisStreamSessionManager(argument),
    info: new RedisInfoSessionManager(argument),
    subscriptions: new RedisSubscriptionManager(argument),
  }
}

async function close({ streams, info, subscriptions }) {
  await streams.close()
  await info.close()
  await subscriptions[Symbol.asyncDispose]()
}

/** Opens a session's stream; resolves once it is ready to receive. */
async function opened(streams, id) {
  let created
  const body = new ReadableStream({
    start(controller) {
      created = streams.create(id, controller)
    },
    cancel: () => streams.delete(id),
  })
  await created
  return body.getReader()
}

/** What the server answers to one command. */
async function ask(command, port = server.port) {
  const socket = createConnection(port, '127.0.0.1')
  socket.setEncoding('utf8')
  socket.end(`${command}\r\nQUIT\r\n`)
  let text = ''
  socket.on('data', (data) => {
    text += data
  })
  await once(socket, 'close')
  return text
}

/** Connections but that of who asks. */
async function connections() {
  const lines = (await ask('CLIENT LIST')).split('\n').filter((line) => line.startsWith('id='))
  return lines.filter((line) => !line.includes('cmd=client')).length
}
const connected = (count) => untilAsync(async () => (await connections()) === count, `${count} connections`)

async function untilAsync(check, what) {
  for (const deadline = Date.now() + 10_000; !(await check()); ) {
    assert.ok(Date.now() < deadline, `in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

test('managers made separately share two connections, and the last one out closes them', async () => {
  await connected(0)
  const url = place()
  const one = managers(url)
  const other = managers({ url, retention: { events: 8, bytes: 9 } })
  const same = managers({ retention: { bytes: 9, events: 8 }, url })
  await Promise.all([one, other, same].map(({ streams }) => streams.ready()))
  assert.equal(await connections(), 4, 'two for each URL with its options')
  await close(other)
  assert.equal(await same.streams.has('s1'), false)
  assert.equal(await connections(), 4, 'somebody else is on it')
  await close(same)
  await connected(2)
  await one.streams.close()
  await one.info.close()
  await one.subscriptions.send(TOOLS_CHANGED)
  assert.equal(await connections(), 2)
  await one.subscriptions[Symbol.asyncDispose]()
  await connected(0)
})

test('a manager that is let go of while it connects leaves nothing behind', async () => {
  const all = managers(place())
  await close(all)
  await fails('closed', () => all.streams.has('s1'))
  await connected(0)
})

test('what a manager is made with, and what is refused', async () => {
  const engine = await Engine.connect(place())
  const refused = [
    undefined,
    null,
    7,
    {},
    'memory://hub',
    'http://user:secret@host',
    'redis://',
    { url: 'memory://hub' },
    { url: server.url, engine },
    { url: `${server.url}?prefix=a:`, prefix: 'b:' },
    { url: server.url, prefix: 7 },
    { url: server.url, prefix: 'a b' },
    { url: server.url, retention: { event: 1 } },
    { url: server.url, history: 'off' },
    { url: server.url, nonsense: 1 },
    { engine, prefix: 'a:' },
  ]
  for (const argument of refused) {
    for (const Manager of [RedisStreamSessionManager, RedisInfoSessionManager, RedisSubscriptionManager]) {
      const error = await fails(
        'config',
        async () => new Manager(argument),
        `${Manager.name} ${JSON.stringify(argument)}`,
      )
      assert.ok(!error.message.includes('secret'))
    }
  }
  const accepted = [place(), { url: place() }, engine, { engine }, { url: server.url, prefix: `t${prefixes++}:` }]
  for (const argument of accepted) {
    const all = managers(argument)
    assert.equal(await all.streams.has('s1'), false)
    await close(all)
  }
  await engine[Symbol.asyncDispose]()
})

test('a prefix is where everything is', async () => {
  const prefix = `only-${prefixes++}:`
  const all = managers({ url: server.url, prefix })
  await all.info.setClientInfo('s1', { name: 'x', version: '1' })
  const keys = (await ask(`KEYS ${prefix}*`)).split('\r\n').filter((line) => line.startsWith(prefix))
  assert.ok(keys.includes(`${prefix}client_info:s1`), keys.join())
  await close(all)
})

test('without history nothing is written for an event, and it is delivered', async () => {
  const prefix = `live-${prefixes++}:`
  const all = managers({ url: server.url, prefix, history: false })
  const reader = await opened(all.streams, 's1')
  await all.streams.send(['s1'], frame('one'))
  await all.streams.send(undefined, frame('two'))
  assert.deepEqual(await new Frames(reader).data(2), ['one', 'two'])
  assert.ok(!(await ask(`KEYS ${prefix}log*`)).includes(prefix))
  await reader.cancel()
  await close(all)
})

test('calls before the connection is there are made in their order', async () => {
  const all = managers(place())
  all.info.setClientInfo('s1', { name: 'x', version: '1' })
  all.info.setLogLevel('s1', 'error')
  const { reader } = openStream(all.streams, 's1')
  all.streams.send(['s1'], frame(1))
  all.streams.send(undefined, frame(2))
  all.streams.send(['s1', 's2'], frame(3))
  const deleted = all.streams.delete('s1')
  const frames = new Frames(reader)
  assert.deepEqual(await frames.data(3), [1, 2, 3])
  assert.equal(await frames.next(), undefined)
  await deleted
  assert.deepEqual(await all.info.getClientInfo('s1'), { name: 'x', version: '1' })
  assert.equal(await all.info.getLogLevel('s1'), 'error')
  await close(all)
})

test('what resolved is so: the other process sees it', async () => {
  const url = place()
  const here = managers(url)
  const there = managers({ engine: await Engine.connect(url) })
  await here.info.setClientInfo('s1', { name: 'x', version: '1' })
  await here.info.setClientCapabilities('s1', { roots: {} })
  assert.deepEqual(await there.info.getClientInfo('s1'), { name: 'x', version: '1' })
  await there.info.setLogLevel('s1', 'alert')
  await there.info.addSubscription('s1', 'note://a')
  assert.equal(await here.info.getLogLevel('s1'), 'alert')
  assert.deepEqual(await here.info.getSubscriptions('note://a'), ['s1'])
  await here.info.setLogLevel('s1', 'debug')
  await untilAsync(async () => (await there.info.getLogLevel('s1')) === 'debug', 'the new level')
  await here.info.delete('s1')
  assert.deepEqual(await there.info.getSubscriptions('note://a'), [])
  await fails('not_found', () => here.info.getLogLevel('s1'))
  await untilAsync(
    () =>
      there.info.getLogLevel('s1').then(
        () => false,
        () => true,
      ),
    'it is gone',
  )

  const reader = await opened(here.streams, 's1')
  assert.equal(await there.streams.has('s1'), true)
  await there.streams.send(['s1'], frame('over there'))
  assert.deepEqual(await new Frames(reader).data(1), ['over there'])
  await there.streams.delete('s1')
  assert.equal(await here.streams.has('s1'), false)
  assert.deepEqual(await within(reader.read()), { value: undefined, done: true })
  await close(here)
  await close(there)
})

test('a value set here is not undone by a read that began before', async () => {
  const all = managers(place())
  await all.info.setLogLevel('s1', 'info')
  for (let n = 0; n < 50; n++) {
    const reading = all.info.getClientInfo('s1').catch(() => {})
    const set = all.info.setClientInfo('s1', { name: 'x', version: String(n) })
    assert.equal((await all.info.getClientInfo('s1')).version, String(n))
    await reading
    assert.equal((await all.info.getClientInfo('s1')).version, String(n))
    assert.equal(await all.info.getLogLevel('s1'), 'info')
    await set
    assert.equal((await all.info.getClientInfo('s1')).version, String(n))
    const deleted = all.info.delete('s1')
    await assert.rejects(all.info.getClientInfo('s1'), { code: 'not_found' })
    await deleted
    await assert.rejects(all.info.getClientInfo('s1'), { code: 'not_found' })
    await all.info.setLogLevel('s1', 'info')
  }
  await close(all)
})

test('a thousand streams opened at once, and twenty events each, in order, from another node', async () => {
  const url = place()
  const here = managers(url)
  const there = managers({ engine: await Engine.connect(url) })
  const ids = Array.from({ length: 1_000 }, (_, n) => `s${n}`)
  const readers = await Promise.all(ids.map((id) => opened(here.streams, id)))
  const sent = []
  for (let n = 0; n < 20; n++) for (const id of ids) sent.push(there.streams.send([id], frame(n)))
  await Promise.all(sent)
  const all = Array.from({ length: 20 }, (_, n) => n)
  for (const got of await Promise.all(readers.map((reader) => new Frames(reader).data(20)))) assert.deepEqual(got, all)
  for (const id of ids) here.streams.delete(id)
  await untilAsync(async () => !(await here.streams.has('s999')), 'the last is gone')
  await close(here)
  await close(there)
})

test('events that arrive while a stream is being opened are its first', async () => {
  const url = place()
  const here = managers(url)
  const there = managers({ engine: await Engine.connect(url) })
  for (let round = 0; round < 100; round++) {
    const id = `s${round}`
    await there.info.setLogLevel(id, 'info')
    for (let n = 0; n < 5; n++) await there.streams.send([id], frame(n))
    const { reader } = openStream(here.streams, id)
    const sent = []
    for (let n = 5; n < 25; n++) sent.push(there.streams.send([id], frame(n)))
    assert.deepEqual(
      await new Frames(reader).data(25),
      Array.from({ length: 25 }, (_, n) => n),
    )
    await Promise.all(sent)
  }
  await close(here)
  await close(there)
})

test('a client that is gone before its stream is open leaves no stream behind', async () => {
  const engine = await Engine.connect(place())
  const streams = new RedisStreamSessionManager(engine)
  for (let n = 0; n < 50; n++) {
    const { reader } = openStream(streams, `s${n}`)
    void reader.cancel()
  }
  await untilAsync(async () => engine.stats().streams === 0, 'no stream is left')
  assert.equal(await streams.has('s0'), false)
  await streams.close()
  await engine[Symbol.asyncDispose]()
})

test('Redis is down at construction: calls fail, and it recovers by itself', async () => {
  const port = await freePort()
  const errors = []
  const all = managers({ url: `redis://127.0.0.1:${port}`, onError: (error) => errors.push(error.code) })
  await fails('unavailable', () => all.streams.has('s1'))
  await fails('unavailable', () => all.info.getLogLevel('s1'))
  await fails('unavailable', () => all.subscriptions.send(TOOLS_CHANGED))
  await fails('unavailable', () => all.streams.ready())
  assert.equal(await all.streams.send(['s1'], 'x'), undefined)
  assert.deepEqual(await all.info.getSubscriptions('note://a'), [])
  assert.deepEqual([...new Set(errors)], ['unavailable'])
  const late = await startRedis({ port })
  await untilAsync(
    () =>
      all.streams.ready().then(
        () => true,
        () => false,
      ),
    'it is there',
  )
  const reader = await opened(all.streams, 's1')
  await all.streams.send(['s1'], frame('hello'))
  assert.deepEqual(await new Frames(reader).data(1), ['hello'])
  await close(all)
  await late.stop()
})

test('with nobody awaiting anything, a Redis that is down ends no process, and holds none up', async () => {
  const port = await freePort()
  const source = `
    import { RedisInfoSessionManager, RedisStreamSessionManager, RedisSubscriptionManager } from 'mcp-sessions/tmcp'
    const url = 'redis://127.0.0.1:${port}'
    const streams = new RedisStreamSessionManager(url)
    const info = new RedisInfoSessionManager(url)
    const subscriptions = new RedisSubscriptionManager(url)
    streams.ready(); streams.has('s1'); streams.send(['s1'], 'm'); streams.send(undefined, 'm'); streams.delete('s1')
    info.setLogLevel('s1', 'info'); info.setClientInfo('s1', {}); info.addSubscription('s1', 'u:1'); info.delete('s1')
    info.getLogLevel('s1'); info.getSubscriptions('u:1')
    subscriptions.send(${JSON.stringify(TOOLS_CHANGED)}); subscriptions.closeAll()
    new ReadableStream({ async start(controller) { await streams.create('s1', controller) } })
    console.log('made')`
  const { out, err } = await childEnds(source)
  assert.equal(out, 'made\n')
  const lines = err.trim().split('\n')
  assert.ok(lines.length >= 10, err)
  for (const line of lines) assert.match(line, /^\[mcp-sessions\] \S+ failed \(unavailable\): \S/)
})

test('the server dies and comes back: the process lives, and its streams go on', async () => {
  const own = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'always'] })
  const errors = []
  const all = managers({ url: own.url, operationTimeoutMs: 2_000, onError: (error) => errors.push(error.code) })
  const frames = new Frames(await opened(all.streams, 's1'))
  await all.streams.send(['s1'], frame('before'))
  assert.deepEqual(await frames.data(1), ['before'])
  await own.kill()
  all.info.setLogLevel('s1', 'info')
  all.info.addSubscription('s1', 'u:1')
  await all.streams.send(['s1'], frame('meanwhile'))
  all.subscriptions.send(TOOLS_CHANGED)
  await until(() => errors.length >= 4)
  assert.ok(
    errors.every((code) => code === 'unavailable' || code === 'timeout'),
    errors.join(),
  )
  await own.restart()
  await untilAsync(() => all.streams.has('s1').catch(() => false), 'the stream is held')
  await all.streams.send(['s1'], frame('after'))
  const got = await frames.data(1)
  // Whether what failed happened is not known; what was accepted comes.
  assert.ok(got[0] === 'after' || (got[0] === 'meanwhile' && (await frames.data(1))[0] === 'after'))
  await close(all)
  await own.stop()
})

test('what is sent in one turn leaves together, in order, and one that is refused keeps nothing from it', async () => {
  const url = place()
  const failures = []
  const here = managers({ url, onError: (error) => failures.push(error.code) })
  const there = managers({ url, queue: { events: 2_048 } })
  const readers = await Promise.all(['s1', 's2'].map((id) => opened(there.streams, id)))
  const notified = []
  await there.subscriptions.create(
    { id: 1, origin: 'test', filters: { toolsListChanged: true } },
    { acknowledge() {}, send: ({ params }) => void notified.push(params.n), close() {} },
  )
  const sent = []
  for (let n = 0; n < 200; n++) {
    if (n === 100) sent.push(here.streams.send(['not a session id'], frame(n)))
    if (n % 3 === 0) sent.push(here.streams.send(undefined, frame(n)))
    else if (n % 3 === 1) sent.push(here.streams.send(['s1', 's2'], frame(n)))
    else for (const id of ['s1', 's2']) sent.push(here.streams.send([id], frame(n)))
    if (n % 20 === 0) sent.push(here.subscriptions.send({ ...TOOLS_CHANGED, params: { n } }))
  }
  await Promise.all(sent)
  const all = Array.from({ length: 200 }, (_, n) => n)
  for (const reader of readers) assert.deepEqual(await new Frames(reader).data(200), all)
  await until(() => notified.length === 10)
  assert.deepEqual(
    notified,
    all.filter((n) => n % 20 === 0),
  )
  assert.deepEqual(failures, ['invalid_input'])
  await close(here)
  await close(there)
})
