// What a client answers, tells of progress and cancels reaches the replica it is for, wherever it arrives.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ada, bob, Peer, SDKS, soon, twoReplicas } from './sdk-support.mjs'
import { deferred, within } from './support.mjs'

const ELSEWHERE = 'worker-AAAAAAAAAAAAAAAA'
/** The streams of answers are not read to their ends here. */
const AT_ONCE = { deadlineMs: 1 }
const accept = (text) => ({ action: 'accept', content: { text } })
const textOf = (message) => message.result.content[0].text

class Answering extends Peer {
  capabilities = { roots: {}, sampling: {}, elicitation: {} }
}

for (const kind of SDKS) {
  const each = (name, run) => test(`${kind.sdk}: ${name}`, run)

  /** A client of one replica, and the same one through the other. */
  async function both(options, told, auth) {
    const [a, b] = twoReplicas(kind, options, told)
    const here = new Answering(a.fetch, auth)
    await here.initialize()
    return { a, b, here, there: here.at(b.fetch), close: () => Promise.all([a.close(AT_ONCE), b.close(AT_ONCE)]) }
  }

  each('an answer by the other replica arrives', async () => {
    const { here, there, close } = await both()
    // One session, two replicas that ask at once: the numbers of what they ask must not be the same.
    const [one, two] = [await here.calling('ask'), await there.calling('ask')]
    const asked = [await one.next(), await two.next()]
    assert.deepEqual([asked[0].params.message, asked[1].params.message], ['who? asks a', 'who? asks b'])
    assert.notEqual(asked[0].id, asked[1].id)
    for (const [peer, { id }, text] of [
      [there, asked[0], '1'],
      [here, asked[1], '2'],
    ])
      assert.equal((await peer.post({ id, result: accept(text) })).status, 202)
    assert.deepEqual([textOf(await one.next()), textOf(await two.next())], ['1', '2'])
    await close()
  })

  each('an answer where it was asked needs nobody else', async () => {
    const { here, close } = await both()
    for (const text of ['1', '2']) {
      const call = await here.calling('ask')
      const { id } = await call.next()
      assert.equal((await here.post({ id, result: accept(text) })).status, 202)
      assert.equal(textOf(await call.next()), text)
    }
    await close()
  })

  each('progress and an answer come by a replica that never saw the session', async () => {
    const { b, here, there, close } = await both()
    const call = await here.calling('sample')
    const { id, params } = await call.next()
    for (const message of ['p1', 'p2']) {
      const told = { progressToken: params._meta.progressToken, progress: 1, message }
      assert.equal((await there.post({ method: 'notifications/progress', params: told })).status, 202)
    }
    const result = { role: 'assistant', model: 'm', content: { type: 'text', text: 'me' } }
    assert.equal((await there.post({ id, result })).status, 202)
    assert.equal(textOf(await call.next()), 'p1 p2 me')
    assert.equal((await b.handler.getStats()).localSessions, 0)
    await close()
  })

  each('what is asked on the stream of another replica is answered there', async () => {
    const { here, there, close } = await both()
    const stream = await there.stream()
    const call = await here.calling('roots')
    const { id, method } = await stream.next()
    assert.equal(method, 'roots/list')
    assert.equal((await there.post({ id, result: { roots: [{ uri: 'file:///here' }] } })).status, 202)
    assert.equal(textOf(await call.next()), 'file:///here')
    await close()
  })

  each('an error is an answer, and what is given up bears its name', async () => {
    const { here, there, close } = await both()
    const call = await here.calling('ask')
    const { id } = await call.next()
    assert.equal((await there.post({ id, error: { code: -1, message: 'not today' } })).status, 202)
    assert.match(textOf(await call.next()), /not today/)
    const given = await here.calling('give_up')
    const asked = await given.next()
    const { method, params } = await given.next()
    assert.deepEqual([method, params.requestId], ['notifications/cancelled', asked.id])
    assert.equal(textOf(await given.next()), 'gave up')
    await close()
  })

  each('nobody else can answer', async () => {
    const { a, b, here, there, close } = await both({}, {}, ada)
    const call = await here.calling('ask')
    const { id } = await call.next()
    const forged = { id, result: accept('forged') }
    // With a session of its own it answers nothing of another one.
    const stranger = new Answering(b.fetch, bob)
    await stranger.initialize()
    for (const peer of [stranger, stranger.at(a.fetch)]) assert.equal((await peer.post(forged)).status, 202)
    stranger.id = here.id
    for (const peer of [stranger, stranger.at(a.fetch)]) assert.equal((await peer.post(forged)).status, 404)
    assert.equal((await there.post({ ...forged, id: `${id}9` })).status, 202)
    assert.equal((await there.post({ id, result: accept('me') })).status, 202)
    assert.equal(textOf(await call.next()), 'me')
    await close()
  })

  each('an answer that nobody waits for is refused in words', async () => {
    const { here, close } = await both()
    const refused = await here.post({ id: `${ELSEWHERE}:1`, result: accept('late') })
    assert.equal(refused.status, 400)
    assert.match((await refused.json()).error.message, /The worker that asked for this is gone/)
    await close()
  })

  each('of several messages in one, each goes where it belongs', async () => {
    const [a, b] = twoReplicas(kind)
    const here = new Answering(a.fetch)
    here.version = '2025-03-26'
    await here.initialize()
    const [one, two] = [await here.calling('ask'), await here.at(b.fetch).calling('ask')]
    const answers = [await one.next(), await two.next()].map(({ id }, n) => ({
      jsonrpc: '2.0',
      id,
      result: accept(`${n}`),
    }))
    assert.equal((await here.send('POST', { body: answers })).status, 202)
    assert.deepEqual([textOf(await one.next()), textOf(await two.next())], ['0', '1'])
    await Promise.all([a.close(AT_ONCE), b.close(AT_ONCE)])
  })

  for (const by of ['its own replica', 'the other replica']) {
    each(`a call that is cancelled by ${by} ends where it runs`, async () => {
      const told = { waiting: deferred(), gate: deferred() }
      const { here, there, close } = await both({}, told)
      // Both serve the session.
      assert.equal(await there.call('whoami'), 'b')
      const { id } = await here.calling('hang')
      await within(told.waiting.promise, 'the call')
      const params = { requestId: id, reason: 'enough' }
      const peer = by === 'its own replica' ? here : there
      assert.equal((await peer.post({ method: 'notifications/cancelled', params })).status, 202)
      assert.equal(await within(told.gate.promise, 'its end'), 'a')
      await close()
    })
  }

  each('letters are those of the Python package', async () => {
    const { a, here, close } = await both()
    const { streams, info } = await a.handler.engine()
    const call = await here.calling('ask')
    const { id } = await call.next()
    const [, name] = id.match(/^(worker-[\w-]{16}):\d+$/)
    assert.deepEqual(await info.getSessionSubscriptions(here.id), [`mcp-sessions://worker/${name}`])
    // One of its workers: it gets an answer, and passes one on.
    const worker = await streams.open(ELSEWHERE)
    await info.addSubscription(here.id, `mcp-sessions://worker/${ELSEWHERE}`)
    assert.equal((await here.post({ id: `${ELSEWHERE}:7`, result: accept('x') })).status, 202)
    const [session, headers, body] = JSON.parse((await worker.next()).payload)
    assert.equal(session, here.id)
    assert.equal(Object.fromEntries(headers)['mcp-session-id'], here.id)
    assert.deepEqual(JSON.parse(body), { jsonrpc: '2.0', id: `${ELSEWHERE}:7`, result: accept('x') })
    const answer = JSON.stringify({ jsonrpc: '2.0', id, result: accept('from Python') })
    await streams.send(name, JSON.stringify([here.id, headers, answer]))
    assert.equal(textOf(await call.next()), 'from Python')
    const cancelled = { method: 'notifications/cancelled', params: { requestId: 1 } }
    assert.equal((await here.post(cancelled)).status, 202)
    assert.deepEqual(JSON.parse(JSON.parse((await worker.next()).payload)[2]), { jsonrpc: '2.0', ...cancelled })
    await worker.close()
    await close()
  })

  each('no letter goes where a client says', async () => {
    const { a, here, close } = await both()
    const { streams, info } = await a.handler.engine()
    const victim = await streams.open('victim')
    for (const uri of ['mcp-sessions://worker/victim', `mcp-sessions://worker/${ELSEWHERE}`])
      await here.post({ id: 1, method: 'resources/subscribe', params: { uri } })
    assert.equal((await info.getSessionSubscriptions(here.id)).length, 1)
    await info.addSubscription(here.id, 'mcp-sessions://worker/victim')
    await here.post({ method: 'notifications/cancelled', params: { requestId: 1 } })
    await streams.send('victim', 'the first thing')
    assert.equal((await victim.next()).payload, 'the first thing')
    await victim.close()
    await close()
  })

  each('a broken letter is told, and the next one is taken', async () => {
    const problems = []
    const { a, here, close } = await both({ onError: (error) => problems.push(error) })
    const { streams } = await a.handler.engine()
    const call = await here.calling('ask')
    const { id } = await call.next()
    const [name] = id.split(':')
    for (const broken of ['nonsense', '[]', `["${here.id}",[["\\n","x"]],"{}"]`]) await streams.send(name, broken)
    await streams.send(name, JSON.stringify([here.id, [], '{}']))
    await soon(() => problems.length === 3, 'three problems')
    assert.equal((await here.post({ id, result: accept('x') })).status, 202)
    assert.equal(textOf(await call.next()), 'x')
    await close()
  })

  each('a replica that closes leaves nothing of its own', async () => {
    const { a, b, here } = await both()
    const { streams } = await b.handler.engine()
    const call = await here.calling('ask')
    const [name] = (await call.next()).id.split(':')
    assert.equal(await streams.has(name), true)
    await a.close(AT_ONCE)
    assert.deepEqual([await streams.has(name), await streams.known(name)], [false, false])
    await b.close(AT_ONCE)
  })
}
