import { checkSessionId } from '../check'
import { ConfigError } from '../errors'
import { InMemoryInfoSessionManager } from './info'
import { InMemoryStreamSessionManager } from './streams'
import { type Opening, visits } from './visit'

/** What is needed of tmcp's `HttpTransport` or `SseTransport`. */
export interface ResumableTransport {
  // biome-ignore lint/suspicious/noExplicitAny: each transport has its own type of context
  respond(request: Request, ctx?: any): Promise<Response | null>
  close(): void | Promise<void>
}

/** How `resumable` behaves. */
export interface ResumableOptions {
  /** The managers that the transport was made with. */
  sessionManager: { streams: InMemoryStreamSessionManager; info: InMemoryInfoSessionManager }
  /**
   * Requests with a session id that is unknown, or was terminated: `accept` lets them pass as tmcp does
   * (the default), `reject` answers 404, so that the client starts over.
   */
  unknownSessions?: 'accept' | 'reject'
  /**
   * A client that opens its stream again while the old one still stands: `replace` ends the old one
   * (the default), `reject` answers 409 until it is noticed that the old one is dead.
   */
  conflict?: 'replace' | 'reject'
  /** Milliseconds a client is asked to wait before it reconnects (default: 1,000). */
  retryMs?: number
  /** Told when a stream was resumed with a gap: what is lost, the client has to ask for again. */
  onGap?: (gap: { sessionId: string; lastEventId: string | undefined }) => void
}

/** A transport whose streams can be resumed: the methods of the one that was wrapped. */
export type Resumable<T extends ResumableTransport> = Pick<
  T,
  Extract<keyof T, 'respond' | 'close' | 'closeSubscription'>
>

/** The header of a stream that was resumed with a gap. */
const GAP_HEADER = 'mcp-sessions-gap'
/** From here on a request carries its own metadata, and there are no sessions. */
const FIRST_MODERN_VERSION = '2026-07-28'
const MODERN_METADATA = 'io.modelcontextprotocol/'

/**
 * Makes the streams of a transport resumable: a GET with `Last-Event-ID` gets what its client missed,
 * exactly once, on whatever node; clients are told when to come back; a client that is back before its
 * dead stream was noticed takes it over; a DELETE ends the session, a mere disconnect does not.
 * Requests of the modern era pass untouched.
 *
 * @example
 * ```ts
 * import { InMemoryInfoSessionManager, InMemoryStreamSessionManager, resumable } from 'mcp-sessions/tmcp'
 *
 * declare function makeTransport(options: object): {
 *   respond(request: Request): Promise<Response | null>
 *   close(): Promise<void>
 * }
 *
 * const sessionManager = {
 *   streams: new InMemoryStreamSessionManager(),
 *   info: new InMemoryInfoSessionManager(),
 * }
 * const transport = resumable(makeTransport({ sessionManager }), { sessionManager, unknownSessions: 'reject' })
 * const respond = (request: Request) => transport.respond(request)
 * ```
 */
export function resumable<T extends ResumableTransport>(transport: T, options: ResumableOptions): Resumable<T> {
  const door = new Door(transport, checked(options))
  const wrapped: Record<string, unknown> = {
    respond: (request: Request, ctx?: unknown) => door.respond(request, ctx),
    close: () => transport.close(),
  }
  if (isHttp(transport)) wrapped.closeSubscription = (response: Response) => transport.closeSubscription(response)
  return wrapped as Resumable<T>
}

type Checked = Required<Omit<ResumableOptions, 'onGap'>> & Pick<ResumableOptions, 'onGap'>

function checked(options: ResumableOptions): Checked {
  const { sessionManager, unknownSessions = 'accept', conflict = 'replace', retryMs = 1_000, onGap } = options ?? {}
  const rules: [boolean, string][] = [
    [
      sessionManager?.streams instanceof InMemoryStreamSessionManager,
      'sessionManager.streams is a stream manager of mcp-sessions/tmcp',
    ],
    [
      sessionManager?.info instanceof InMemoryInfoSessionManager,
      'sessionManager.info is an info manager of mcp-sessions/tmcp',
    ],
    [unknownSessions === 'accept' || unknownSessions === 'reject', 'unknownSessions is accept or reject'],
    [conflict === 'replace' || conflict === 'reject', 'conflict is replace or reject'],
    [Number.isSafeInteger(retryMs) && retryMs >= 0, 'retryMs is a whole number of milliseconds'],
    [onGap === undefined || typeof onGap === 'function', 'onGap is a function'],
  ]
  for (const [holds, rule] of rules) if (!holds) throw new ConfigError(rule, 'resumable')
  return { sessionManager, unknownSessions, conflict, retryMs, ...(onGap && { onGap }) }
}

interface HttpLike extends ResumableTransport {
  closeSubscription(response: Response): Promise<boolean>
}

/** HttpTransport names its session in a header, SseTransport in the URL, too. */
function isHttp(transport: ResumableTransport): transport is HttpLike {
  return 'closeSubscription' in transport && typeof transport.closeSubscription === 'function'
}

