// The Durable Object: sockets, storage and alarms of the platform around the sync layer in wasm.

import { DurableObject } from 'cloudflare:workers'
import { initSync, SyncLayer as Layer } from '../../worker/sync-layer.mjs'
import wasm from '../../worker/sync-layer.wasm'
import { OlderTable } from './older-storage.mjs'
import { type Host, type ObjectState, type ServerSocket, workers } from './platform.mjs'
import { Table } from './storage.mjs'

/** The WebSocket subprotocol of this version. */
export const PROTOCOL = 'mcp-sessions.2'
const NODE = /^[0-9a-f]{32}$/
const OPEN = 1

initSync({ module: wasm })

/**
 * The Durable Object that shares sessions between Workers and native engines. Export it from the Worker
 * and bind it (`TMCP_DURABLE_OBJECT`). Make it with SQLite storage (`new_sqlite_classes`); where it was made
 * with `new_classes`, it goes on with that storage. Only the Worker can reach it.
 */
export class SyncLayer extends DurableObject {
  readonly #table: Table | OlderTable
  #layer: Layer | undefined
  #sockets = new Map<string, ServerSocket>()
  /** What the message under way has to send, once it is stored. */
  #outbox: (() => void)[] = []
  #wakeAtMs: number | undefined

  constructor(ctx: ObjectState, env: unknown) {
    super(ctx, env)
    ctx.setWebSocketAutoResponse(new workers.WebSocketRequestResponsePair('ping', 'pong'))
    this.#table = hasSql(ctx) ? new Table(ctx.storage) : new OlderTable(ctx)
  }

  /** Does what a Worker asks for; both are JSON. */
  ask(options: string, question: string): string {
    const answer = this.#run(() => this.#loaded().ask(options, question))
    if (answer === undefined) throw new Error('mcp-sessions: nothing was done')
    return answer
  }

  /** Takes the socket of a node, of a stream or of a subscription. */
  fetch(request: Request): Response {
    if (request.headers.get('Upgrade') !== 'websocket') return new Response('connect with a WebSocket', { status: 400 })
    const { pathname, searchParams } = new URL(request.url)
    if (pathname === '/') return this.#takeNode(searchParams.get('node') ?? '')
    const options = searchParams.get('options') ?? ''
    const wanted = searchParams.get('request') ?? ''
    if (pathname === '/stream') return this.#takeGuest((node) => this.#loaded().open(node, options, wanted))
    if (pathname === '/listen') return this.#takeGuest((node) => this.#loaded().listen(node, options, wanted))
    return new Response('there is nothing here', { status: 404 })
  }

