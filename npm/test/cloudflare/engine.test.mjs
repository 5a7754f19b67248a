// A Node process at the gateway of a real workerd: it restarts, its connections are cut, or go silent.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { after, before, test } from 'node:test'
import { Engine } from 'mcp-sessions'
import { startWorkerd } from '../../../tests/support/servers.mjs'
import { fails, within } from '../support.mjs'

const PATIENCE_MS = 60_000
let server
let prefixes = 0
// Waiting for an event does not keep a process alive: these tests need one that is.
let alive
before(async () => {
  alive = setInterval(() => {}, 1_000)
  server = await startWorkerd()
})
after(async () => {
  clearInterval(alive)
  await server.stop()
})

/** A place nobody else uses. */
const place = () => `${server.url}&prefix=t${prefixes++}:`

async function eventually(check, what) {
  for (const deadline = Date.now() + PATIENCE_MS; !(await check()); ) {
    assert.ok(Date.now() < deadline, `in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const next = async (stream) => (await within(stream.next(), 'an event', PATIENCE_MS)).payload

/** Sends until it is accepted; its key sees to it that it is accepted once. */
async function insist(engine, id, payload) {
  const idempotencyKey = `key-${payload}`
  await eventually(
    () =>
      engine.streams.send(id, payload, { idempotencyKey }).then(
        ({ accepted, duplicates }) => accepted + duplicates === 1,
        () => false,
      ),
    `${payload} is accepted`,
  )
}

/** A way to the server that can be cut, or made to swallow what is sent. */
async function route() {
  const pairs = new Set()
  const listener = createServer((client) => {
    const upstream = connect(server.port, '127.0.0.1')
    const pair = { client, upstream }
    pairs.add(pair)
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ]) {
      one.on('error', () => {})
      one.on('close', () => {
        pairs.delete(pair)
        other.destroy()
      })
      one.on('data', (data) => pair.silent || other.write(data))
    }
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const through = (url) => url.replace(`:${server.port}`, `:${listener.address().port}`)
  return {
    through,
    cut() {
      for (const { client } of pairs) client.destroy()
    },
    silence: () => {
      for (const pair of pairs) pair.silent = true
    },
    close() {
      this.cut()
      listener.close()
    },
  }
}

test('who does not know the secret is refused, and not told', async () => {
  const error = await fails('unauthorized', () => Engine.connect(server.url.replace('correct-horse', 'guess')))
  assert.ok(!error.message.includes('guess'))
})

test('streams of two nodes outlive a restart of workerd, and nothing is lost or doubled', async () => {
  const url = place()
  const [a, b] = [await Engine.connect(url), await Engine.connect(url)]
  const stream = await a.streams.open('s1')
  await b.streams.send('s1', '0')
  for (let round = 1; round < 4; round++) {
    await server.kill()
    await server.restart()
    await insist(b, 's1', String(round))
  }
  for (let round = 0; round < 4; round++) assert.equal(await next(stream), String(round))
  assert.equal(stream.end, undefined)
  await Promise.all([a[Symbol.asyncDispose](), b[Symbol.asyncDispose]()])
})

for (const how of ['cut', 'silence']) {
  test(`a connection that is lost (${how}) comes back with what was missed`, async () => {
    const url = place()
    const way = await route()
    const a = await Engine.connect(way.through(url), { lease: { ttlMs: 2_000, renewMs: 400 } })
    const b = await Engine.connect(url)
    const stream = await a.streams.open('s1')
    await b.streams.send('s1', 'before')
    assert.equal(await next(stream), 'before')
    way[how]()
    await insist(b, 's1', 'meanwhile')
    await insist(b, undefined, 'to all')
    assert.equal(await next(stream), 'meanwhile')
    assert.equal(await next(stream), 'to all')
    await insist(a, 's1', 'after')
    assert.equal(await next(stream), 'after')
    assert.equal(stream.end, undefined)
    await Promise.all([a[Symbol.asyncDispose](), b[Symbol.asyncDispose]()])
    way.close()
  })
}
