import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as tmcp from '@tmcp/session-manager'
import { Engine } from 'mcp-sessions'
import { InMemoryInfoSessionManager, InMemoryStreamSessionManager } from 'mcp-sessions/tmcp'
import { Frames, frame, hub, openStream, turn, until } from './helpers.mjs'

// What a server sees of tmcp's own class, it sees of ours.
for (const [whose, Manager] of Object.entries({
  tmcp: tmcp.InMemoryStreamSessionManager,
  ours: InMemoryStreamSessionManager,
})) {
  test(`${whose}: create and send in one turn deliver, in order, before anything is read`, async () => {
    const manager = new Manager()
    const { reader } = openStream(manager, 's1')
    for (let n = 0; n < 100; n++) manager.send(['s1'], frame(n))
    assert.deepEqual(
      await new Frames(reader).data(100),
      Array.from({ length: 100 }, (_, n) => n),
    )
    manager.delete('s1')
  })

  test(`${whose}: a send goes to all, to a list, or to one`, async () => {
    const manager = new Manager()
    const [a, b, c] = ['a', 'b', 'c'].map((id) => openStream(manager, id)).map(({ reader }) => new Frames(reader))
    manager.send(undefined, frame('all'))
    manager.send(['a', 'b'], frame('two'))
    manager.send(['c'], frame('one'))
    manager.send([], frame('none'))
    manager.send(['nobody'], frame('nobody'))
    manager.send(undefined, frame('last'))
    assert.deepEqual(await a.data(3), ['all', 'two', 'last'])
    assert.deepEqual(await b.data(3), ['all', 'two', 'last'])
    assert.deepEqual(await c.data(3), ['all', 'one', 'last'])
    for (const id of ['a', 'b', 'c']) manager.delete(id)
  })

  test(`${whose}: delete closes the stream once what was sent is read`, async () => {
    const manager = new Manager()
    const { reader } = openStream(manager, 's1')
    manager.send(['s1'], frame('last words'))
    assert.equal(await manager.has('s1'), true)
    manager.delete('s1')
    assert.equal(await manager.has('s1'), false)
    const frames = new Frames(reader)
    assert.deepEqual(await frames.data(1), ['last words'])
    assert.equal(await frames.next(), undefined)
    manager.delete('s1')
    manager.delete('never there')
  })

  test(`${whose}: a controller that was closed or went wrong is forgotten at the next send`, async () => {
    const manager = new Manager()
    const closed = openStream(manager, 'closed')
    const failed = openStream(manager, 'failed')
    const fine = openStream(manager, 'fine')
    closed.controller.close()
    failed.controller.error(new Error('gone'))
    failed.reader.closed.catch(() => {})
    manager.send(undefined, frame('m'))
    await turn()
    assert.deepEqual(await Promise.all(['closed', 'failed', 'fine'].map((id) => manager.has(id))), [false, false, true])
    assert.deepEqual(await new Frames(fine.reader).data(1), ['m'])
    manager.delete('fine')
  })

  test(`${whose}: has, create, delete and send work without await, in any turn`, async () => {
    const manager = new Manager()
    const { reader } = openStream(manager, 's1')
    assert.equal(await manager.has('s1'), true)
    await turn()
    manager.send(['s1'], frame(1))
    await turn()
    manager.send(['s1'], frame(2))
    assert.deepEqual(await new Frames(reader).data(2), [1, 2])
    manager.delete('s1')
    assert.equal(await manager.has('s1'), false)
  })

  test(`${whose}: managers made apart stay apart`, async () => {
    const [one, two] = [new Manager(), new Manager()]
    const { reader } = openStream(one, 's1')
    two.send(undefined, frame('elsewhere'))
    assert.equal(await two.has('s1'), false)
    one.send(undefined, frame('here'))
    assert.deepEqual(await new Frames(reader).data(1), ['here'])
    one.delete('s1')
  })
}

test('frames carry the cursor, other payloads are left as they are', async () => {
  const manager = new InMemoryStreamSessionManager()
  const { reader } = openStream(manager, 's1')
  manager.send(['s1'], frame('a'))
  const { value } = await reader.read()
  assert.match(Buffer.from(value).toString(), /^id: [\w-]{1,64}\nevent: message\ndata: "a"\n\n$/)
  for (const payload of ['plain', 'id: mine\ndata: x\n\n', ': comment\n\n', 'data: a\n\ndata: b\n\n']) {
    await turn()
    manager.send(['s1'], payload)
    assert.equal(Buffer.from((await reader.read()).value).toString(), payload)
  }
  manager.delete('s1')
  const without = new InMemoryStreamSessionManager({ frameIds: false })
  const { reader: plain } = openStream(without, 's1')
  without.send(['s1'], frame('a'))
  assert.equal(Buffer.from((await plain.read()).value).toString(), frame('a'))
  without.delete('s1')
})

test('nodes of one hub reach each other, and a stream that moves takes what it missed along', async () => {
  const url = hub('nodes')
  const [nodeA, nodeB] = [await Engine.connect(url), await Engine.connect(url)]
  const [a, b] = [nodeA, nodeB].map((engine) => new InMemoryStreamSessionManager({ engine }))
  const first = openStream(a, 's1')
  const frames = new Frames(first.reader)
  b.send(['s1'], frame(1))
  b.send(undefined, frame(2))
  assert.deepEqual(await frames.data(2), [1, 2])
  assert.deepEqual([await a.has('s1'), await b.has('s1')], [true, true])
  a.delete('s1')
  assert.deepEqual([await a.has('s1'), await b.has('s1')], [false, false])
  a.send(['s1'], frame(3))
  b.send(undefined, frame(4))
  const second = openStream(b, 's1')
  assert.deepEqual(await new Frames(second.reader).data(2), [3, 4])
  a.delete('s1')
  assert.equal((await second.reader.read()).done, true, 'a node can end a stream that another holds')
  await nodeA.shutdown()
  await nodeB.shutdown()
})

