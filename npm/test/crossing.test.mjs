// The shortest way from a send to a stream of the same thread, and what may cross it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { InMemoryStreamSessionManager, InMemorySubscriptionManager } from 'mcp-sessions/tmcp'
import { Frames, frame, hub, openStream } from './helpers.mjs'

const upTo = (count) => Array.from({ length: count }, (_, n) => n)

test('a send from inside a delivery comes behind what was sent before it', async () => {
  const url = hub('inside')
  const [streams, subscriptions] = [new InMemoryStreamSessionManager(url), new InMemorySubscriptionManager(url)]
  const { reader } = openStream(streams, 's1')
  let n = 1
  await subscriptions.create(
    { id: 1, origin: 'test', filters: { toolsListChanged: true } },
    {
      acknowledge() {},
      send() {
        for (let more = 0; more < 3; more++) streams.send(['s1'], frame(n++))
        streams.send(undefined, frame(n++))
      },
      close() {},
    },
  )
  streams.send(['s1'], frame(0))
  const sent = upTo(20).map(() => subscriptions.send({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' }))
  await Promise.all(sent)
  assert.deepEqual(await new Frames(reader).data(81), upTo(81))
  await streams.close()
  await subscriptions[Symbol.asyncDispose]()
})

test('a stream whose pull sends gets everything in the order it was sent', async () => {
  const manager = new InMemoryStreamSessionManager()
  let n = 0
  const streams = ['a', 'b'].map((id) => {
    const stream = new ReadableStream(
      {
        start: (controller) => manager.create(id, controller),
        // Called from inside the very delivery that filled it, and from reads.
        pull() {
          if (n < 100) manager.send(undefined, frame(n++))
        },
      },
      { highWaterMark: 4 },
    )
    return new Frames(stream.getReader())
  })
  manager.send(undefined, frame(n++))
  for (const frames of streams) assert.deepEqual(await frames.data(100), upTo(100))
  await manager.close()
})

test('what is created without waiting is held once anybody who waits goes on', async () => {
  const url = hub('created')
  const [here, there] = [
    new InMemoryStreamSessionManager(url),
    new InMemoryStreamSessionManager({ url, queue: { events: 512 } }),
  ]
  const ids = upTo(50).map((n) => `s${n}`)
  const readers = ids.map((id) => openStream(here, id).reader)
  await undefined
  assert.deepEqual(await Promise.all(ids.map((id) => there.has(id))), Array(50).fill(true))
  there.send(undefined, frame('there'))
  for (const reader of readers) assert.deepEqual(await new Frames(reader).data(1), ['there'])
  await here.close()
  await there.close()
})

test('threads that send to one stream each keep their order, and chunks stay as they were', async () => {
  const url = hub('threads')
  const manager = new InMemoryStreamSessionManager(url)
  const { reader } = openStream(manager, 's1')
  const source = `
    const { workerData } = require('node:worker_threads')
    const { InMemoryStreamSessionManager } = require('mcp-sessions/tmcp')
    const { url, who } = workerData
    const manager = new InMemoryStreamSessionManager(url)
    ;(async () => {
      for (let n = 0; n < 100; n++) {
        manager.send(['s1'], 'data: ' + JSON.stringify([who, n]) + '\\n\\n')
        if (n % 7 === 0) await new Promise(setImmediate)
      }
      await manager.close()
    })()`
  const workers = upTo(3).map((who) => new Worker(source, { eval: true, workerData: { url, who } }))
  const ended = workers.map((worker) => once(worker, 'exit'))
  for (let n = 0; n < 100; n++) manager.send(['s1'], frame([3, n]))
  // Chunks share memory with their neighbours: they are looked at when all have come.
  const chunks = []
  let count = 0
  while (count < 400) {
    const { value } = await reader.read()
    chunks.push(value)
    count += Buffer.from(value).toString().split('data: ').length - 1
  }
  await Promise.all(ended)
  const got = [[], [], [], []]
  const events = Buffer.concat(chunks)
    .toString()
    .matchAll(/^data: (.*)$/gm)
  for (const [, data] of events) {
    const [who, n] = JSON.parse(data)
    got[who].push(n)
  }
  for (const one of got) assert.deepEqual(one, upTo(100))
  await manager.close()
})
