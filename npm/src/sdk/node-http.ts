// From `node:http` to `fetch` and back.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import type { AuthInfo } from './types'

/** What a request brings besides itself, as middleware left it there. */
export interface RequestContext {
  /** Who sent it. */
  authInfo?: AuthInfo | undefined
  /** Its body, if it was read already. */
  parsedBody?: unknown
}

/** A request of `node:http`, or of Express, with what its middleware found out. */
export interface NodeRequest extends IncomingMessage {
  // biome-ignore lint/suspicious/noExplicitAny: each SDK has its own type of auth info
  auth?: any
  body?: unknown
  /** Express: the path before routers took a part of it away. */
  originalUrl?: string
}

export type FetchHandler = (request: Request, context: RequestContext) => Promise<Response>

/** Answers a request of `node:http` with what a fetch handler says. */
export async function serveNode(
  req: NodeRequest,
  res: ServerResponse,
  parsedBody: unknown,
  handler: FetchHandler,
): Promise<void> {
  // Express hands its handlers a `next` there.
  const given = typeof parsedBody === 'function' ? req.body : (parsedBody ?? req.body)
  const hasBody = req.method !== 'GET' && req.method !== 'HEAD' && given === undefined
  const request = new Request(urlOf(req), {
    method: req.method ?? 'GET',
    headers: headersOf(req),
    ...(hasBody && { body: Readable.toWeb(req) as ReadableStream<Uint8Array>, duplex: 'half' as const }),
  })
  await write(await handler(request, { authInfo: req.auth, parsedBody: given }), res)
}

function urlOf(req: NodeRequest): string {
  const protocol = 'encrypted' in req.socket ? 'https' : 'http'
  const path = req.originalUrl ?? req.url ?? '/'
  const base = `${protocol}://${req.headers.host ?? 'localhost'}`
  return URL.canParse(path, base) ? new URL(path, base).href : new URL('/', 'http://localhost').href
}

function headersOf({ headersDistinct }: IncomingMessage): Headers {
  const headers = new Headers()
  for (const [name, values] of Object.entries(headersDistinct)) {
    // HTTP/2 has headers of its own.
    if (!name.startsWith(':')) for (const value of values ?? []) headers.append(name, value)
  }
  return headers
}

async function write(response: Response, res: ServerResponse): Promise<void> {
  const reader = response.body?.getReader()
  if (res.destroyed) {
    await reader?.cancel()
    return
  }
  // Middleware may have set headers of its own, such as those of CORS.
  for (const [name, value] of response.headers) res.setHeader(name, value)
  res.writeHead(response.status)
  if (reader === undefined) {
    res.end()
    return
  }
  res.flushHeaders()
  let gone = false
  const leave = () => {
    gone = true
    void reader.cancel().catch(() => {})
  }
  res.once('close', leave)
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done || gone) break
      if (!res.write(value)) await drained(res)
    }
    res.end()
  } catch {
    // The stream broke in the middle: so does the answer, and its client comes back.
    res.destroy()
  } finally {
    res.off('close', leave)
  }
}

function drained(res: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      res.off('drain', done)
      res.off('close', done)
      resolve()
    }
    res.on('drain', done)
    res.on('close', done)
  })
}
