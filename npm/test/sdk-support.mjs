// What the tests of `mcp-sessions/sdk` share: both SDKs under the same names, and clients without an SDK.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { NodeStreamableHTTPServerTransport } from '@modelcontextprotocol/node'
import { McpServer as McpServer1 } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { WebStandardStreamableHTTPServerTransport as Web1 } from '@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js'
import { McpServer as McpServer2, WebStandardStreamableHTTPServerTransport as Web2 } from '@modelcontextprotocol/server'
import { createSessionHandler } from 'mcp-sessions/sdk'
import { deferred, SseReader, within } from './support.mjs'

export const SDKS = [
  { sdk: 'sdk 1.32', McpServer: McpServer1, Web: Web1, Node: StreamableHTTPServerTransport },
  { sdk: 'server 2.4', McpServer: McpServer2, Web: Web2, Node: NodeStreamableHTTPServerTransport },
]

export const VERSION = '2025-11-25'

/** A server with tools; what happens to it is told to `told`. */
export function makeServer({ McpServer }, name = 'test', told = {}) {
  const server = new McpServer({ name, version: '1.0.0' }, { capabilities: { logging: {}, tools: {} } })
  const answer = (text) => ({ content: [{ type: 'text', text }] })
  server.registerTool('whoami', { description: 'the name of the replica' }, async () => answer(name))
  server.registerTool('wait', { description: 'answers when it is let' }, async () => {
    told.waiting?.resolve()
    await told.gate?.promise
    return answer('waited')
  })
  server.registerTool('ask', { description: 'asks the user' }, async (context) => {
    const params = { message: `who? asks ${name}`, requestedSchema: { type: 'object', properties: {} } }
    return answer((await server.server.elicitInput(params, inside(context))).content.text)
  })
  server.registerTool('sample', { description: 'asks the model' }, async (context) => {
    const heard = []
    const params = { maxTokens: 9, messages: [{ role: 'user', content: { type: 'text', text: 'who?' } }] }
    const onprogress = ({ message }) => heard.push(message)
    const { content } = await server.server.createMessage(params, { ...inside(context), onprogress })
    return answer([...heard, content.text].join(' '))
  })
  server.registerTool('roots', { description: 'asks outside of the request' }, async () =>
    answer((await server.server.listRoots()).roots[0].uri),
  )
  server.registerTool('give_up', { description: 'asks, and does not wait for the answer' }, async (context) => {
    const giving = new AbortController()
    const asked = server.server.elicitInput(
      { message: 'who?', requestedSchema: { type: 'object', properties: {} } },
      { ...inside(context), signal: giving.signal },
    )
    giving.abort('no matter')
    return answer(
      await asked.then(
        () => 'answered',
        () => 'gave up',
      ),
    )
  })
  server.registerTool('hang', { description: 'goes on until it is cancelled' }, async (context) => {
    const signal = context.signal ?? context.mcpReq.signal
    told.waiting?.resolve()
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    told.gate?.resolve(name)
    return answer('hung')
  })
  server.registerTool('shout', { description: 'says something to the session' }, async () => {
    await shout(server, `from ${name}`)
    return answer('shouted')
  })
  return server
}

/** What is asked inside of a request, by either SDK's context of it. */
const inside = (context) => ({ relatedRequestId: context.requestId ?? context.mcpReq.id })

/** A message outside of any request. */
export const shout = (server, data) => server.server.sendLoggingMessage({ level: 'info', data })

/** A replica: a handler, and the servers it made by session. */
export function replica(kind, options, name = 'a', told = {}) {
  const servers = new Map()
  const made = []
  const handler = createSessionHandler(
    (context) => {
      const server = makeServer(kind, name, told)
      servers.set(context.sessionId, server)
      made.push(context)
      return server
    },
    { Transport: kind.Web, ...options },
  )
  return { name, handler, servers, made, fetch: handler.fetch, close: (how) => handler.close(how) }
}

/** Two replicas on a hub of their own, as processes would be. */
export function twoReplicas(kind, options = {}, told = {}) {
  const url = `memory://sdk-${randomUUID()}`
  // Other options make it another engine: another node.
  const of = (name, more) => replica(kind, { url, ...options, maxSubscriptions: more }, name, told)
  return [of('a', 9_999), of('b', 9_998)]
}

const JSON_AND_SSE = 'application/json, text/event-stream'

