// What every runtime has to do with the package: both module formats, both entries, to the end.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { Engine, McpSessionsError } from 'mcp-sessions'
import {
  InMemoryInfoSessionManager,
  InMemoryStreamSessionManager,
  InMemorySubscriptionManager,
} from 'mcp-sessions/tmcp'

const require = createRequire(import.meta.url)
assert.equal(require('mcp-sessions').Engine, Engine, 'CommonJS and ESM give the same class')
assert.equal(require('mcp-sessions/tmcp').InMemoryStreamSessionManager, InMemoryStreamSessionManager)

await engines()
await managers()
console.log('smoke: ok')

async function engines() {
  const here = await Engine.connect('memory://smoke')
  const there = await Engine.connect('memory://smoke')
  const stream = await here.streams.open('s1')
  const waiting = stream.next()
  const receipt = await there.streams.send('s1', 'grüße')
  assert.deepEqual({ ...receipt }, { accepted: 1, dropped: 0, duplicates: 0 })
  const first = await waiting
  assert.equal(first.payload, 'grüße')
  await stream.close()
  await there.streams.send('s1', 'missed')
  const resumed = await there.streams.open('s1', { after: first.cursor })
  assert.equal(resumed.gap, false)
  assert.equal((await resumed.next()).payload, 'missed')
  await here.info.setClientInfo('s1', { name: 'smoke' })
  assert.deepEqual(await there.info.getClientInfo('s1'), { name: 'smoke' })
  await assert.rejects(
    here.info.getLogLevel('s1'),
    (error) => error instanceof McpSessionsError && error.code === 'not_found',
  )
  const ended = resumed.ended
  await there.shutdown()
  assert.equal(await ended, 'shutdown')
  await here.shutdown()
}

async function managers() {
  const streams = new InMemoryStreamSessionManager()
  const info = new InMemoryInfoSessionManager()
  const subscriptions = new InMemorySubscriptionManager()
  let controller
  const body = new ReadableStream({
    start(own) {
      controller = own
    },
  })
  await streams.create('s1', controller)
  await streams.send(undefined, 'data: hello\n\n')
  const reader = body.getReader()
  const text = new TextDecoder().decode((await reader.read()).value)
  assert.match(text, /^id: \S+\ndata: hello\n\n$/)
  await streams.delete('s1')
  assert.equal((await reader.read()).done, true)
  info.setLogLevel('s1', 'debug')
  assert.equal(await info.getLogLevel('s1'), 'debug')
  const got = new Promise((send) => {
    const callbacks = { acknowledge() {}, send, close() {} }
    void subscriptions.create({ id: 1, origin: 'o', filters: { toolsListChanged: true } }, callbacks)
  })
  await subscriptions.send({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' })
  assert.equal((await got).method, 'notifications/tools/list_changed')
  await subscriptions.closeAll()
}