  #takeNode(node: string): Response {
    if (!NODE.test(node)) return new Response('a node connects under its name', { status: 400 })
    // One that is half open still would take what is meant for the new one.
    for (const old of this.ctx.getWebSockets(node)) old.close(4000, 'the node has another socket')
    const client = this.#accept(node)
    const headers = { 'Sec-WebSocket-Protocol': PROTOCOL }
    return new Response(null, { status: 101, webSocket: client, headers } as ResponseInit)
  }

  #takeGuest(open: (node: string) => string | undefined): Response {
    const node = crypto.randomUUID().replaceAll('-', '')
    const client = this.#accept(node)
    const done = this.#run(() => ({ failure: open(node) }))
    if (done !== undefined && done.failure === undefined) {
      return new Response(null, { status: 101, webSocket: client } as ResponseInit)
    }
    this.#socket(node)?.close(1008, 'refused')
    this.#sockets.delete(node)
    return done === undefined
      ? Response.json({ code: 'unavailable', message: 'nothing was done' }, { status: 500 })
      : new Response(done.failure, { status: 400 })
  }

  #accept(node: string): ServerSocket {
    const { 0: client, 1: server } = new workers.WebSocketPair()
    this.ctx.acceptWebSocket(server, [node])
    this.#sockets.set(node, server)
    return client
  }

  webSocketMessage(socket: ServerSocket, message: ArrayBuffer | string): void {
    const [node] = this.ctx.getTags(socket)
    if (node === undefined || typeof message === 'string') {
      socket.close(1003, 'frames are binary')
      return
    }
    const understood = this.#run(() => this.#loaded().message(node, new Uint8Array(message)))
    if (understood === undefined) socket.close(1011, 'nothing was done')
    else if (!understood) socket.close(4406, 'another version')
  }

  webSocketClose(socket: ServerSocket): void {
    try {
      socket.close()
    } catch {
      // It was answered by the platform.
    }
    const [node] = this.ctx.getTags(socket)
    const heardMs = this.ctx.getWebSocketAutoResponseTimestamp(socket)?.getTime() ?? 0
    if (node === undefined) return
    // A node that is back has another one.
    if (this.#sockets.get(node) === socket) this.#sockets.delete(node)
    this.#run(() => this.#loaded().closed(node, heardMs))
  }

  webSocketError(socket: ServerSocket): void {
    this.webSocketClose(socket)
  }

  alarm(): void {
    const done = this.#run(() => {
      this.#loaded().alarm()
      return true
    })
    // The platform tries again.
    if (!done) throw new Error('mcp-sessions: what is due could not be expired')
  }

  #loaded(): Layer {
    this.#layer ??= new Layer(this.#host())
    return this.#layer
  }

  /** Does one thing whole, or not at all: `undefined` then. What is sent leaves once it is stored. */
  #run<T>(work: () => T): T | undefined {
    try {
      const result = this.#table.whole(work)
      if (this.#wakeAtMs !== undefined) void this.ctx.storage.setAlarm(this.#wakeAtMs)
      for (const send of this.#outbox) send()
      return result
    } catch (error) {
      // What it had in memory is not what is stored.
      this.#layer = undefined
      console.error('mcp-sessions: a message was not done:', error)
      return undefined
    } finally {
      this.#outbox = []
      this.#wakeAtMs = undefined
    }
  }

  /** The open socket of a node. */
  #socket(node: string): ServerSocket | undefined {
    const known = this.#sockets.get(node)
    if (known?.readyState === OPEN) return known
    this.#sockets.delete(node)
    const found = this.ctx.getWebSockets(node).find((socket) => socket.readyState === OPEN)
    if (found !== undefined) this.#sockets.set(node, found)
    return found
  }

  #send(node: string, message: Uint8Array | string): void {
    try {
      this.#socket(node)?.send(message)
    } catch {
      // It is closing; the node reads what it missed when it is back.
    }
  }

  #host(): Host {
    return {
      nowMs: () => Date.now(),
      get: (key) => this.#table.get(key),
      put: (key, value) => this.#table.put(key, value),
      delete: (key) => this.#table.delete(key),
      scan: (from, to, most) => this.#table.scan(from, to, most),
      heardMs: (node) => {
        const socket = this.#socket(node)
        return socket && (this.ctx.getWebSocketAutoResponseTimestamp(socket)?.getTime() ?? 0)
      },
      send: (node, message) => {
        const own = message.slice()
        this.#outbox.push(() => this.#send(node, own))
      },
      say: (node, text) => void this.#outbox.push(() => this.#send(node, text)),
      end: (node, reason) =>
        void this.#outbox.push(() => {
          this.#send(node, JSON.stringify({ end: reason }))
          this.#socket(node)?.close(1000, reason)
          this.#sockets.delete(node)
        }),
      wakeAt: (atMs) => {
        this.#wakeAtMs = atMs
      },
    }
  }
}

/** Asking an object that was made with `new_classes` for SQL fails. */
function hasSql({ storage }: ObjectState): boolean {
  try {
    storage.sql.exec('SELECT 1')
    return true
  } catch (error) {
    if (/SQL is not enabled/i.test(String(error))) return false
    throw error
  }
}