/** A client that speaks HTTP itself. */
export class Peer {
  version = VERSION
  capabilities = { roots: {} }
  id = undefined
  #next = 1

  constructor(fetch, auth) {
    this.fetch = fetch
    this.auth = auth
  }

  /** The same session, through another replica. */
  at(fetch) {
    const other = new Peer(fetch, this.auth)
    other.id = this.id
    other.version = this.version
    return other
  }

  send(method, { body, headers = {}, id = this.id, signal } = {}) {
    const all = { accept: JSON_AND_SSE, ...headers }
    if (body !== undefined) all['content-type'] = 'application/json'
    if (id) all['mcp-session-id'] = id
    if (id && this.version) all['mcp-protocol-version'] ??= this.version
    const init = { method, headers: all, ...(body !== undefined && { body: JSON.stringify(body) }), signal }
    const request = new Request('http://localhost/mcp', init)
    return within(this.fetch(request, this.auth === undefined ? {} : { authInfo: this.auth }), `a ${method}`)
  }

  post(message, options) {
    return this.send('POST', { body: { jsonrpc: '2.0', ...message }, ...options })
  }

  async initialize() {
    const params = {
      protocolVersion: this.version,
      capabilities: this.capabilities,
      clientInfo: { name: 'peer', version: '1' },
    }
    const response = await this.post({ id: 0, method: 'initialize', params }, { id: null })
    if (response.status !== 200) return response
    this.id = response.headers.get('mcp-session-id')
    const message = await answerOf(response)
    assert.equal(message.result?.protocolVersion, this.version)
    assert.equal((await this.post({ method: 'notifications/initialized' })).status, 202)
    return response
  }

  /** Calls a tool; what comes before its answer can be read. */
  async calling(name, given = {}, _meta = undefined) {
    const id = this.#next++
    const params = { name, arguments: given, ...(_meta && { _meta }) }
    const response = await this.post({ id, method: 'tools/call', params })
    return { id, next: reading(new SseReader(response.body)) }
  }

  /** The text a tool answers with, or the status of the refusal. */
  async call(name) {
    const response = await this.post({ id: this.#next++, method: 'tools/call', params: { name, arguments: {} } })
    if (response.status !== 200) return response.status
    return (await answerOf(response)).result.content[0].text
  }

  /** Opens the session's stream. */
  async stream(lastEventId) {
    const headers = { accept: 'text/event-stream', ...(lastEventId && { 'last-event-id': lastEventId }) }
    const response = await this.send('GET', { headers })
    const { status } = response
    if (status !== 200) return { status, response }
    const sse = new SseReader(response.body)
    const stream = { status, response, sse, last: undefined, primed: deferred() }
    stream.next = async () => {
      for (;;) {
        const frame = await sse.frame()
        if (frame === undefined) return undefined
        if (frame.id) stream.last = frame.id
        if (frame.id && !frame.data) stream.primed.resolve(frame.id)
        if (frame.data && frame.event !== 'cursor') return JSON.parse(frame.data)
      }
    }
    /** The data of the next log message. */
    stream.heard = async () => (await stream.next())?.params?.data
    return stream
  }

  delete() {
    return this.send('DELETE')
  }
}

/** Reads messages, one after the other. */
function reading(sse) {
  return async () => {
    for (let frame = await sse.frame(); frame !== undefined; frame = await sse.frame())
      if (frame.data) return JSON.parse(frame.data)
    return undefined
  }
}

/** The answer in a response, whether it is JSON or a stream. */
export async function answerOf(response) {
  if (response.headers.get('content-type')?.startsWith('application/json')) return response.json()
  const sse = new SseReader(response.body)
  for (let frame = await sse.frame(); frame !== undefined; frame = await sse.frame()) {
    if (!frame.data) continue
    const message = JSON.parse(frame.data)
    if (message.result !== undefined || message.error !== undefined) {
      await sse.cancel()
      return message
    }
  }
  throw new assert.AssertionError({ message: 'the stream ended without an answer' })
}

/** Waits until `holds` does. */
export async function soon(holds, what, ms = 10_000) {
  const deadline = Date.now() + ms
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `${what} did not come to be`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

export const ada = { token: 'token-of-ada', clientId: 'client', scopes: [] }
export const bob = { token: 'token-of-bob', clientId: 'client', scopes: [] }

/** A hub of this test's own. */
export const hubUrl = () => `memory://sdk-${randomUUID()}`
