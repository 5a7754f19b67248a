// What is needed of the SDKs, by shape: both fit, and neither has to be installed.

import type { McpSessionsError } from '../errors'

/** Who sent a request, as the SDKs' bearer middleware found out. */
export interface AuthInfo {
  /** The access token. */
  token: string
  /** The client it was issued to. */
  clientId: string
  /** What else the verifier knows, such as the subject. */
  extra?: Record<string, unknown>
}

/** What is needed of an `McpServer` or `Server` of either SDK. */
export interface SessionServer {
  // biome-ignore lint/suspicious/noExplicitAny: each SDK has its own type of transport
  connect(transport: any): Promise<void>
  close(): Promise<void>
}

/** What is needed of a transport of either SDK. */
export interface SessionTransport {
  onclose?: (() => void) | undefined
  close(): Promise<void>
}

/** A transport that speaks `node:http`, such as `StreamableHTTPServerTransport`. */
export interface NodeTransport extends SessionTransport {
  // biome-ignore lint/suspicious/noExplicitAny: the types of node:http are the user's
  handleRequest(req: any, res: any, parsedBody?: unknown): Promise<void>
}

/** A transport that speaks `fetch`: `WebStandardStreamableHTTPServerTransport`. */
export interface WebTransport extends SessionTransport {
  // biome-ignore lint/suspicious/noExplicitAny: each SDK has its own type of auth info
  handleRequest(request: Request, options?: { parsedBody?: unknown; authInfo?: any }): Promise<Response>
  // biome-ignore lint/suspicious/noExplicitAny: each SDK has its own type of message
  send(message: any, options?: any): Promise<void>
}

/** Options of the SDK's transport that are passed on as they are. */
export interface TransportOptions {
  /** Answer requests with JSON instead of a stream. */
  enableJsonResponse?: boolean
  /** Milliseconds a client is asked to wait before it reconnects. */
  retryInterval?: number
  /** Milliseconds between keep-alive comments; 0 for none. */
  keepAliveMs?: number
  /** The largest body of a POST, in bytes. */
  maxRequestBodySize?: number
  /** `Host` headers that are let in, with `enableDnsRebindingProtection`. */
  allowedHosts?: string[]
  /** `Origin` headers that are let in, with `enableDnsRebindingProtection`. */
  allowedOrigins?: string[]
  /** Whether the two lists above are heeded. */
  enableDnsRebindingProtection?: boolean
}

/** What the transports of both SDKs ask of an event store. */
export interface EventStore {
  storeEvent(streamId: string, message: object): Promise<string>
  getStreamIdForEventId?(eventId: string): Promise<string | undefined>
  replayEventsAfter(
    lastEventId: string,
    // biome-ignore lint/suspicious/noExplicitAny: each SDK has its own type of message
    to: { send: (eventId: string, message: any) => Promise<void> },
  ): Promise<string>
}

/** What a transport is made with. */
export interface MadeWith extends TransportOptions {
  sessionIdGenerator: () => string
  onsessioninitialized?: (sessionId: string) => void | Promise<void>
  eventStore?: EventStore
}

/** A class of transports. */
export type TransportClass<TTransport> = new (options: MadeWith) => TTransport

/** Told of every failure that nobody waits for. */
export type OnError = (error: McpSessionsError) => void
