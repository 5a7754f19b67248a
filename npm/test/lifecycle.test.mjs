// Engines: several, in workers, collected, exiting, disposed.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { Engine } from 'mcp-sessions'
import { InMemoryInfoSessionManager, InMemoryStreamSessionManager } from 'mcp-sessions/tmcp'
import { childEnds, collectUntil, controlled, frameOf, packageFolder, SseReader, within } from './support.mjs'

/** A worker that runs an ES module to its end; resolves with its messages. */
function inWorker(source, workerData) {
  const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`)
  return new Promise((resolve, reject) => {
    const messages = []
    const worker = new Worker(url, { workerData })
    worker.on('message', (message) => messages.push(message))
    worker.on('error', reject)
    worker.on('exit', (code) => (code === 0 ? resolve(messages) : reject(new Error(`the worker ended with ${code}`))))
  })
}

const ENTRY = JSON.stringify(new URL(`file://${packageFolder}/dist/index.mjs`).href)

test('engines of one process are nodes of their own, on hubs of their own', async () => {
  const engines = await Promise.all(Array.from({ length: 20 }, (_, n) => Engine.connect(`memory://many-${n % 4}`)))
  assert.equal(new Set(engines.map((engine) => engine.nodeId)).size, 20)
  const streams = await Promise.all(engines.map((engine, n) => engine.streams.open(`s${n}`)))
  const receipt = await engines[0].streams.send(undefined, 'to the first hub')
  assert.equal(receipt.accepted, 1)
  for (let n = 0; n < 20; n += 4) assert.equal((await within(streams[n].next())).payload, 'to the first hub')
  for (let n = 1; n < 4; n++) {
    await engines[n].streams.send(`s${n}`, 'directed')
    assert.equal((await within(streams[n].next())).payload, 'directed', 'nothing of another hub came first')
  }
  await Promise.all(engines.map((engine) => engine.shutdown()))
})

test('worker threads have engines, on a hub of the process, and end by themselves', async () => {
  const url = 'memory://workers'
  const engine = await Engine.connect(url)
  const stream = await engine.streams.open('s1')
  const source = `
    import { parentPort, workerData } from 'node:worker_threads'
    import { Engine } from ${ENTRY}
    const engine = await Engine.connect(workerData.url)
    const own = await engine.streams.open(workerData.id)
    await engine.streams.send(workerData.id, 'to myself')
    parentPort.postMessage({ own: (await own.next()).payload, node: engine.nodeId })
    parentPort.postMessage({ receipt: await engine.streams.send('s1', 'from ' + workerData.id) })
    if (workerData.id !== 'w0') await engine.shutdown()
  `
  const said = await within(Promise.all(['w0', 'w1', 'w2'].map((id) => inWorker(source, { url, id }))), 'the workers')
  const nodes = said.map(([first, second]) => {
    assert.equal(first.own, 'to myself')
    assert.equal(second.receipt.accepted, 1)
    return first.node
  })
  assert.equal(new Set([...nodes, engine.nodeId]).size, 4)
  const got = [await stream.next(), await stream.next(), await stream.next()].map((event) => event.payload)
  assert.deepEqual(got.sort(), ['from w0', 'from w1', 'from w2'])
  await engine.shutdown()
})

test('a worker that is terminated in the middle of its work takes nothing with it', async () => {
  const engine = await Engine.connect('memory://terminated')
  const source = `
    import { parentPort } from 'node:worker_threads'
    import { Engine } from ${ENTRY}
    const engine = await Engine.connect('memory://terminated')
    const stream = await engine.streams.open('s1')
    parentPort.postMessage('open')
    for await (const event of stream);
  `
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`))
  await within(new Promise((resolve) => worker.once('message', resolve)))
  const flood = Array.from({ length: 50 }, (_, n) => engine.streams.send('s1', `event ${n}`))
  await worker.terminate()
  await within(Promise.all(flood))
  const stream = await engine.streams.open('s2')
  await engine.streams.send('s2', 'still here')
  assert.equal((await within(stream.next())).payload, 'still here')
  // The session of the dead worker is taken over like any other.
  const taken = await within(engine.streams.open('s1'))
  await engine.streams.send('s1', 'last')
  let event = await within(taken.next())
  while (event.payload !== 'last') event = await within(taken.next())
  await engine.shutdown()
})

test('a process ends by itself, whatever is open', async () => {
  const { out } = await childEnds(`
    import { Engine } from 'mcp-sessions'
    import { InMemoryInfoSessionManager, InMemoryStreamSessionManager, InMemorySubscriptionManager } from 'mcp-sessions/tmcp'
    const engine = await Engine.connect('memory://open')
    const stream = await engine.streams.open('s1')
    // A reader that waits for ever, an end that never comes, a controller, a subscription, a paused stream.
    stream.next()
    stream.ended
    await engine.subscriptions.create({ id: 1, origin: 'o', filters: { toolsListChanged: true } }, { acknowledge() {}, send() {}, close() {} })
    const streams = new InMemoryStreamSessionManager()
    const info = new InMemoryInfoSessionManager()
    const body = new ReadableStream({ start: (controller) => streams.create('s1', controller) })
    for (let n = 0; n < 200; n++) streams.send(['s1'], 'data: x\\n\\n')
    info.setLogLevel('s1', 'debug')
    globalThis.kept = { engine, stream, streams, info, body }
    console.log('done')
  `)
  assert.equal(out, 'done\n')
})

test('a call under way is answered before the process ends', async () => {
  const { out } = await childEnds(`
    import { Engine } from 'mcp-sessions'
    const engine = Engine.memory()
    await engine.streams.open('s1')
    engine.streams.send('s1', 'x').then((receipt) => console.log(receipt.accepted))
    engine.shutdown().then(() => console.log('shut down'))
  `)
  assert.deepEqual(out.trim().split('\n').sort(), ['1', 'shut down'])
})

test('Symbol.asyncDispose shuts engines down, and gives streams and managers back', async () => {
  const url = 'memory://disposed'
  const witness = await Engine.connect(url)
  const engine = await Engine.connect(url)
  const stream = await engine.streams.open('s1')
  const other = await engine.streams.open('s2')
  await stream[Symbol.asyncDispose]()
  assert.equal(stream.end, 'closed')
  assert.equal(await witness.streams.has('s1'), false)
  await engine[Symbol.asyncDispose]()
  assert.equal(await within(other.ended), 'shutdown')
  assert.equal(await witness.streams.has('s2'), false)
  const streams = new InMemoryStreamSessionManager(url)
  const { body, controller } = controlled()
  await streams.create('s3', controller)
  await streams[Symbol.asyncDispose]()
  assert.equal(await new SseReader(body).frame(), undefined)
  assert.equal(await witness.streams.has('s3'), false)
  await witness.shutdown()
})

test('leaving a for-await loop closes the stream', async () => {
  const engine = Engine.memory()
  const stream = await engine.streams.open('s1')
  await engine.streams.send('s1', 'one')
  for await (const event of stream) {
    assert.equal(event.payload, 'one')
    break
  }
  assert.equal(stream.end, 'closed')
  assert.equal(await engine.streams.has('s1'), false)
  await engine.shutdown()
})

test('engines that nobody refers to are collected, with what they held', async () => {
  const url = 'memory://collected'
  const witness = await Engine.connect(url)
  const refs = []
  await (async () => {
    for (let n = 0; n < 5; n++) {
      const engine = await Engine.connect(url)
      const stream = await engine.streams.open(`s${n}`)
      await engine.streams.send(`s${n}`, 'unread')
      await engine.info.setLogLevel(`s${n}`, 'debug')
      refs.push(new WeakRef(engine), new WeakRef(stream))
    }
  })()
  await collectUntil(() => refs.every((ref) => ref.deref() === undefined), 'an engine')
  await collectUntil(async () => {
    for (let n = 0; n < 5; n++) if (await witness.streams.has(`s${n}`)) return false
    return true
  }, 'the stream of a collected engine')
  await witness.shutdown()
})

test('an engine that refused a subscription is collected like any other', async () => {
  let ref
  await (async () => {
    const engine = Engine.memory()
    const callbacks = { acknowledge() {}, send() {}, close() {} }
    for (const filters of [null, { resourceSubscriptions: 7 }]) {
      await assert.rejects(engine.subscriptions.create({ id: 1, origin: 'o', filters }, callbacks), {
        code: 'invalid_input',
      })
    }
    ref = new WeakRef(engine.streams)
  })()
  await collectUntil(() => ref.deref() === undefined, 'the engine')
})

test('a stream that nobody refers to is closed; one that is waited for is not', async () => {
  const engine = Engine.memory()
  await (async () => {
    await engine.streams.open('left')
  })()
  const waiting = (async () => (await engine.streams.open('awaited')).next())()
  await collectUntil(async () => !(await engine.streams.has('left')), 'the stream')
  assert.equal(await engine.streams.has('awaited'), true)
  await engine.streams.send('awaited', 'x')
  assert.equal((await within(waiting)).payload, 'x')
  await engine.shutdown()
})

test('managers that nobody refers to let go of their engine; open controllers keep theirs', async () => {
  const url = 'memory://managers-collected'
  const witness = await Engine.connect(url)
  const { body, controller } = controlled()
  const refs = []
  await (async () => {
    const streams = new InMemoryStreamSessionManager({ engine: await Engine.connect(url) })
    await streams.create('held', controller)
    const info = new InMemoryInfoSessionManager()
    info.setLogLevel('s1', 'debug')
    refs.push(new WeakRef(info))
  })()
  await collectUntil(() => refs.every((ref) => ref.deref() === undefined), 'a manager')
  assert.equal(await witness.streams.has('held'), true)
  await witness.streams.send('held', frameOf({ n: 1 }))
  assert.equal((await new SseReader(body).event()).data, '{"n":1}')
  await witness.shutdown()
})