/** The answer to a request that does not reach the transport. */
class Refusal {
  constructor(
    readonly status: number,
    readonly code: number,
    readonly message: string,
  ) {}
}

const UNKNOWN = new Refusal(404, -32001, 'Session not found')

class Door {
  #transport: ResumableTransport
  #options: Checked

  constructor(transport: ResumableTransport, options: Checked) {
    this.#transport = transport
    this.#options = options
  }

  async respond(request: Request, ctx: unknown): Promise<Response | null> {
    const { method } = request
    const concerned = method === 'GET' || method === 'POST' || method === 'DELETE'
    if (!concerned || isModern(request)) return this.#transport.respond(request, ctx)
    const id = this.#sessionId(request)
    const refusal = await this.#refusal(request, id)
    if (refusal !== undefined) return this.#refuse(request, refusal)
    if (method === 'GET') return this.#open(request, ctx)
    if (method === 'DELETE') return visits.run({ kind: 'terminate' }, () => this.#transport.respond(request, ctx))
    return this.#transport.respond(request, ctx)
  }

  #sessionId(request: Request): string | undefined {
    const inUrl = isHttp(this.#transport) ? null : new URL(request.url).searchParams.get('session_id')
    return inUrl || request.headers.get('mcp-session-id') || undefined
  }

  async #refusal(request: Request, id: string | undefined): Promise<Refusal | undefined> {
    const { sessionManager, unknownSessions } = this.#options
    const reject = unknownSessions === 'reject'
    if (id === undefined) {
      // A new session begins without an id: with `initialize`, or with the stream of an SseTransport.
      const begins = !isHttp(this.#transport) && request.method === 'GET'
      if (!reject || begins || (await mayBegin(request))) return undefined
      return new Refusal(400, -32600, 'The Mcp-Session-Id header is missing')
    }
    try {
      checkSessionId(id, 'resumable')
    } catch (error) {
      return new Refusal(400, -32600, (error as Error).message)
    }
    if (reject && !(await sessionManager.streams.known(id)) && !(await mayBegin(request))) return UNKNOWN
    const lastEventId = request.headers.get('last-event-id')
    if (request.method !== 'GET' || !lastEventId) return undefined
    const problem = sessionManager.streams.cursorProblem(id, lastEventId)
    return problem === undefined ? undefined : new Refusal(400, -32600, problem)
  }

  /** Answers in the transport's stead, but only where it would answer, and with its CORS headers. */
  async #refuse(request: Request, { status, code, message }: Refusal): Promise<Response | null> {
    const headers = new Headers()
    for (const name of ['origin', 'host']) {
      const value = request.headers.get(name)
      if (value !== null) headers.set(name, value)
    }
    const probe = await this.#transport.respond(new Request(request.url, { method: 'OPTIONS', headers }))
    if (probe === null || probe.status === 403) return probe
    const answer = new Headers({ 'content-type': 'application/json' })
    for (const [name, value] of probe.headers) if (name.startsWith('access-control-')) answer.set(name, value)
    return new Response(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code, message } }), {
      status,
      headers: answer,
    })
  }

  async #open(request: Request, ctx: unknown): Promise<Response | null> {
    const { conflict, retryMs, onGap } = this.#options
    const after = request.headers.get('last-event-id') || undefined
    const opening: Opening = { kind: 'open', after, conflict, retryMs, onGap }
    const response = await visits.run(opening, () => this.#transport.respond(request, ctx))
    const { stream } = opening
    if (response?.body == null || stream === undefined) return response
    const reader = response.body.getReader()
    const body = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const { done, value } = await reader.read()
          if (done) controller.close()
          else controller.enqueue(value)
        },
        // The transport only tells which session's stream is cancelled: this tells which stream.
        cancel: (reason) => visits.run({ kind: 'leave', stream }, () => reader.cancel(reason)),
      },
      // Nothing waits in between, or a slow client would not be noticed.
      { highWaterMark: 0 },
    )
    const headers = new Headers(response.headers)
    if (opening.gap) headers.set(GAP_HEADER, 'true')
    return new Response(body, { status: response.status, statusText: response.statusText, headers })
  }
}

function isModern(request: Request): boolean {
  // Versions are dates, so they compare as text.
  return (request.headers.get('mcp-protocol-version') ?? '') >= FIRST_MODERN_VERSION
}

/** Whether a POST may come without a known session: `initialize`, or a request of the modern era. */
async function mayBegin(request: Request): Promise<boolean> {
  if (request.method !== 'POST') return false
  let body: unknown
  try {
    body = await request.clone().json()
  } catch {
    // What is no JSON is the transport's to refuse.
    return true
  }
  const messages = Array.isArray(body) ? body : [body]
  return messages.some((message) => message?.method === 'initialize' || hasMetadata(message?.params?._meta))
}

function hasMetadata(meta: unknown): boolean {
  if (typeof meta !== 'object' || meta === null) return false
  return Object.keys(meta).some((key) => key.startsWith(MODERN_METADATA))
}
