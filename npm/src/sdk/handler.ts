import type { ServerResponse } from 'node:http'
import type { Engine } from '../engine'
import { ConfigError } from '../errors'
import type { JsonValue } from '../registry'
import type { ManagerOptions } from '../tmcp/source'
import type { NodeRequest, RequestContext } from './node-http'
import { serveNode } from './node-http'
import { Sessions } from './sessions'
import type { AuthInfo, SessionServer, TransportClass, TransportOptions, WebTransport } from './types'

/** What a server is made for. */
export interface ServerContext {
  /** The session. */
  sessionId: string
  /** Who opened it; on another replica, whose request brought it there. */
  authInfo: AuthInfo | undefined
  /** The session was opened on another replica, and goes on here. */
  adopted: boolean
}

/** Makes the server of a session. */
export type ServerFactory<TServer extends SessionServer = SessionServer> = (
  context: ServerContext,
) => TServer | Promise<TServer>

/** How a session handler behaves; and the options of its engine. */
export interface SessionHandlerOptions extends ManagerOptions {
  /** The class of transports: `WebStandardStreamableHTTPServerTransport`; by default that of the installed SDK. */
  Transport?: TransportClass<WebTransport>
  /** What every transport is made with. */
  transportOptions?: TransportOptions
  /**
   * What names the owner of a request; sessions answer their owners only. By default the token's client and
   * subject (`extra.sub`), or the token itself where the verifier tells no subject.
   */
  owner?: (authInfo: AuthInfo | undefined, request: Request) => string | undefined
  /** What the application keeps with a new session. */
  metadata?: (context: ServerContext) => JsonValue | undefined
  /**
   * Whether sessions of other replicas go on here (the default): a server is made and told what the client
   * said at `initialize`. With `false` they answer 404 here, and clients start over.
   */
  adopt?: boolean
  /** Told once a session was opened here. */
  onSessionInitialized?: (sessionId: string) => void | Promise<void>
  /** Told once a session of this process has ended, wherever it was closed: `deleted`, `stale`, … */
  onSessionClosed?: (sessionId: string, reason: string) => void | Promise<void>
  /** Told when a stream was resumed with a gap; the answer has the header `mcp-sessions-gap`, too. */
  onGap?: (gap: { sessionId: string; lastEventId: string }) => void
}

/** How a handler is closed. */
export interface CloseOptions {
  /** How long requests under way may take, in milliseconds (default: 5,000). */
  deadlineMs?: number
  /** Close the sessions, too; without it they go on, on other replicas. */
  endSessions?: boolean
}

/** What a handler serves, on all replicas and here. */
export interface HandlerStats {
  /** All sessions, those that are closing included. */
  totalSessions: number
  /** Accessed lately, or with a request under way. */
  activeSessions: number
  /** Not accessed for so long that the next sweep closes them. */
  staleSessions: number
  /** Closing. */
  closingSessions: number
  /** Those with a server in this process. */
  localSessions: number
  /** Requests under way in this process, open streams left out. */
  localRequests: number
  /** Streams open in this process. */
  localStreams: number
}

/** Serves MCP sessions over HTTP. Its methods can be passed on without it. */
export interface SessionHandler {
  /** Answers a request, fetch-style. */
  fetch(request: Request, context?: RequestContext): Promise<Response>
  /** Answers a request of `node:http` or Express; a body that middleware read is taken from there. */
  node(req: NodeRequest, res: ServerResponse, parsedBody?: unknown): Promise<void>
  /** The engine, once the backend was reached. */
  engine(): Promise<Engine>
  /** Closes a session, on whatever replica it is; true for the one call that closed it. */
  closeSession(sessionId: string, reason?: string): Promise<boolean>
  /** Closes all sessions of an owner, as `owner` names it, on all replicas; resolves to how many. */
  closeSessionsByOwner(owner: string, reason?: string): Promise<number>
  /** What there is, on all replicas and here. */
  getStats(): Promise<HandlerStats>
  /** Takes no more requests, ends streams, waits for requests under way, then lets go of everything. */
  close(options?: CloseOptions): Promise<void>
}

/**
 * Serves the sessions of a server on either official SDK: opens them on `initialize`, finds them by
 * `Mcp-Session-Id`, checks their owners, counts requests, resumes streams, and ends them on DELETE, when they
 * are idle, and when any replica closes them. Any replica serves any session, so no sticky routing is needed:
 * what a client answers, tells of progress or cancels is handed to the replica that it is for.
 *
 * @example
 * ```ts
 * import { createServer } from 'node:http'
 * import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
 * import { createSessionHandler } from 'mcp-sessions/sdk'
 *
 * const sessions = createSessionHandler(() => new McpServer({ name: 'app', version: '1.0.0' }), {
 *   url: 'memory://app',
 * })
 * const http = createServer((req, res) => void sessions.node(req, res))
 * http.listen(0, () => http.close())
 * const answer = await sessions.fetch(new Request('http://localhost/mcp', { method: 'PUT' }))
 * console.log(answer.status)
 * await sessions.close()
 * ```
 */
export function createSessionHandler<TServer extends SessionServer>(
  factory: ServerFactory<TServer>,
  options: SessionHandlerOptions = {},
): SessionHandler {
  const sessions = new Sessions(checkedFactory(factory), checkedOptions(options))
  const fetch = (request: Request, context: RequestContext = {}) => sessions.answer(request, context)
  return {
    fetch,
    node: (req, res, parsedBody) => serveNode(req, res, parsedBody, fetch),
    engine: () => sessions.engine(),
    closeSession: (sessionId, reason) => sessions.closeSession(sessionId, reason),
    closeSessionsByOwner: (owner, reason) => sessions.closeByOwner(owner, reason),
    getStats: () => sessions.stats(),
    close: (how) => sessions.close(how),
  }
}

function checkedFactory<TServer extends SessionServer>(factory: ServerFactory<TServer>): ServerFactory<TServer> {
  if (typeof factory === 'function') return factory
  throw new ConfigError('the factory is a function that makes the server of a session', 'createSessionHandler')
}

function checkedOptions(options: SessionHandlerOptions): SessionHandlerOptions {
  for (const name of ['Transport', 'owner', 'metadata', 'onSessionInitialized', 'onSessionClosed', 'onGap'] as const) {
    const value = options[name]
    if (value !== undefined && typeof value !== 'function')
      throw new ConfigError(`${name} is a function`, 'createSessionHandler')
  }
  if (options.adopt !== undefined && typeof options.adopt !== 'boolean')
    throw new ConfigError('adopt is true or false', 'createSessionHandler')
  return options
}