test('an early event waits for the first stream of a known session, and is dropped for an unknown one', async () => {
  const streams = new InMemoryStreamSessionManager()
  const info = new InMemoryInfoSessionManager()
  info.setClientInfo('known', { name: 'x', version: '1' })
  streams.send(['known', 'unknown'], frame('early'))
  streams.send(undefined, frame('to all'))
  const known = new Frames(openStream(streams, 'known').reader)
  const unknown = new Frames(openStream(streams, 'unknown').reader)
  streams.send(undefined, frame('late'))
  assert.deepEqual(await known.data(3), ['early', 'to all', 'late'])
  assert.deepEqual(await unknown.data(1), ['late'])
  await streams.close()
  await info.close()
})

test('a replaced stream delivers nothing more, and its late cancel does not end the new one', async () => {
  const url = hub('replaced')
  const [nodeA, nodeB] = [await Engine.connect(url), await Engine.connect(url)]
  const [a, b] = [nodeA, nodeB].map((engine) => new InMemoryStreamSessionManager({ engine }))
  const drained = openStream(a, 'drained')
  const stale = openStream(a, 'stale')
  const first = drained.reader.read()
  a.send(undefined, frame('old'))
  await first
  const newer = ['drained', 'stale'].map((id) => openStream(b, id))
  assert.equal((await drained.reader.read()).done, true, 'an empty one is closed')
  await assert.rejects(stale.reader.read(), /replaced/, 'one with a chunk that waits does not deliver it')
  await drained.reader.cancel()
  await stale.reader.cancel().catch(() => {})
  await turn()
  assert.deepEqual([await b.has('drained'), await b.has('stale')], [true, true])
  a.send(undefined, frame('new'))
  assert.deepEqual(await new Frames(newer[0].reader).data(1), ['new'])
  await nodeA.shutdown()
  await nodeB.shutdown()
})

test('a second create of a session takes over on the same node', async () => {
  const manager = new InMemoryStreamSessionManager()
  const old = openStream(manager, 's1')
  const pending = old.reader.read()
  const newer = openStream(manager, 's1')
  assert.equal((await pending).done, true)
  manager.send(['s1'], frame('m'))
  assert.deepEqual(await new Frames(newer.reader).data(1), ['m'])
  await old.reader.cancel()
  assert.equal(await manager.has('s1'), true)
  await manager.close()
})

test('a shutdown closes the streams', async () => {
  const engine = Engine.memory()
  const manager = new InMemoryStreamSessionManager(engine)
  const { reader } = openStream(manager, 's1')
  await engine.shutdown()
  assert.equal((await reader.read()).done, true)
  assert.equal(engine.stats().streams, 0)
})

test('many sends of one turn cross together, and arrive whole and in order', async () => {
  const manager = new InMemoryStreamSessionManager()
  const ids = Array.from({ length: 50 }, (_, n) => `s${n}`)
  const readers = ids.map((id) => new Frames(openStream(manager, id).reader))
  const total = 20_000
  for (let n = 0; n < total; n++) {
    if (n % 997 === 0) manager.send(undefined, frame({ n, all: true }))
    else manager.send([ids[n % 50]], frame({ n, pad: 'é'.repeat(n % 50) }))
  }
  await Promise.all(
    readers.map(async (frames, at) => {
      const wanted = Array.from({ length: total }, (_, n) => n).filter((n) => n % 997 === 0 || n % 50 === at)
      assert.deepEqual(
        (await frames.data(wanted.length)).map(({ n }) => n),
        wanted,
      )
    }),
  )
  await manager.close()
})

test('a controller that calls back into the manager while it is being served', async () => {
  const manager = new InMemoryStreamSessionManager()
  const got = []
  let depth = 0
  const controller = (id) => ({
    desiredSize: 1,
    enqueue(chunk) {
      got.push([
        id,
        Buffer.from(chunk)
          .toString()
          .match(/data: (.*)/)[1],
      ])
      if (depth++ < 20) {
        manager.send(['b'], frame(`from ${id} ${depth}`))
        void manager.has('a')
        manager.create(`c${depth}`, controller(`c${depth}`))
      }
    },
    close() {},
    error() {},
  })
  manager.create('a', controller('a'))
  manager.create('b', controller('b'))
  manager.send(['a'], frame('first'))
  await until(() => got.length === 21)
  assert.deepEqual(got.slice(0, 3), [
    ['a', '"first"'],
    ['b', '"from a 1"'],
    ['b', '"from b 2"'],
  ])
  await manager.close()
})

test('a reader that cancels without a delete is forgotten at the next send, and nobody is told of an error', async () => {
  const errors = []
  const manager = new InMemoryStreamSessionManager({ onError: (error) => errors.push(error) })
  const gone = new ReadableStream({ start: (controller) => manager.create('gone', controller) })
  const { reader } = openStream(manager, 'here')
  await gone.cancel()
  manager.send(undefined, frame('m'))
  assert.deepEqual(await new Frames(reader).data(1), ['m'])
  assert.deepEqual([await manager.has('gone'), await manager.has('here')], [false, true])
  assert.deepEqual(errors, [])
  manager.delete('here')
})
