// What a session handler does with a request.

import { checkSessionId } from '../check'
import type { Engine } from '../engine'
import { asError, McpSessionsError } from '../errors'
import type { SessionInfo } from '../info'
import type { ActiveRequest, SessionRecord } from '../registry'
import { type Source, sourceOf } from '../tmcp/source'
import {
  type Message,
  messagesOf,
  missingSession,
  nobodyWaits,
  notAcceptable,
  notAllowed,
  Refusal,
  readBody,
  refusalOf,
  shuttingDown,
  unknownSession,
  whenOver,
} from './answers'
import { followClosings, Owed } from './closing'
import { digest } from './digest'
import { eventStore, GET_STREAM, newSessionId } from './event-store'
import type { CloseOptions, HandlerStats, ServerFactory, SessionHandlerOptions } from './handler'
import { Home, Muted } from './home'
import { KeepAlive, openStream } from './log-stream'
import { askerOf, isCancellation, isResource, type Letter, letterOf, Mail } from './mail'
import type { RequestContext } from './node-http'
import { ownerOf } from './owner'
import { webTransport } from './transports'
import type { AuthInfo, MadeWith, SessionServer, TransportClass, WebTransport } from './types'

const MAX_BODY_BYTES = 4 << 20
const KEEP_ALIVE_MS = 15_000
const RETRY_MS = 1_000
/** From here on there are no sessions. */
const FIRST_MODERN_VERSION = '2026-07-28'
const VERSION = /^\d{4}-\d{2}-\d{2}$/

/** What the sessions stand on, once it was reached. */
interface Ground {
  engine: Engine
  mail: Mail
}

/** A request, with what was found out about it. */
interface Visit extends Ground {
  request: Request
  auth: AuthInfo | undefined
  owner: string | undefined
}

export class Sessions<TServer extends SessionServer> {
  #factory: ServerFactory<TServer>
  #options: SessionHandlerOptions
  #source: Source
  #owed: Owed
  #homes = new Map<string, Home<TServer>>()
  /** Homes that are being made of sessions of other replicas. */
  #arriving = new Map<string, Promise<Home<TServer>>>()
  #keepAlive: KeepAlive
  #Transport: Promise<TransportClass<WebTransport>> | undefined
  #ground: Ground | undefined
  #unfollow: (() => void) | undefined
  #requests = 0
  #streams = 0
  #closed: Promise<void> | undefined
  #idle: (() => void) | undefined

  constructor(factory: ServerFactory<TServer>, options: SessionHandlerOptions) {
    this.#factory = factory
    this.#options = options
    const { Transport: _, transportOptions, owner, metadata, adopt, ...rest } = options
    const { onSessionInitialized, onSessionClosed, onGap, ...engine } = rest
    this.#source = sourceOf(engine, 'sessions')
    this.#owed = new Owed(this.#source.failures.report)
    this.#keepAlive = new KeepAlive(transportOptions?.keepAliveMs ?? KEEP_ALIVE_MS)
  }

  async engine(): Promise<Engine> {
    return (await this.#reached()).engine
  }

  async #reached(): Promise<Ground> {
    const engine = await this.#source.connected('sessions')
    if (this.#ground === undefined) {
      this.#unfollow = followClosings(engine, (session, reason) => void this.#end(session, reason))
      this.#ground = { engine, mail: new Mail(engine, (letter) => this.#deliver(letter), this.#report) }
    }
    await this.#ground.mail.opened
    return this.#ground
  }

  /** Answers a request. It counts as under way from its first moment, so that no shutdown overtakes it. */
  async answer(request: Request, context: RequestContext): Promise<Response> {
    const over = this.#underWay()
    try {
      const response = await this.#route(request, context)
      // A stream goes on until somebody ends it.
      if (request.method === 'POST') return whenOver(response, over)
      over()
      return response
    } catch (error) {
      over()
      return this.#refusal(error).response()
    }
  }

  #underWay(): () => void {
    this.#requests += 1
    return once(() => {
      this.#requests -= 1
      if (this.#requests === 0) this.#idle?.()
    })
  }

