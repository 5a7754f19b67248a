import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { Engine } from 'mcp-sessions'
import {
  InMemoryInfoSessionManager,
  InMemoryStreamSessionManager,
  InMemorySubscriptionManager,
} from 'mcp-sessions/tmcp'
import { native } from '../dist/native.js'
import { collected, frame, hub, openStream, run, until } from './helpers.mjs'

// Waiting for an event does not keep a process alive: these tests need one that is.
let alive
before(() => {
  alive = setInterval(() => {}, 1_000)
})
after(() => clearInterval(alive))

const ours = "import { Engine } from 'mcp-sessions'; import * as tmcp from 'mcp-sessions/tmcp';"

test('a process with open streams, readers that wait and a paused stream exits by itself', async () => {
  const { code, stdout, stderr, ms } = await run(`${ours}
    const engine = await Engine.connect('memory://exit')
    const stream = await engine.streams.open('s1')
    stream.next()
    const subscription = await engine.subscriptions.listen({ id: 1, origin: 'o', filters: {} })
    subscription.next()
    const manager = new tmcp.InMemoryStreamSessionManager('memory://exit')
    const body = new ReadableStream({ start: (controller) => manager.create('s2', controller) })
    for (let n = 0; n < 200; n++) { manager.send(['s2'], 'm'); await new Promise(setImmediate) }
    new tmcp.InMemoryInfoSessionManager('memory://exit').setLogLevel('s3', 'info')
    new tmcp.InMemorySubscriptionManager()
    console.log('done')`)
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: 'done\n', stderr: '' })
  assert.ok(ms < 5_000, `${ms} ms`)
})

test('rejections that nobody awaits are logged, a line each, and do not end the process', async () => {
  const { code, stdout, stderr } = await run(`${ours}
    const streams = new tmcp.InMemoryStreamSessionManager()
    const info = new tmcp.InMemoryInfoSessionManager()
    const subscriptions = new tmcp.InMemorySubscriptionManager()
    info.setClientInfo('s1', { f: () => {} })
    info.setLogLevel('s1', 'loud')
    info.addSubscription('a b', 'u')
    info.getClientInfo('nobody')
    streams.send(['a b'], 'm')
    streams.send(undefined, '\\ud800')
    streams.has('a b')
    subscriptions.send({})
    await new Promise((resolve) => setTimeout(resolve, 50))
    console.log('alive')`)
  assert.equal(code, 0)
  assert.equal(stdout, 'alive\n')
  const lines = stderr.trim().split('\n')
  assert.equal(lines.length, 7, stderr)
  for (const line of lines) assert.match(line, /^\[mcp-sessions\] [\w.]+ failed \(invalid_input\): .+/)
})

test('an onError hook is told instead, and one that throws is survived', async () => {
  const { code, stdout, stderr } = await run(`${ours}
    const told = []
    const info = new tmcp.InMemoryInfoSessionManager({ onError: (error) => { told.push(error.code); throw new Error('from the hook') } })
    info.setLogLevel('s1', 'loud')
    info.setLogLevel('s1', 'louder')
    while (told.length < 2) await new Promise((resolve) => setImmediate(resolve))
    console.log(told.join())`)
  assert.deepEqual({ code, stdout }, { code: 0, stdout: 'invalid_input,invalid_input\n' })
  assert.equal(stderr.match(/the onError hook threw/g).length, 2)
})

test('worker threads have engines of their own, on hubs of the whole process', async () => {
  const url = hub('workers')
  const engine = await Engine.connect(url)
  const source = `
    const { parentPort, workerData } = require('node:worker_threads')
    const { Engine } = require('mcp-sessions')
    const { InMemoryInfoSessionManager } = require('mcp-sessions/tmcp')
    const alive = setInterval(() => {}, 1_000)
    ;(async () => {
      const engine = await Engine.connect(workerData.url)
      const shared = new InMemoryInfoSessionManager(workerData.url)
      shared.setLogLevel('from-' + workerData.n, 'info')
      const stream = await engine.streams.open('worker-' + workerData.n)
      parentPort.postMessage({ nodeId: engine.nodeId })
      for await (const event of stream) {
        await engine.streams.send('main', event.payload + ' seen by ' + workerData.n)
        if (event.payload === 'last') break
      }
      await engine.shutdown()
      clearInterval(alive)
    })()`
  const stream = await engine.streams.open('main')
  const workers = Array.from({ length: 3 }, (_, n) => new Worker(source, { eval: true, workerData: { url, n } }))
  const ready = await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))))
  assert.equal(new Set([engine.nodeId, ...ready.map(({ nodeId }) => nodeId)]).size, 4)
  const exits = workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve)))
  for (let n = 0; n < 50; n++)
    await engine.streams.send(['worker-0', 'worker-1', 'worker-2'], n < 49 ? `m${n}` : 'last')
  const seen = []
  while (seen.length < 150) seen.push((await stream.next()).payload)
  for (const n of [0, 1, 2]) {
    const own = seen.filter((payload) => payload.endsWith(` by ${n}`)).map((payload) => payload.split(' ')[0])
    assert.deepEqual(own, [...Array.from({ length: 49 }, (_, m) => `m${m}`), 'last'])
  }
  assert.deepEqual(await Promise.all(exits), [0, 0, 0])
  for (const n of [0, 1, 2]) assert.equal(await engine.info.getLogLevel(`from-${n}`), 'info')
  await engine.shutdown()
})

