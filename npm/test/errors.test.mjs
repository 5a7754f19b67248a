// Errors: classes, codes, and what can be done about them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as module from 'mcp-sessions'
import { assertTyped, fails } from './support.mjs'

/** By name, as the tests go through all of them. */
const api = { ...module }

const BY_CODE = {
  invalid_input: 'InvalidInputError',
  not_found: 'NotFoundError',
  conflict: 'ConflictError',
  too_large: 'TooLargeError',
  unauthorized: 'UnauthorizedError',
  unavailable: 'UnavailableError',
  timeout: 'TimeoutError',
  closed: 'ClosedError',
  corrupt: 'CorruptError',
  config: 'ConfigError',
}

for (const [code, name] of Object.entries(BY_CODE)) {
  test(`${code} is a ${name}`, () => {
    const cause = new Error('why')
    const error = new api[name]('what happened', 'streams.send', { outcomeUnknown: true, cause })
    assertTyped(error, code)
    assert.ok(error instanceof Error)
    assert.equal(error.name, name)
    assert.equal(error.message, 'what happened')
    assert.equal(error.operation, 'streams.send')
    assert.equal(error.outcomeUnknown, true)
    assert.equal(error.cause, cause)
    assert.match(error.stack, new RegExp(`^${name}: what happened`))
    assert.equal(new api[name]('x', 'y').outcomeUnknown, false)
    assert.equal('cause' in new api[name]('x', 'y'), false)
  })
}

test('there is a class for every code, and no other', () => {
  const classes = Object.keys(api).filter((name) => name.endsWith('Error') && name !== 'McpSessionsError')
  assert.deepEqual(classes.sort(), Object.values(BY_CODE).sort())
})

test('errors that the engine itself finds come with their class, operation and tmcp texts', async () => {
  const engine = api.Engine.memory()
  const unset = await fails('not_found', () => engine.info.getClientInfo('s1'))
  assert.equal(unset.message, 'Client info not found for session s1')
  assert.equal(unset.operation, 'info.get')
  const foreign = await fails('invalid_input', () => engine.streams.open('s1', { after: 'no-cursor' }))
  assert.equal(foreign.outcomeUnknown, false)
  assert.equal(foreign.operation, 'cursor')
  await engine.streams.open('s1')
  const held = await fails('conflict', () => engine.streams.open('s1', { conflict: 'reject' }))
  assert.match(held.message, /s1|stream/)
  await engine.shutdown()
  await fails('closed', () => engine.streams.send('s1', 'x'))
})

test('a cursor of another session is refused, and opens nothing', async () => {
  const engine = api.Engine.memory()
  const one = await engine.streams.open('s1')
  await engine.streams.send('s1', 'x')
  const { cursor } = await one.next()
  await fails('invalid_input', () => engine.streams.open('s2', { after: cursor }))
  assert.equal(await engine.streams.has('s2'), false)
  await engine.shutdown()
})

test('the URL and the options of an engine are checked', async () => {
  const urls = [
    '',
    'nonsense',
    'memory:',
    'http://x',
    'memory://a?clock=wrong',
    'memory://a?nonsense=1',
    7,
    null,
    undefined,
  ]
  for (const url of urls) await fails('config', () => api.Engine.connect(url), `the URL ${url}`)
  const options = [
    { retention: { events: -1 } },
    { retention: { nonsense: 1 } },
    { queue: { events: 0 } },
    { lease: { ttlMs: 10, renewMs: 20 } },
    { maxPayloadBytes: 'much' },
    { maxPayloadBytes: 1.5 },
    { nonsense: true },
    { frameIds: 'yes' },
  ]
  for (const option of options) {
    await fails('config', () => api.Engine.connect('memory://', option), JSON.stringify(option))
    await fails('config', async () => api.Engine.memory(option), `memory ${JSON.stringify(option)}`)
  }
})

test('time is moved on a manual clock only', async () => {
  const engine = api.Engine.memory()
  await fails('config', () => engine.advanceClock(1))
  await fails('config', () => engine.advanceClock(-1))
  await fails('config', () => engine.advanceClock(Number.NaN))
  await engine.shutdown()
})
