// CommonJS and ESM give the same classes.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import * as esm from 'mcp-sessions'
import * as esmSdk from 'mcp-sessions/sdk'
import * as esmTmcp from 'mcp-sessions/tmcp'
import { childEnds } from './support.mjs'

const require = createRequire(import.meta.url)
const pairs = [
  ['mcp-sessions', esm, require('mcp-sessions')],
  ['mcp-sessions/sdk', esmSdk, require('mcp-sessions/sdk')],
  ['mcp-sessions/tmcp', esmTmcp, require('mcp-sessions/tmcp')],
]

for (const [name, module, required] of pairs) {
  test(`${name}: the same names, and the same things under them`, () => {
    assert.deepEqual(Object.keys(module).sort(), Object.keys(required).sort())
    assert.ok(Object.keys(module).length >= 4)
    for (const key of Object.keys(module)) assert.equal(module[key], required[key], key)
  })
}

test('what is exported is what is documented', () => {
  const classes = [
    'ClosedError',
    'ConfigError',
    'ConflictError',
    'CorruptError',
    'Engine',
    'InvalidInputError',
    'McpSessionsError',
  ]
  const more = ['NotFoundError', 'TimeoutError', 'TooLargeError', 'UnauthorizedError', 'UnavailableError']
  assert.deepEqual(Object.keys(esm).sort(), [...classes, ...more])
  const kinds = ['InfoSessionManager', 'StreamSessionManager', 'SubscriptionManager']
  const managers = ['InMemory', 'Postgres', 'Redis'].flatMap((backend) => kinds.map((kind) => backend + kind))
  assert.deepEqual(Object.keys(esmTmcp).sort(), [...managers, 'PostgresSessionManager', 'resumable'].sort())
  const forSdks = ['SessionManager', 'createSessionHandler', 'eventStore', 'getSessionManager', 'ownerOf']
  assert.deepEqual(Object.keys(esmSdk).sort(), forSdks)
})

test('an engine of one is an engine of the other, and their errors are caught alike', async () => {
  const engine = require('mcp-sessions').Engine.memory()
  const streams = new esmTmcp.InMemoryStreamSessionManager({ engine })
  assert.equal(await streams.has('s1'), false)
  await assert.rejects(engine.info.getClientInfo('s1'), esm.NotFoundError)
  await engine.shutdown()
})

test('nothing but the entries can be imported', async () => {
  await assert.rejects(import('mcp-sessions/dist/port.js'), { code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' })
  assert.equal(require('mcp-sessions/package.json').name, 'mcp-sessions')
})

test('mcp-sessions alone needs neither tmcp nor an SDK, and loading it starts nothing', async () => {
  const { out } = await childEnds(`
    import { createRequire } from 'node:module'
    const require = createRequire(process.cwd() + '/x.cjs')
    require('mcp-sessions')
    require('mcp-sessions/tmcp')
    require('mcp-sessions/sdk')
    const foreign = Object.keys(require.cache).filter((file) => file.includes('node_modules'))
    console.log(JSON.stringify({ foreign, active: process.getActiveResourcesInfo().filter((one) => /Timer|Timeout|Immediate/.test(one)) }))
  `)
  assert.deepEqual(JSON.parse(out), { foreign: [], active: [] })
})
