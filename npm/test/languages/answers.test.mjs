// A replica of the TypeScript SDK and a worker of the Python SDK in one fleet, on real servers: what a client
// answers, tells of progress and cancels reaches the one it is for, whichever of them gets it.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startServer } from '../../../tests/support/servers.mjs'
import { Peer, replica, SDKS } from '../sdk-support.mjs'
import { deferred, within } from '../support.mjs'

const FOLDER = fileURLToPath(new URL('../../../python/', import.meta.url))
const PYTHON =
  process.env.MCP_SESSIONS_TEST_PYTHON ?? fileURLToPath(new URL('../../../target/venv/bin/python', import.meta.url))
const START_MS = 60_000
const PROGRESS = 'notifications/progress'

class Answering extends Peer {
  capabilities = { roots: {}, sampling: {}, elicitation: {} }
}

/** A worker of the Python SDK in a process of its own. */
async function pythonWorker(url) {
  const child = spawn(PYTHON, ['-W', 'ignore', '-m', 'tests.support.workers', 'official', url, '{}'], {
    cwd: FOLDER,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const said = once(createInterface(child.stdout), 'line')
  const gone = once(child, 'exit').then(() => assert.fail('the worker ended before it listened'))
  const [address] = await within(Promise.race([said, gone]), 'the worker', START_MS)
  gone.catch(() => {})
  return {
    address,
    fetch: (request) => fetch(new Request(address, request)),
    async close() {
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    },
  }
}

for (const scheme of ['redis://', 'postgresql://']) {
  for (const kind of SDKS) {
    test(`${kind.sdk} and Python on ${scheme}`, async (t) => {
      const server = await startServer(scheme)
      t.after(() => server.stop())
      const told = { waiting: deferred(), gate: deferred() }
      const node = replica(kind, { url: server.url }, 'node', told)
      t.after(() => node.close({ deadlineMs: 1 }))
      const python = await pythonWorker(server.url)
      t.after(() => python.close())
      // Clients know the fleet by one address, which the SDKs check.
      const nodeFetch = (request, how) => node.fetch(new Request(python.address, request), how)

      await t.test('Node asks, and the answer comes by Python', async () => {
        const client = new Answering(nodeFetch)
        await client.initialize()
        const call = await client.calling('ask')
        const { id, method } = await call.next()
        assert.equal(method, 'elicitation/create')
        const answer = { action: 'accept', content: { text: 'me' } }
        assert.equal((await client.at(python.fetch).post({ id, result: answer })).status, 202)
        assert.equal(textOf(await call.next()), 'me')
      })

      await t.test('Node hears of progress and an answer that come by Python', async () => {
        const client = new Answering(nodeFetch)
        await client.initialize()
        const call = await client.calling('sample')
        const { id, params } = await call.next()
        const there = client.at(python.fetch)
        const progress = { progressToken: params._meta.progressToken, progress: 1, message: 'half' }
        assert.equal((await there.post({ method: PROGRESS, params: progress })).status, 202)
        const result = { role: 'assistant', model: 'm', content: { type: 'text', text: 'me' } }
        assert.equal((await there.post({ id, result })).status, 202)
        assert.equal(textOf(await call.next()), 'half me')
      })

      await t.test('Node hears of a cancellation that comes by Python', async () => {
        const client = new Answering(nodeFetch)
        await client.initialize()
        const { id } = await client.calling('hang')
        await within(told.waiting.promise, 'the call')
        const cancelled = { method: 'notifications/cancelled', params: { requestId: id } }
        assert.equal((await client.at(python.fetch).post(cancelled)).status, 202)
        assert.equal(await within(told.gate.promise, 'the cancellation'), 'node')
      })

      await t.test('Python asks, and the answer comes by Node', async () => {
        const client = new Answering(python.fetch)
        await client.initialize()
        const call = await client.calling('elicit', { question: 'who?' })
        const { id, params } = await call.next()
        assert.equal(params.message, 'who?')
        const answer = { action: 'accept', content: { text: 'me' } }
        assert.equal((await client.at(nodeFetch).post({ id, result: answer })).status, 202)
        assert.equal(textOf(await call.next()), 'accept: me')
      })

      await t.test('Python hears of progress and an answer that come by Node', async () => {
        const client = new Answering(python.fetch)
        await client.initialize()
        const call = await client.calling('sample', { question: 'who?' })
        const { id, params } = await call.next()
        const there = client.at(nodeFetch)
        const progress = { progressToken: params._meta.progressToken, progress: 1, message: 'half' }
        assert.equal((await there.post({ method: PROGRESS, params: progress })).status, 202)
        const result = { role: 'assistant', model: 'm', content: { type: 'text', text: 'me' } }
        assert.equal((await there.post({ id, result })).status, 202)
        assert.deepEqual(JSON.parse(textOf(await call.next())), ['half', 'me'])
      })

      await t.test('Python hears of a cancellation that comes by Node', async () => {
        const client = new Answering(python.fetch)
        await client.initialize()
        const { id, next } = await client.calling('hang', { name: 'mine' }, { progressToken: 'p' })
        assert.equal((await next()).method, PROGRESS)
        const cancelled = { method: 'notifications/cancelled', params: { requestId: id } }
        assert.equal((await client.at(nodeFetch).post(cancelled)).status, 202)
        const hung = async () => JSON.parse(await client.call('hung')).includes('mine')
        await soonOver(hung)
      })
    })
  }
}

const textOf = (message) => message.result.content[0].text

/** Asked again until it holds: each question is a request, which takes its time. */
async function soonOver(holds) {
  for (const deadline = Date.now() + 20_000; !(await holds()); ) assert.ok(Date.now() < deadline, 'it still hangs')
}