  #refusal(error: unknown): Refusal {
    if (error instanceof Refusal) return error
    const failure = asError(error, 'sessions')
    if (error instanceof McpSessionsError) return refusalOf(failure)
    this.#source.failures.report(failure)
    return new Refusal(500, -32603, 'Internal error')
  }

  async closeSession(sessionId: string, reason = 'closed'): Promise<boolean> {
    const engine = await this.engine()
    const closed = await engine.registry.close(sessionId, reason)
    await this.#end(sessionId, reason)
    return closed
  }

  async closeByOwner(owner: string, reason = 'closed'): Promise<number> {
    const engine = await this.engine()
    const closed = await engine.registry.closeByOwner(owner, reason)
    const own = [...this.#homes.values()].filter((home) => home.owner === digest(owner))
    await Promise.all(own.map((home) => this.#end(home.id, reason)))
    return closed
  }

  async stats(): Promise<HandlerStats> {
    const { total, active, stale, closing } = await (await this.engine()).registry.stats()
    return {
      totalSessions: total,
      activeSessions: active,
      staleSessions: stale,
      closingSessions: closing,
      localSessions: this.#homes.size,
      localRequests: this.#requests,
      localStreams: this.#streams,
    }
  }

  close(options: CloseOptions = {}): Promise<void> {
    this.#closed ??= this.#closing(options)
    return this.#closed
  }

  async #closing({ deadlineMs = 5_000, endSessions = false }: CloseOptions): Promise<void> {
    // Their clients come back to another replica with their last ids.
    for (const home of this.#homes.values()) home.endStreams()
    await this.#drained(deadlineMs)
    this.#unfollow?.()
    const closing = async (home: Home<TServer>) => {
      // What the backend can't be told of is stale some day, and swept.
      if (endSessions) await this.#ground?.engine.registry.close(home.id, 'shutdown').catch(this.#report)
      await this.#end(home.id, 'shutdown')
    }
    await Promise.all([...this.#homes.values()].map(closing))
    await this.#ground?.mail.close()
    this.#owed.stop()
    await this.#source.release()
  }

  async #drained(deadlineMs: number): Promise<void> {
    if (this.#requests === 0) return
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve) => {
      timer = setTimeout(resolve, deadlineMs)
      this.#idle = resolve
    })
    clearTimeout(timer)
  }

  async #route(request: Request, { authInfo, parsedBody }: RequestContext): Promise<Response> {
    const { method, headers } = request
    if (method !== 'POST' && method !== 'GET' && method !== 'DELETE') throw notAllowed()
    if (this.#closed !== undefined) throw shuttingDown()
    const id = headers.get('mcp-session-id')
    if (id === null && method !== 'POST') throw missingSession()
    if (id !== null) checkSessionId(id, 'sessions')
    const ground = await this.#reached()
    const { owner = ownerOf, transportOptions } = this.#options
    const visit = { ...ground, request, auth: authInfo ?? undefined, owner: owner(authInfo ?? undefined, request) }
    if (method === 'GET') return this.#open(visit, id as string)
    if (method === 'DELETE') return this.#delete(visit, id as string)
    const limit = transportOptions?.maxRequestBodySize ?? MAX_BODY_BYTES
    const body = parsedBody === undefined ? await readBody(request, limit) : parsedBody
    return id === null ? this.#begin(visit, body) : this.#post(visit, id, body)
  }

  /** A POST without a session: `initialize` begins one. */
  async #begin(visit: Visit, body: unknown): Promise<Response> {
    const initialize = messagesOf(body).find(({ method }) => method === 'initialize')
    if (initialize === undefined) throw missingSession()
    const { engine, mail, owner } = visit
    const id = newSessionId()
    let problem: unknown
    let request: ActiveRequest | undefined
    const registered = async () => {
      try {
        const context = { sessionId: id, authInfo: visit.auth, adopted: false }
        await engine.registry.create({ id, owner, metadata: this.#options.metadata?.(context) })
        request = await engine.registry.beginRequest(id)
        await this.#options.onSessionInitialized?.(id)
      } catch (error) {
        problem = error
        throw error
      }
    }
    const home = await this.#make(visit, id, false, { onsessioninitialized: registered })
    const keep = (said: SessionInfo) => Promise.all([engine.info.put(id, said), mail.join(id)])
    home.noteInitialize(initialize, keep, (error) => {
      this.#report(error)
      void this.#endEverywhere(home, 'closed')
    })
    const response = await this.#dispatch(home, visit, body)
    if (problem === undefined && request !== undefined) return this.#whenOver(response, request)
    // The transport refused it, or it could not be registered: nothing has begun.
    await this.#end(id, 'refused', false)
    if (problem === undefined) return response
    await response.body?.cancel()
    if (request !== undefined) this.#endEverywhere(home, 'closed')
    throw problem
  }

  async #post(visit: Visit, id: string, whole: unknown): Promise<Response> {
    const body = await this.#passOn(visit, id, whole)
    if (body === undefined) return new Response(null, { status: 202 })
    const home = await this.#home(visit, id)
    const request = await visit.engine.registry.beginRequest(id)
    try {
      await this.#note(visit.engine, id, body)
      const response = await this.#dispatch(home, visit, body)
      await this.#tellOthers(visit, id, body)
      return this.#whenOver(response, request)
    } catch (error) {
      request[Symbol.dispose]()
      throw error
    }
  }

  /** Hands answers, and progress, to the replicas that asked; resolves to what is for this one, if anything is. */
  async #passOn(visit: Visit, id: string, body: unknown): Promise<unknown> {
    const { mail, engine, request } = visit
    const isForOther = (message: Message) => ![undefined, mail.name].includes(askerOf(message))
    const messages = messagesOf(body)
    const others = messages.filter(isForOther)
    if (others.length === 0) return body
    if ((await engine.registry.get(id, caller(visit))) === undefined) throw unknownSession()
    const passed = others.map((one) => mail.send(askerOf(one) as string, letterOf(id, request, one)))
    const arrived = await Promise.all(passed)
    if (others.length < messages.length) return messages.filter((one) => !isForOther(one))
    if (arrived.includes(false)) throw nobodyWaits()
    return undefined
  }

  /** A cancellation may be of what another replica does. */
  async #tellOthers({ mail, request }: Visit, id: string, body: unknown): Promise<void> {
    const cancelled = messagesOf(body).filter(isCancellation)
    const told = cancelled.map((one) => mail.sendOthers(letterOf(id, request, one)))
    await Promise.all(told).catch(this.#report)
  }

  /** Takes in what another replica passes on. */
  async #deliver({ session, headers, message }: Letter): Promise<void> {
    const home = this.#homes.get(session)
    const request = new Request('http://localhost/', { method: 'POST', headers })
    await home?.take(request, message, undefined)
  }

  /** What another replica has to know of what a client says. */
  async #note({ info }: Engine, id: string, body: unknown): Promise<void> {
    for (const { method, params } of messagesOf(body)) {
      const { uri, level } = params ?? {}
      if (method === 'logging/setLevel' && isLevel(level)) await info.setLogLevel(id, level)
      else if (typeof uri !== 'string' || !isResource(uri)) continue
      else if (method === 'resources/subscribe') await info.addSubscription(id, uri)
      else if (method === 'resources/unsubscribe') await info.removeSubscription(id, uri)
    }
  }

  async #dispatch(home: Home<TServer>, { request, auth }: Visit, parsedBody: unknown): Promise<Response> {
    if (home.over) throw this.#gone()
    return home.take(request, parsedBody, auth)
  }

  /** What has no home here any more is unknown, unless this replica is what goes. */
  #gone(): Refusal {
    return this.#closed === undefined ? unknownSession() : shuttingDown()
  }

  #whenOver(response: Response, request: ActiveRequest): Response {
    return whenOver(
      response,
      once(() => request[Symbol.dispose]()),
    )
  }

  async #open(visit: Visit, id: string): Promise<Response> {
    const { engine, request } = visit
    const { transportOptions, onGap } = this.#options
    if (!request.headers.get('accept')?.includes('text/event-stream')) throw notAcceptable()
    const given = request.headers.get('mcp-protocol-version')
    if (given !== null && !(VERSION.test(given) && given < FIRST_MODERN_VERSION))
      throw new Refusal(400, -32000, `Bad Request: Unsupported protocol version: ${given}`)
    const home = await this.#home(visit, id)
    // An open stream is a use of its session.
    const active = await engine.registry.beginRequest(id)
    const after = request.headers.get('last-event-id') || undefined
    let end = () => {}
    const over = once(() => {
      this.#streams -= 1
      home.streams.delete(end)
      active[Symbol.dispose]()
    })
    this.#streams += 1
    try {
      const stream = await openStream({
        log: engine.events(id),
        stream: GET_STREAM,
        after,
        version: home.version,
        retryMs: transportOptions?.retryInterval ?? RETRY_MS,
        keepAlive: this.#keepAlive,
        over,
      })
      end = stream.end
      if (home.over || this.#closed !== undefined) throw this.#gone()
      home.streams.add(end)
      if (stream.gap && after !== undefined) onGap?.({ sessionId: id, lastEventId: after })
      return new Response(stream.body, { headers: headersOf(id, stream.gap) })
    } catch (error) {
      end()
      over()
      throw error
    }
  }

  async #delete(visit: Visit, id: string): Promise<Response> {
    const { registry } = visit.engine
    if ((await registry.get(id, caller(visit))) === undefined) throw unknownSession()
    await registry.close(id, 'deleted')
    await this.#end(id, 'deleted')
    return new Response(null, { status: 200 })
  }

  /** The session's home: it is here, or it arrives. Throws as an unknown session does for all but its owner. */
  async #home(visit: Visit, id: string): Promise<Home<TServer>> {
    const here = this.#homes.get(id)
    if (here !== undefined) {
      if (here.owner !== digest(visit.owner)) throw unknownSession()
      if (here.over) throw this.#gone()
      return here
    }
    const record = await visit.engine.registry.get(id, caller(visit))
    if (record === undefined || this.#options.adopt === false) throw unknownSession()
    let arriving = this.#homes.get(id) ?? this.#arriving.get(id)
    if (arriving === undefined) {
      arriving = this.#adopt(visit, record).finally(() => this.#arriving.delete(id))
      this.#arriving.set(id, arriving)
    }
    return arriving
  }

  async #adopt(visit: Visit, { id, info = {} }: SessionRecord): Promise<Home<TServer>> {
    const { engine, mail, request } = visit
    const { initializeParams: params, protocolVersion: version = '' } = info
    // Before it has answered `initialize`, nobody can go on with it.
    if (params === undefined || !(await engine.registry.adopt(id))) throw unknownSession()
    const store = this.#store(engine, id)
    store.muted = true
    const home = await this.#make(visit, id, true, {}, store)
    const [uris] = await Promise.all([engine.info.getSessionSubscriptions(id), mail.join(id)])
    if (!(await home.replay({ params, version, info }, request, uris.filter(isResource))) || home.over) {
      await this.#end(id, 'refused', false)
      throw unknownSession()
    }
    store.muted = false
    return home
  }

  #store(engine: Engine, id: string): Muted {
    return new Muted(eventStore(engine, { sessionId: id, onError: this.#source.failures.hook }).eventStore)
  }

  async #make(visit: Visit, id: string, adopted: boolean, more: Partial<MadeWith>, store?: Muted) {
    const { Transport, transportOptions } = this.#options
    this.#Transport ??= Transport === undefined ? webTransport() : Promise.resolve(Transport)
    const Made = await this.#Transport
    const eventStore = store ?? this.#store(visit.engine, id)
    const server = await this.#factory({ sessionId: id, authInfo: visit.auth, adopted })
    const transport = new Made({ ...transportOptions, ...more, sessionIdGenerator: () => id, eventStore })
    const home = new Home(id, digest(visit.owner), server, transport, visit.mail.name)
    home.transport.onclose = () => {
      // The server closed itself.
      if (!home.over) void this.#endEverywhere(home, 'closed')
    }
    // Before it is registered, so that no closing is missed.
    this.#homes.set(id, home)
    try {
      await server.connect(home.transport)
    } catch (error) {
      await this.#end(id, 'refused', false)
      throw error
    }
    return home
  }

  async #endEverywhere(home: Home<TServer>, reason: string): Promise<void> {
    await this.#end(home.id, reason)
    if (this.#ground !== undefined) await this.#owed.close(this.#ground.engine, home.id, reason)
  }

  /** Ends what is here of a session. */
  async #end(id: string, reason: string, tell = true): Promise<void> {
    const home = this.#homes.get(id)
    if (home === undefined) return
    const first = !home.over
    for (const problem of await home.end()) if (first) this.#report(problem)
    if (this.#homes.get(id) === home) this.#homes.delete(id)
    if (!first || !tell) return
    try {
      await this.#options.onSessionClosed?.(id, reason)
    } catch (error) {
      this.#report(error)
    }
  }

  #report = (thrown: unknown): void => this.#source.failures.report(asError(thrown, 'sessions'))
}

function caller({ owner }: Visit): { owner?: string } {
  return owner === undefined ? {} : { owner }
}

function headersOf(id: string, gap: boolean): Record<string, string> {
  return {
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
    'mcp-session-id': id,
    ...(gap && { 'mcp-sessions-gap': 'true' }),
  }
}

function once(work: () => void): () => void {
  let done = false
  return () => {
    if (!done) work()
    done = true
  }
}

function isLevel(level: unknown): level is import('../check').LogLevel {
  const levels = ['debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency']
  return typeof level === 'string' && levels.includes(level)
}
