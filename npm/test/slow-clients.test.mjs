import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Engine } from 'mcp-sessions'
import { InMemoryStreamSessionManager } from 'mcp-sessions/tmcp'
import { Frames, frame, openStream, turn } from './helpers.mjs'

const KB = 'x'.repeat(1024)
const MB = 1024 * 1024

// A server has its sockets: what looks at slow clients does not keep a process alive by itself.
let alive
before(() => {
  alive = setInterval(() => {}, 1_000)
})
after(() => clearInterval(alive))

/** What waits in a controller, in chunks. */
function waiting(controller, highWaterMark = 1) {
  return highWaterMark - controller.desiredSize
}

test('a client that reads nothing is bounded, ends with overflow, and holds up nobody', async () => {
  const engine = Engine.memory()
  const manager = new InMemoryStreamSessionManager(engine)
  const stuck = openStream(manager, 'stuck')
  const well = new Frames(openStream(manager, 'well').reader)
  let most = 0
  const reading = well.data(8_000)
  for (let n = 0; n < 8_000; n++) {
    manager.send(['stuck', 'well'], frame({ n, pad: KB }))
    if (n % 10 === 0) {
      await turn()
      most = Math.max(most, waiting(stuck.controller))
    }
  }
  assert.deepEqual(
    (await reading).map(({ n }) => n),
    Array.from({ length: 8_000 }, (_, n) => n),
  )
  assert.equal(engine.stats().overflows, 1)
  assert.ok(most <= 70, `${most} chunks waited`)
  await assert.rejects(stuck.reader.read(), /overflow/)
  assert.equal(await manager.has('stuck'), false)
  assert.equal(await manager.has('well'), true)
  await engine.shutdown()
})

test('bytes are bounded, too', async () => {
  const engine = Engine.memory()
  const manager = new InMemoryStreamSessionManager(engine)
  openStream(manager, 'stuck').reader.closed.catch(() => {})
  globalThis.gc()
  const before = process.memoryUsage()
  for (let n = 0; n < 100; n++) {
    manager.send(['stuck'], frame({ n, pad: 'x'.repeat(MB) }))
    await turn()
  }
  globalThis.gc()
  const after = process.memoryUsage()
  assert.equal(engine.stats().overflows, 1)
  assert.ok(
    after.arrayBuffers - before.arrayBuffers < 16 * MB,
    `${(after.arrayBuffers - before.arrayBuffers) / MB} MiB of buffers`,
  )
  await engine.shutdown()
})

test('a slow client that reads gets everything, in order', async () => {
  const engine = Engine.memory()
  const manager = new InMemoryStreamSessionManager(engine)
  const frames = new Frames(openStream(manager, 's1').reader)
  const total = 3_000
  const sending = (async () => {
    for (let n = 0; n < total; n++) {
      manager.send(['s1'], frame({ n, pad: KB }))
      if (n % 20 === 0) await turn()
      // The queue holds a thousand: the sender is about as far ahead as that.
      if (n % 500 === 499) await new Promise((resolve) => setTimeout(resolve, 30))
    }
  })()
  for (let n = 0; n < total; n++) {
    assert.equal(JSON.parse((await frames.next()).data).n, n)
    if (n % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
  }
  await sending
  assert.equal(engine.stats().overflows, 0)
  await engine.shutdown()
})

test('a paused stream goes on once it is read, without another send', async () => {
  const engine = Engine.memory()
  const manager = new InMemoryStreamSessionManager(engine)
  const { reader, controller } = openStream(manager, 's1')
  const total = 900
  for (let n = 0; n < total; n++) {
    manager.send(['s1'], frame({ n, pad: KB }))
    await turn()
  }
  assert.ok(waiting(controller) <= 66, `${waiting(controller)} chunks wait`)
  assert.deepEqual(
    (await new Frames(reader).data(total)).map(({ n }) => n),
    Array.from({ length: total }, (_, n) => n),
  )
  assert.equal(engine.stats().overflows, 0)
  await engine.shutdown()
})

test("a burst of one turn is not a slow client's fault", async () => {
  const engine = Engine.memory({ queue: { events: 16 } })
  const manager = new InMemoryStreamSessionManager(engine)
  const { reader } = openStream(manager, 's1')
  for (let n = 0; n < 500; n++) manager.send(['s1'], frame(n))
  assert.deepEqual(
    await new Frames(reader).data(500),
    Array.from({ length: 500 }, (_, n) => n),
  )
  assert.equal(engine.stats().overflows, 0)
  await engine.shutdown()
})

for (const [name, strategy, most] of [
  ['that counts chunks', new CountQueuingStrategy({ highWaterMark: 10 }), 10 + 66],
  ['of nothing', new CountQueuingStrategy({ highWaterMark: 0 }), 66],
  ['that counts bytes', new ByteLengthQueuingStrategy({ highWaterMark: 64 * 1024 }), 64 * 1024 + 2 * MB],
]) {
  test(`a window ${name} is respected`, async () => {
    const engine = Engine.memory()
    const manager = new InMemoryStreamSessionManager(engine)
    const { reader, controller } = openStream(manager, 's1', strategy)
    for (let n = 0; n < 700; n++) {
      manager.send(['s1'], frame({ n, pad: KB }))
      await turn()
    }
    const queued = strategy.highWaterMark - controller.desiredSize
    assert.ok(queued <= most, `${queued} waited`)
    assert.deepEqual(
      (await new Frames(reader).data(700)).map(({ n }) => n),
      Array.from({ length: 700 }, (_, n) => n),
    )
    await engine.shutdown()
  })
}

test('a byte stream takes the memory of its chunks, and nobody else loses it', async () => {
  const engine = Engine.memory()
  const manager = new InMemoryStreamSessionManager(engine)
  const bytes = new ReadableStream({ type: 'bytes', start: (controller) => manager.create('bytes', controller) })
  const plain = new Frames(openStream(manager, 'plain').reader)
  const taken = new Frames(bytes.getReader())
  for (let n = 0; n < 20; n++) manager.send(undefined, frame({ n, pad: KB }))
  await turn()
  for (let n = 20; n < 40; n++) manager.send(undefined, frame({ n, pad: KB }))
  const wanted = Array.from({ length: 40 }, (_, n) => n)
  assert.deepEqual(
    (await taken.data(40)).map(({ n }) => n),
    wanted,
  )
  assert.deepEqual(
    (await plain.data(40)).map(({ n }) => n),
    wanted,
  )
  await engine.shutdown()
})

test('a stuck client keeps its own chunks in memory, not those of others', async () => {
  const engine = Engine.memory()
  const manager = new InMemoryStreamSessionManager(engine)
  const others = Array.from({ length: 200 }, (_, n) => openStream(manager, `s${n}`))
  const stuck = Array.from({ length: 20 }, (_, n) => openStream(manager, `stuck${n}`))
  globalThis.gc()
  const before = process.memoryUsage().arrayBuffers
  for (let n = 0; n < 50; n++) {
    const reads = others.map(({ reader }) => reader.read())
    manager.send(undefined, frame({ n, pad: KB }))
    await Promise.all(reads)
    await turn()
  }
  globalThis.gc()
  const kept = process.memoryUsage().arrayBuffers - before
  // Twenty clients times fifty chunks of a kilobyte, and a slab each for the first one.
  assert.ok(kept < 3 * MB, `${kept / MB} MiB are kept`)
  assert.ok(stuck.every(({ controller }) => waiting(controller) === 50))
  await engine.shutdown()
})