test('a worker that is terminated gives its streams back', async () => {
  const url = hub('terminated')
  const engine = await Engine.connect(url)
  const ports = native.livePorts()
  const source = `
    const { parentPort, workerData } = require('node:worker_threads')
    const { Engine } = require('mcp-sessions')
    const { InMemoryStreamSessionManager } = require('mcp-sessions/tmcp')
    ;(async () => {
      globalThis.engine = await Engine.connect(workerData)
      globalThis.stream = await engine.streams.open('s1')
      globalThis.manager = new InMemoryStreamSessionManager(workerData)
      manager.create('s2', { desiredSize: 1, enqueue() {}, close() {}, error() {} })
      parentPort.postMessage(await manager.has('s2'))
      setInterval(() => manager.send(undefined, 'm'), 1)
    })()`
  for (let n = 0; n < 5; n++) {
    const worker = new Worker(source, { eval: true, workerData: url })
    assert.equal(await new Promise((resolve) => worker.once('message', resolve)), true)
    assert.equal(await engine.streams.has('s1'), true)
    await worker.terminate()
    // A task of the engine gives them back, not the thread that ends.
    await until(async () => !(await engine.streams.has('s1')) && !(await engine.streams.has('s2')))
    assert.equal(native.livePorts(), ports)
  }
  await engine.shutdown()
})

test('managers of one URL share an engine, in every thread, and the last one closes it', async () => {
  const url = hub('counted')
  const engine = await Engine.connect(url)
  const ports = native.livePorts()
  const one = new InMemoryStreamSessionManager(url)
  const two = new InMemoryInfoSessionManager(url)
  const other = new InMemorySubscriptionManager({ url, maxPayloadBytes: 99 })
  assert.equal(native.livePorts(), ports + 2, 'other options are another engine')
  const { reader } = openStream(one, 's1')
  assert.equal(await engine.streams.has('s1'), true)
  await one.close()
  assert.equal((await reader.read()).done, true)
  assert.equal(await engine.streams.has('s1'), false)
  two.setLogLevel('s1', 'info')
  assert.equal(await two.getLogLevel('s1'), 'info', 'the engine lives on')
  await two.close()
  await other[Symbol.asyncDispose]()
  assert.equal(native.livePorts(), ports)
  await engine.shutdown()
})

test('managers made in one turn share a private hub, at most one of each kind', async () => {
  const ports = native.livePorts()
  const server1 = { streams: new InMemoryStreamSessionManager(), info: new InMemoryInfoSessionManager() }
  const server2 = { streams: new InMemoryStreamSessionManager(), info: new InMemoryInfoSessionManager() }
  await null
  const late = new InMemoryInfoSessionManager()
  assert.equal(native.livePorts(), ports + 3)
  server1.info.setLogLevel('s1', 'info')
  late.setLogLevel('s2', 'info')
  assert.deepEqual([await server1.streams.known('s1'), await server2.streams.known('s1')], [true, false])
  assert.deepEqual([await server1.streams.known('s2'), await server2.streams.known('s2')], [false, false])
  for (const manager of [server1.streams, server1.info, server2.streams, server2.info, late]) await manager.close()
  assert.equal(native.livePorts(), ports)
})

test('engines and managers that nobody refers to any more are closed', async () => {
  globalThis.gc()
  const ports = native.livePorts()
  const url = hub('collected')
  const watcher = await Engine.connect(url)
  await (async () => {
    for (let n = 0; n < 20; n++) {
      const engine = await Engine.connect(url)
      await engine.streams.open(`s${n}`)
      new InMemoryStreamSessionManager().send(undefined, 'm')
      new InMemoryInfoSessionManager(url).setLogLevel('s', 'info')
    }
    assert.ok(native.livePorts() > ports + 20)
  })()
  await collected(() => native.livePorts() <= ports + 1)
  for (let n = 0; n < 20; n++) assert.equal(await watcher.streams.has(`s${n}`), false)
  await watcher[Symbol.asyncDispose]()
})

test('a stream that nobody refers to any more is given back, one that is read is not', async () => {
  const engine = Engine.memory()
  let reading
  await (async () => {
    await engine.streams.open('dropped')
    const read = await engine.streams.open('read')
    reading = read.next()
  })()
  await collected(() => engine.stats().streams === 1)
  await engine.streams.send('read', 'm')
  assert.equal((await reading).payload, 'm')
  await engine.shutdown()
})

test('a manager with open streams outlives its last reference', async () => {
  const url = hub('rooted')
  const engine = await Engine.connect(url)
  const { reader } = (() => openStream(new InMemoryStreamSessionManager(url), 's1'))()
  for (let n = 0; n < 5; n++) {
    globalThis.gc()
    await new Promise((resolve) => setImmediate(resolve))
  }
  await engine.streams.send('s1', frame('m'))
  assert.match(Buffer.from((await reader.read()).value).toString(), /data: "m"/)
  await engine.shutdown()
})

test('CommonJS and ES modules are one copy', async () => {
  const { createRequire } = await import('node:module')
  const require = createRequire(import.meta.url)
  assert.equal(require('mcp-sessions').Engine, Engine)
  assert.equal(require('mcp-sessions/tmcp').InMemoryStreamSessionManager, InMemoryStreamSessionManager)
  assert.ok(fileURLToPath(import.meta.resolve('mcp-sessions')).endsWith('index.mjs'))
  assert.deepEqual(Object.keys(require('mcp-sessions')).sort(), Object.keys(await import('mcp-sessions')).sort())
  assert.deepEqual(
    Object.keys(require('mcp-sessions/tmcp')).sort(),
    Object.keys(await import('mcp-sessions/tmcp')).sort(),
  )
})
