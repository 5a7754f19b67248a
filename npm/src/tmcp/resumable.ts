import { checkSessionId } from '../check'
import type { Engine } from '../engine'
import { ConfigError, type McpSessionsError } from '../errors'
import type { ActiveRequest, Caller } from '../registry'
import { whenOver } from '../sdk/answers'
import { type OwnerOptions, Registered } from './registered'
import { type Opening, visits } from './visit'

/** What is needed of a stream manager: those of `mcp-sessions/tmcp` and `mcp-sessions/cloudflare` have it. */
export interface ResumableStreams {
  ready(): Promise<void>
  known(id: string): Promise<boolean>
  cursorProblem(id: string, cursor: string): string | undefined | Promise<string | undefined>
  /** The engine, whose registry `registry`, `oauth` and `owner` ask for. */
  engine?(): Promise<Engine>
}

/** What is needed of an info manager. */
export interface ResumableInfo {
  written(): Promise<void>
}

/** What is needed of tmcp's `HttpTransport` or `SseTransport`. */
export interface ResumableTransport {
  // biome-ignore lint/suspicious/noExplicitAny: each transport has its own type of context
  respond(request: Request, ctx?: any): Promise<Response | null>
  close(): void | Promise<void>
}

/** How `resumable` behaves. */
export interface ResumableOptions extends OwnerOptions {
  /** The managers that the transport was made with. */
  sessionManager: { streams: ResumableStreams; info: ResumableInfo }
  /**
   * Requests with a session id that is unknown, or was terminated: `accept` lets them pass as tmcp does
   * (the default), `reject` answers 404, so that the client starts over. With `registry`, `oauth` or `owner`
   * terminated and foreign sessions always answer 404.
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
 * dead stream was noticed takes it over; a DELETE ends the session, a mere disconnect does not. With `oauth` or
 * `owner` a session answers nobody but its owner: to all others it is unknown. Requests of the modern era pass untouched.
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
  const methods: Record<string, unknown> = {
    respond: (request: Request, ctx?: unknown) => door.respond(request, ctx),
    close: () => transport.close(),
  }
  if (isHttp(transport)) {
    methods.closeSubscription = (response: Response) => transport.closeSubscription(wrapped.get(response) ?? response)
  }
  return methods as Resumable<T>
}

type Checked = Required<Omit<ResumableOptions, 'onGap' | keyof OwnerOptions>> & {
  [K in 'onGap' | 'oauth']: ResumableOptions[K] | undefined
} & { registered: Registered | undefined }

function checked(options: ResumableOptions): Checked {
  const { sessionManager, unknownSessions = 'accept', conflict = 'replace', retryMs = 1_000, onGap } = options ?? {}
  const rules: [boolean, string][] = [
    [
      typeof sessionManager?.streams?.cursorProblem === 'function',
      'sessionManager.streams is a stream manager of mcp-sessions/tmcp',
    ],
    [
      typeof sessionManager?.info?.written === 'function',
      'sessionManager.info is an info manager of mcp-sessions/tmcp',
    ],
    [unknownSessions === 'accept' || unknownSessions === 'reject', 'unknownSessions is accept or reject'],
    [conflict === 'replace' || conflict === 'reject', 'conflict is replace or reject'],
    [Number.isSafeInteger(retryMs) && retryMs >= 0, 'retryMs is a whole number of milliseconds'],
    [onGap === undefined || typeof onGap === 'function', 'onGap is a function'],
  ]
  for (const [holds, rule] of rules) if (!holds) throw new ConfigError(rule, 'resumable')
  const registered = Registered.of(options)
  if (registered !== undefined && typeof sessionManager.streams.engine !== 'function') {
    throw new ConfigError('these managers have no registry; leave out registry, oauth and owner', 'resumable')
  }
  const { oauth } = options
  return { sessionManager, unknownSessions, conflict, retryMs, registered, oauth, onGap }
}

interface HttpLike extends ResumableTransport {
  closeSubscription(response: Response): Promise<boolean>
}

/** HttpTransport names its session in a header, SseTransport in the URL, too. */
function isHttp(transport: ResumableTransport): transport is HttpLike {
  return 'closeSubscription' in transport && typeof transport.closeSubscription === 'function'
}

/** The transport's own answers, by those that take their place. */
const wrapped = new WeakMap<Response, Response>()

/** The answer to a request that does not reach the transport. */
class Refusal {
  constructor(
    readonly status: number,
    readonly code: number,
    readonly message: string,
  ) {}
}

/** What a client is answered when its stream can't be opened. */
function refusalOf(error: McpSessionsError): Refusal {
  switch (error.code) {
    case 'conflict':
      return new Refusal(409, -32000, 'Conflict: Only one SSE stream is allowed per session')
    case 'invalid_input':
      return new Refusal(400, -32600, error.message)
    case 'unavailable':
    case 'timeout':
    case 'closed':
      return new Refusal(503, -32603, 'The sessions cannot be reached just now')
    default:
      return new Refusal(500, -32603, 'The session could not be looked up')
  }
}

const UNKNOWN = new Refusal(404, -32001, 'Session not found')

/** What is known of a request that passes. */
interface Entry {
  caller?: Caller
  engine?: Engine
  active?: ActiveRequest | undefined
}

/** A request counts until its answer was read, or nobody reads it any more. */
function counted(response: Response, active: ActiveRequest): Response {
  const over = whenOver(response, () => active[Symbol.dispose]())
  wrapped.set(over, wrapped.get(response) ?? response)
  return over
}

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
    const entry = await this.#enter(request, ctx, id).catch(refusalOf)
    if (entry instanceof Refusal) return this.#refuse(request, entry)
    try {
      const response = await this.#pass(request, ctx, id, entry)
      const { active } = entry
      return active === undefined || response === null ? response : counted(response, active)
    } catch (error) {
      entry.active?.[Symbol.dispose]()
      throw error
    }
  }

  /** What is found out before a request passes: whose it is, and that its session is there. */
  async #enter(request: Request, ctx: unknown, id: string | undefined): Promise<Entry | Refusal> {
    const { registered, unknownSessions } = this.#options
    const refusal = await this.#refusal(request, id)
    if (refusal !== undefined || registered === undefined) return refusal ?? {}
    const caller = await registered.caller(request, ctx)
    const engine = await this.#options.sessionManager.streams.engine?.()
    if (engine === undefined) return {}
    if (id === undefined) return { caller, engine }
    const entered = await registered.enter(engine, id, caller, unknownSessions === 'accept')
    return entered === undefined ? UNKNOWN : { caller, engine, active: entered.request }
  }

  async #pass(request: Request, ctx: unknown, id: string | undefined, entry: Entry): Promise<Response | null> {
    const { method } = request
    if (method === 'GET') return this.#open(request, ctx, id, entry)
    if (method === 'POST') {
      const response = this.#afterWrites(await this.#transport.respond(request, ctx))
      const begun = id === undefined && response?.ok ? response.headers.get('mcp-session-id') : null
      return begun === null || response === null ? response : this.#begin(request, begun, response, entry)
    }
    try {
      // The transport's own end of it finds nothing left.
      if (id !== undefined && entry.active !== undefined) await entry.engine?.registry.close(id, 'deleted')
    } catch (error) {
      return this.#refuse(request, refusalOf(error as McpSessionsError))
    }
    return visits.run({ kind: 'terminate' }, () => this.#transport.respond(request, ctx))
  }

  /** Registers a session that the transport has begun, before its client knows of it. */
  async #begin(request: Request, id: string, response: Response, entry: Entry): Promise<Response | null> {
    const { engine, caller } = entry
    const { registered } = this.#options
    if (registered === undefined || engine === undefined || caller === undefined) return response
    try {
      entry.active = await registered.begin(engine, id, caller)
      return response
    } catch (error) {
      void response.body?.cancel().catch(() => {})
      return this.#refuse(request, refusalOf(error as McpSessionsError))
    }
  }

  /** Holds an answer back until what its request set is known to the node that gets the next one. */
  #afterWrites(response: Response | null): Response | null {
    if (response?.body == null) return response
    const { info } = this.#options.sessionManager
    const hold = new TransformStream<Uint8Array, Uint8Array>({
      async transform(chunk, controller) {
        await info.written()
        controller.enqueue(chunk)
      },
    })
    const { status, statusText, headers } = response
    const held = new Response(response.body.pipeThrough(hold), { status, statusText, headers })
    wrapped.set(held, response)
    return held
  }

  #sessionId(request: Request): string | undefined {
    const inUrl = isHttp(this.#transport) ? null : new URL(request.url).searchParams.get('session_id')
    return inUrl || request.headers.get('mcp-session-id') || undefined
  }

  async #refusal(request: Request, id: string | undefined): Promise<Refusal | undefined> {
    const { sessionManager, unknownSessions } = this.#options
    // The registry knows better than the streams what became of a session.
    const reject = unknownSessions === 'reject' && (id === undefined || this.#options.registered === undefined)
    await sessionManager.streams.ready()
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
    const problem = await sessionManager.streams.cursorProblem(id, lastEventId)
    return problem === undefined ? undefined : new Refusal(400, -32600, problem)
  }

  /** Answers in the transport's stead, but only where it would answer, and with its CORS headers. */
  async #refuse(request: Request, { status, code, message }: Refusal): Promise<Response | null> {
    const headers = new Headers()
    for (const name of ['origin', 'host']) {
      const value = request.headers.get(name)
      if (value !== null) headers.set(name, value)
    }
    // Who did not say who it is may have to be asked first: the transport's 401 comes before any 404.
    const asked = status === 404 ? await this.#options.oauth?.respond?.(request.clone()) : undefined
    if (asked) return asked
    const probe = await this.#transport.respond(new Request(request.url, { method: 'OPTIONS', headers }))
    if (probe === null || probe.status === 403) return probe
    const answer = new Headers({ 'content-type': 'application/json' })
    for (const [name, value] of probe.headers) if (name.startsWith('access-control-')) answer.set(name, value)
    return new Response(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code, message } }), {
      status,
      headers: answer,
    })
  }

  async #open(request: Request, ctx: unknown, id: string | undefined, entry: Entry): Promise<Response | null> {
    const { conflict, retryMs, onGap } = this.#options
    const after = request.headers.get('last-event-id') || undefined
    const opening: Opening = { kind: 'open', after, conflict, retryMs, onGap }
    const response = await visits.run(opening, () => this.#transport.respond(request, ctx))
    const { stream } = opening
    if (response?.body == null || stream === undefined) return response
    // Where that takes time, the answer waits for what is known once the stream is open.
    const failure = await stream.settled()
    if (failure !== undefined) {
      void response.body.cancel().catch(() => {})
      return this.#refuse(request, refusalOf(failure))
    }
    if (id === undefined) {
      const begun = await this.#begin(request, stream.id, response, entry)
      if (begun !== response) return begun
    }
    const reader = response.body.getReader()
    let head = opening.greeting
    const body = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const parts: Uint8Array[] = []
          // A line that dies in between would leave its client without a cursor.
          for (let until = head; ; ) {
            const { done, value } = await reader.read()
            if (value !== undefined) parts.push(value)
            if (!done && until !== undefined && !isSame(value, until)) continue
            head = undefined
            for (const part of parts.length > 1 ? [joined(parts)] : parts) controller.enqueue(part)
            if (done) controller.close()
            return
          }
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

function isSame(value: Uint8Array, other: Uint8Array): boolean {
  return value.length === other.length && value.every((byte, at) => byte === other[at])
}

function joined(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
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
