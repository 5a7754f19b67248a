// The managers on a real PostgreSQL server: how they connect, share, wait and let go, and what they can carry.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { Engine } from 'mcp-sessions'
import {
  PostgresInfoSessionManager,
  PostgresSessionManager,
  PostgresStreamSessionManager,
  PostgresSubscriptionManager,
} from 'mcp-sessions/tmcp'
import { freePort, startPostgres } from '../../../tests/support/servers.mjs'
import { Frames, frame } from '../helpers.mjs'
import { childEnds, fails } from '../support.mjs'

const TOOLS_CHANGED = { jsonrpc: '2.0', method: 'notifications/tools/list_changed' }
const run = promisify(execFile)

let server
let schemas = 0
// Waiting for an event does not keep a process alive: these tests need one that is.
let alive
before(async () => {
  alive = setInterval(() => {}, 1_000)
  server = await startPostgres()
})
after(async () => {
  clearInterval(alive)
  await server.stop()
})

async function sql(statement, url = server.url) {
  const { stdout } = await run('psql', [url, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', statement])
  return stdout.trim()
}

/** A place nobody else uses. */
const place = () => ({ connectionString: server.url, schema: `t${schemas++}` })

function managers(argument) {
  return {
    streams: new PostgresStreamSessionManager(argument),
    info: new PostgresInfoSessionManager(argument),
    subscriptions: new PostgresSubscriptionManager(argument),
  }
}

async function close({ streams, info, subscriptions }) {
  await streams.close()
  await info.close()
  await subscriptions[Symbol.asyncDispose]()
}

async function untilAsync(check, what) {
  for (const deadline = Date.now() + 20_000; !(await check()); ) {
    assert.ok(Date.now() < deadline, `in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Opens a session's stream; resolves once it is ready to receive. */
async function opened(streams, id) {
  let created
  const body = new ReadableStream({
    start(controller) {
      created = streams.create(id, controller)
    },
    cancel: () => streams.delete(id),
  })
  await created
  return body.getReader()
}

test('managers made separately share three connections at most, and the last one out closes them', async () => {
  const count = async () =>
    Number(
      await sql(
        "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()",
      ),
    )
  await untilAsync(async () => (await count()) === 0, 'nobody is there')
  const all = managers(place())
  await all.streams.ready()
  await all.info.setLogLevel('s1', 'info')
  await opened(all.streams, 's1')
  await all.subscriptions.send(TOOLS_CHANGED)
  const connections = await count()
  assert.ok(connections >= 1 && connections <= 3, `${connections} connections`)
  await all.streams.close()
  await all.info.close()
  assert.equal(await count(), connections)
  await all.subscriptions[Symbol.asyncDispose]()
  await untilAsync(async () => (await count()) === 0, 'they are closed')
})

test('what a manager is made with, and what is refused', async () => {
  const { url: connectionString } = server
  const engine = await Engine.connect(`${connectionString}?schema=t${schemas++}`)
  const refused = [
    undefined,
    null,
    7,
    {},
    'memory://hub',
    'redis://host',
    'postgresql://u:secret@host:port',
    { connectionString, engine },
    { connectionString: `${connectionString}?schema=a`, schema: 'b' },
    { connectionString, create: 'no' },
    { connectionString, durability: 'some' },
    { connectionString, nonsense: 1 },
  ]
  for (const argument of refused) {
    for (const Manager of [PostgresStreamSessionManager, PostgresInfoSessionManager, PostgresSubscriptionManager]) {
      const what = `${Manager.name} ${typeof argument === 'object' ? Object.keys(argument ?? {}) : argument}`
      const error = await fails('config', async () => new Manager(argument), what)
      assert.ok(!error.message.includes('secret'))
    }
  }
  const all = managers(engine)
  assert.equal(await all.streams.has('s1'), false)
  await close(all)
  assert.ok(new PostgresSessionManager(engine) instanceof PostgresStreamSessionManager)
  await engine[Symbol.asyncDispose]()
})

test("tables have tmcp's names, or those that are given, whatever is in them", async () => {
  const tableName = 'se"ssions; drop table x --'
  const tableNames = { clientInfo: "in'fo", logLevel: 'le vel' }
  const given = { ...place(), tableName, tableNames }
  const all = managers(given)
  await all.info.setClientInfo('s1', { name: 'x', version: '1' })
  await all.info.setLogLevel('s1', 'error')
  await opened(all.streams, 's1')
  const tables = (await sql(`select tablename from pg_tables where schemaname = '${given.schema}'`)).split('\n')
  for (const name of [tableName, tableNames.clientInfo, tableNames.logLevel, 'tmcp_session_client_capabilities']) {
    assert.ok(tables.includes(name), `${name} is not among ${tables}`)
  }
  await close(all)
})

test('create: false makes nothing, and says what is missing', async () => {
  const given = { ...place(), create: false }
  await sql(`create schema ${given.schema}`)
  const errors = []
  const streams = new PostgresStreamSessionManager({ ...given, onError: (error) => errors.push(error) })
  await assert.rejects(streams.ready(), (error) => {
    assert.match(error.message, /create|tmcp_/)
    return true
  })
  assert.equal(await sql(`select count(*) from pg_tables where schemaname = '${given.schema}'`), '0')
  await streams.close()
})

test('payloads, ids and URIs are carried as they are', async () => {
  const given = place()
  const here = managers(given)
  const there = managers(await Engine.connect(`${given.connectionString}?schema=${given.schema}`))
  const payloads = [
    "'; drop schema public cascade; --",
    "x'); notify y; --",
    '$1 $$ \\ \u0001 " é 🎉',
    'x'.repeat(8_001),
    'y'.repeat(300_000),
  ]
  const ids = ['a:b:c', "';--", `${'i'.repeat(55)}1`, `${'i'.repeat(55)}2`, 'x'.repeat(256), '{}%*?"']
  const readers = await Promise.all(ids.map((id) => opened(here.streams, id)))
  for (const [n, id] of ids.entries()) {
    for (const payload of payloads) await there.streams.send([id], frame([n, payload]))
  }
  for (const [n, reader] of readers.entries()) {
    const got = await new Frames(reader).data(payloads.length)
    assert.deepEqual(
      got,
      payloads.map((payload) => [n, payload]),
    )
  }
  for (const uri of ["note://';drop table x;--", 'note://"%_', 'note://é']) {
    await here.info.addSubscription(ids[0], uri)
    await here.info.addSubscription(ids[1], uri)
    assert.deepEqual((await there.info.getSubscriptions(uri)).sort(), [ids[0], ids[1]].sort())
    await here.info.removeSubscription(ids[0], uri)
    assert.deepEqual(await there.info.getSubscriptions(uri), [ids[1]])
  }
  await here.info.delete(ids[1])
  assert.deepEqual(await there.info.getSubscriptions('note://é'), [])
  await close(here)
  await close(there)
})

test('a stuck callback holds up nobody', async () => {
  const all = managers(place())
  const got = []
  const filters = { toolsListChanged: true }
  await all.subscriptions.create(
    { id: 1, origin: 'o', filters },
    { acknowledge() {}, send: () => new Promise(() => {}), close() {} },
  )
  await all.subscriptions.create(
    { id: 2, origin: 'o', filters },
    { acknowledge() {}, send: (one) => void got.push(one), close() {} },
  )
  for (let n = 0; n < 3; n++) await all.subscriptions.send(TOOLS_CHANGED)
  await untilAsync(async () => got.length === 3, 'all three')
  await close(all)
})

test('the server is down at construction: calls fail, and it recovers by itself', async () => {
  const port = await freePort()
  const errors = []
  const given = {
    connectionString: `postgresql://postgres@127.0.0.1:${port}/postgres`,
    onError: (it) => errors.push(it.code),
  }
  const all = managers(given)
  await fails('unavailable', () => all.streams.has('s1'))
  await fails('unavailable', () => all.info.getLogLevel('s1'))
  assert.equal(await all.streams.send(['s1'], 'x'), undefined)
  assert.deepEqual([...new Set(errors)], ['unavailable'])
  const late = await startPostgres({ port })
  await untilAsync(
    () =>
      all.streams.ready().then(
        () => true,
        () => false,
      ),
    'it is there',
  )
  const reader = await opened(all.streams, 's1')
  await all.streams.send(['s1'], frame('hello'))
  assert.deepEqual(await new Frames(reader).data(1), ['hello'])
  await close(all)
  await late.stop()
})

test('with nobody awaiting anything, a server that is down ends no process', async () => {
  const source = `
    import * as tmcp from 'mcp-sessions/tmcp'
    const connectionString = 'postgresql://127.0.0.1:${await freePort()}/x'
    const streams = new tmcp.PostgresStreamSessionManager({ connectionString })
    const info = new tmcp.PostgresInfoSessionManager({ connectionString })
    const subscriptions = new tmcp.PostgresSubscriptionManager({ connectionString })
    streams.has('s1'); streams.send(undefined, 'm'); streams.delete('s1'); info.setLogLevel('s1', 'info')
    info.getLogLevel('s1'); subscriptions.send(${JSON.stringify(TOOLS_CHANGED)})
    console.log('made')`
  const { out, err } = await childEnds(source)
  assert.equal(out, 'made\n')
  for (const line of err.trim().split('\n')) assert.match(line, /^\[mcp-sessions\] \S+ failed \(unavailable\): \S/)
})
