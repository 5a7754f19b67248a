// Answers that do not come from a transport, and requests as this module reads them.

import { type McpSessionsError, TooLargeError } from '../errors'

/** An answer in the transport's stead. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: number,
    message: string,
    readonly headers: Record<string, string> = {},
  ) {
    super(message)
  }

  response(): Response {
    const body = { jsonrpc: '2.0', error: { code: this.code, message: this.message }, id: null }
    return new Response(JSON.stringify(body), {
      status: this.status,
      headers: { 'content-type': 'application/json', ...this.headers },
    })
  }
}

export const unknownSession = () => new Refusal(404, -32001, 'Session not found')
export const missingSession = () => new Refusal(400, -32000, 'Bad Request: Mcp-Session-Id header is required')
export const notAllowed = () => new Refusal(405, -32000, 'Method not allowed.', { allow: 'GET, POST, DELETE' })
export const notAcceptable = () => new Refusal(406, -32000, 'Not Acceptable: Client must accept text/event-stream')
export const nobodyWaits = () =>
  new Refusal(400, -32600, 'The worker that asked for this is gone: nobody waits for the answer')
export const unreachable = () =>
  new Refusal(503, -32603, 'The sessions cannot be reached just now', { 'retry-after': '1' })
export const shuttingDown = () => new Refusal(503, -32603, 'This replica is shutting down', { 'retry-after': '0' })

/** What a client is answered when the engine can't do what it asked for. */
export function refusalOf(error: McpSessionsError): Refusal {
  switch (error.code) {
    case 'invalid_input':
    case 'too_large':
      return new Refusal(400, -32600, error.message)
    case 'not_found':
    case 'unauthorized':
      return unknownSession()
    case 'unavailable':
    case 'timeout':
    case 'closed':
      return unreachable()
    default:
      return new Refusal(500, -32603, 'The session could not be looked up')
  }
}

/** A JSON-RPC message, as far as it is looked at. */
export interface Message {
  jsonrpc?: unknown
  id?: unknown
  method?: unknown
  params?: Record<string, unknown>
  result?: Record<string, unknown>
  error?: unknown
}

/** The messages of a body; what is none is the transport's to refuse. */
export function messagesOf(body: unknown): Message[] {
  const all = Array.isArray(body) ? body : [body]
  return all.filter((one): one is Message => typeof one === 'object' && one !== null)
}

export const isResponse = (message: Message): boolean =>
  message.method === undefined && (message.result !== undefined || message.error !== undefined)

/** The body of a POST as JSON. Throws a {@link Refusal} for what is too large or no JSON. */
export async function readBody(request: Request, limit: number): Promise<unknown> {
  const tooLarge = () => new Refusal(413, -32000, `Request body is over the limit of ${limit} bytes`)
  if (Number(request.headers.get('content-length') ?? 0) > limit) throw tooLarge()
  const bytes = await gather(request, limit).catch((error) => {
    throw error instanceof TooLargeError ? tooLarge() : new Refusal(400, -32700, 'Parse error: the body ended early')
  })
  try {
    return JSON.parse(new TextDecoder().decode(bytes))
  } catch {
    throw new Refusal(400, -32700, 'Parse error: Invalid JSON')
  }
}

async function gather(request: Request, limit: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of request.body ?? []) {
    size += chunk.length
    if (size > limit) throw new TooLargeError(`over ${limit} bytes`, 'readBody')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks, size)
}

/** The same answer; `over` is called once its body was read to the end, or nobody reads it any more. */
export function whenOver(response: Response, over: () => void): Response {
  if (response.body === null) {
    over()
    return response
  }
  const reader = response.body.getReader()
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await reader.read()
          if (!done) return controller.enqueue(value)
          over()
          controller.close()
        } catch (error) {
          over()
          controller.error(error)
        }
      },
      cancel(reason) {
        over()
        return reader.cancel(reason)
      },
    },
    // Nothing waits in between, or a slow client would not be noticed.
    { highWaterMark: 0 },
  )
  const { status, statusText, headers } = response
  return new Response(body, { status, statusText, headers })
}
