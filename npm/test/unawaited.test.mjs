// A rejection nobody awaits reaches onError and never ends the process.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { childEnds } from './support.mjs'

/** All that a transport calls without waiting, each with something wrong. */
const UNAWAITED = `
  import { InMemoryInfoSessionManager, InMemoryStreamSessionManager, InMemorySubscriptionManager } from 'mcp-sessions/tmcp'
  const make = (options) => ({
    streams: new InMemoryStreamSessionManager(options),
    info: new InMemoryInfoSessionManager(options),
    subscriptions: new InMemorySubscriptionManager(options),
  })
  function misuse({ streams, info, subscriptions }) {
    info.setClientInfo('not an id', {})
    info.setClientInfo('s1', { n: 1n })
    info.setClientCapabilities('s1', [])
    info.setLogLevel('s1', 'loud')
    info.addSubscription('s1', '')
    info.removeSubscription('s1', 7)
    info.getSubscriptions('')
    info.delete('')
    streams.create('s1', {})
    streams.send(undefined, 7)
    streams.delete('')
    streams.has('')
    subscriptions.send({})
    subscriptions.close(1, 'o', 'bored')
    subscriptions.closeAll(7)
    subscriptions.create({ id: 1, origin: 'o', filters: {} }, {})
    return 16
  }
  const settled = () => new Promise((resolve) => setImmediate(resolve))
`

test('each reaches onError, once, and the process goes on', async () => {
  const { out, err } = await childEnds(`${UNAWAITED}
    const errors = []
    const managers = make({ onError: (error) => errors.push(error.code) })
    const calls = misuse(managers)
    // What was never set is the caller's to handle, if it cares.
    managers.info.getClientInfo('nobody')
    managers.info.getLogLevel('nobody')
    await settled()
    console.log(JSON.stringify({ calls, errors }))
  `)
  const { calls, errors } = JSON.parse(out)
  assert.deepEqual(errors, Array(calls).fill('invalid_input'))
  assert.equal(err, '')
})

test('without a hook there is a log line each', async () => {
  const { out, err } = await childEnds(`${UNAWAITED}
    console.log(misuse(make(undefined)))
    await settled()
  `)
  const lines = err.trim().split('\n')
  assert.equal(lines.length, Number(out))
  for (const line of lines) assert.match(line, /^\[mcp-sessions\] [a-z_.]+ failed \(invalid_input\): \S/)
})

test('a hook that throws ends nothing either', async () => {
  const { out, err } = await childEnds(`${UNAWAITED}
    const calls = misuse(make({ onError() { throw new Error('the hook is broken') } }))
    await settled()
    console.log(calls)
  `)
  assert.equal(err.split('the onError hook threw').length - 1, Number(out))
})

test('closed managers and engines: calls that nobody awaits do not end the process', async () => {
  const { out } = await childEnds(`${UNAWAITED}
    import { Engine } from 'mcp-sessions'
    const engine = Engine.memory()
    const errors = []
    const managers = make({ engine, onError: (error) => errors.push(error.code) })
    await engine.shutdown()
    managers.info.setLogLevel('s1', 'debug')
    managers.info.addSubscription('s1', 'u:1')
    managers.info.delete('s1')
    managers.streams.send(['s1'], 'x')
    managers.streams.send(undefined, 'x')
    managers.streams.has('s1')
    managers.subscriptions.send({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' })
    await settled()
    await settled()
    await engine[Symbol.asyncDispose]()
    managers.info.setLogLevel('s1', 'debug')
    managers.streams.send(['s1'], 'x')
    managers.streams.has('s1')
    await settled()
    console.log(JSON.stringify(errors))
  `)
  const errors = JSON.parse(out)
  assert.ok(errors.length >= 7, `only ${errors.length} were told: ${errors}`)
  assert.deepEqual([...new Set(errors)], ['closed'])
})

test('subscription callbacks that fail later do not end the process', async () => {
  const { out } = await childEnds(`${UNAWAITED}
    const errors = []
    const { subscriptions } = make({ onError: (error) => errors.push([error.operation, error.message]) })
    const late = async (what) => {
      await settled()
      throw new Error(what)
    }
    const filters = { toolsListChanged: true }
    const notification = { jsonrpc: '2.0', method: 'notifications/tools/list_changed' }
    await subscriptions.create({ id: 1, origin: 'o', filters }, { acknowledge() {}, send: () => late('send'), close: () => late('close') })
    await subscriptions.send(notification)
    await subscriptions.close(1, 'o', 'closed')
    subscriptions.create({ id: 2, origin: 'o', filters }, { acknowledge: () => late('acknowledge'), send() {}, close() {} })
    for (let turn = 0; turn < 100 && errors.length < 3; turn++) await settled()
    console.log(JSON.stringify(errors))
  `)
  assert.deepEqual(JSON.parse(out), [
    ['subscriptions.send', 'send'],
    ['subscriptions.close', 'close'],
    ['subscriptions.acknowledge', 'acknowledge'],
  ])
})
