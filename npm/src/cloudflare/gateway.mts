// The way in for engines outside of Cloudflare.

import { checkShards, objectName, shardsOf, type WorkerSocket } from './objects.mjs'
import { type ObjectNamespace, workers } from './platform.mjs'
import { relay } from './relay.mjs'
import { PROTOCOL } from './sync-layer.mjs'

const NODE = /^[0-9a-f]{32}$/
const PREFIX = /^[\x21-\x7e]{0,256}$/

/** How a gateway is found and guarded. */
export interface GatewayOptions {
  /** The binding of the Durable Objects. Default `TMCP_DURABLE_OBJECT`. */
  binding?: string
  /** How many objects share the sessions: as the managers have it (default: `TMCP_SHARDS`, else 8). */
  shards?: number
  /** The secret that engines have to know. Default: the Worker's secret `TMCP_GATEWAY_TOKEN`. */
  token?: string
}

/**
 * Lets engines outside of Cloudflare share the Worker's sessions: they connect with
 * `cloudflare://<host of the Worker>/<path>?token=<secret>`. Serve it under a path of its own.
 *
 * ```js
 * if (new URL(request.url).pathname === '/sessions') return gateway(env)(request)
 * ```
 */
export function gateway(env: unknown, options: GatewayOptions = {}): (request: Request) => Promise<Response> {
  const bindings = env as Record<string, unknown>
  const binding = options.binding ?? 'TMCP_DURABLE_OBJECT'
  const token = options.token ?? bindings.TMCP_GATEWAY_TOKEN
  const objects = bindings[binding] as ObjectNamespace | undefined
  if (typeof objects?.getByName !== 'function') throw new Error(`${binding} is not a Durable Object namespace`)
  if (typeof token !== 'string' || token === '') {
    throw new Error('a gateway needs a secret: wrangler secret put TMCP_GATEWAY_TOKEN')
  }
  const shards = options.shards === undefined ? shardsOf(bindings) : checkShards(options.shards)
  return (request) => enter(request, objects, shards, token)
}

async function enter(request: Request, objects: ObjectNamespace, shards: number, token: string): Promise<Response> {
  if (!(await same(request.headers.get('Authorization') ?? '', `Bearer ${token}`))) {
    return new Response('unauthorized', { status: 401, headers: { 'WWW-Authenticate': 'Bearer' } })
  }
  const protocols = (request.headers.get('Sec-WebSocket-Protocol') ?? '').split(',')
  if (
    request.headers.get('Upgrade')?.toLowerCase() !== 'websocket' ||
    !protocols.some((it) => it.trim() === PROTOCOL)
  ) {
    const headers = { Upgrade: 'websocket', 'Sec-WebSocket-Protocol': PROTOCOL }
    return new Response(`this gateway speaks ${PROTOCOL}`, { status: 426, headers })
  }
  const query = new URL(request.url).searchParams
  const [node, prefix] = [query.get('node') ?? '', query.get('prefix') ?? 'tmcp:']
  if (!NODE.test(node) || !PREFIX.test(prefix)) return new Response('not a node', { status: 400 })
  const sockets = await connectAll(objects, prefix, node, shards)
  if (sockets === undefined) return new Response('an object does not answer', { status: 503 })
  const [only] = sockets
  const webSocket = sockets.length === 1 ? only : relay(sockets)
  const headers = { 'Sec-WebSocket-Protocol': PROTOCOL, 'MCP-Sessions-Shards': String(shards) }
  return new Response(null, { status: 101, webSocket, headers } as ResponseInit)
}

/** A socket to each object; `undefined`, and none left open, when one can't be had. */
async function connectAll(
  objects: ObjectNamespace,
  prefix: string,
  node: string,
  shards: number,
): Promise<WorkerSocket[] | undefined> {
  const connect = async (shard: number) => {
    // Not the request itself: what else it says is none of the object's business.
    const answer = await objects
      .getByName(objectName(prefix, shard, shards))
      .fetch(`https://sync-layer/?node=${node}`, { headers: { Upgrade: 'websocket' } })
    return (answer as Response & { webSocket?: WorkerSocket }).webSocket
  }
  const tries = await Promise.allSettled(Array.from({ length: shards }, (_, shard) => connect(shard)))
  const sockets = tries.flatMap((it) => (it.status === 'fulfilled' && it.value ? [it.value] : []))
  if (sockets.length === shards) return sockets
  for (const socket of sockets) {
    socket.accept()
    socket.close(1012, 'another object does not answer')
  }
  return undefined
}

/** Compares in a time that says nothing about where they differ, or how long the secret is. */
async function same(given: string, wanted: string): Promise<boolean> {
  const text = new TextEncoder()
  const { subtle } = workers.crypto
  const [a, b] = await Promise.all([given, wanted].map((it) => subtle.digest('SHA-256', text.encode(it))))
  return a !== undefined && b !== undefined && subtle.timingSafeEqual(a, b)
}
