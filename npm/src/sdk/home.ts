// A session's home in this process: its server, its transport, and the streams that are read here.

import type { SessionInfo } from '../info'
import type { JsonObject } from '../json'
import type { Message } from './answers'
import { endBoth } from './closing'
import { toClient, toServer } from './mail'
import type { AuthInfo, EventStore, SessionServer, WebTransport } from './types'

/** What a session is re-made with on another replica. */
export interface Known {
  params: JsonObject
  version: string
  info: SessionInfo
}

const ACCEPT = { accept: 'application/json, text/event-stream', 'content-type': 'application/json' }

export class Home<TServer extends SessionServer> {
  readonly id: string
  /** A digest of the owner's token. */
  readonly owner: string | undefined
  readonly transport: WebTransport
  readonly server: TServer
  /** The negotiated protocol version. */
  version = ''
  /** Whether it is ending, or has ended. */
  over = false
  /** Ends the streams that are read here. */
  readonly streams = new Set<() => void>()
  /** This replica, as clients name it when they answer. */
  #replica: string
  #ended: Promise<unknown[]> | undefined

  constructor(id: string, owner: string | undefined, server: TServer, transport: WebTransport, replica: string) {
    this.id = id
    this.owner = owner
    this.server = server
    this.transport = transport
    this.#replica = replica
    const send = transport.send.bind(transport)
    transport.send = (message, options) => send(toClient(message, replica), options)
  }

  /** Hands the transport what the client says. */
  take(request: Request, body: unknown, authInfo: AuthInfo | undefined): Promise<Response> {
    const parsedBody = toServer(body, this.#replica)
    return this.transport.handleRequest(request, authInfo === undefined ? { parsedBody } : { parsedBody, authInfo })
  }

  /** Ends everything of the session that is in this process; resolves to what went wrong. */
  end(): Promise<unknown[]> {
    this.over = true
    this.endStreams()
    this.#ended ??= endBoth(this.transport, this.server)
    return this.#ended
  }

  endStreams(): void {
    for (const end of [...this.streams]) end()
  }

  /**
   * Notes the answer to `initialize` on its way to the client, which gets it once the other replicas can know
   * of it; an error, if they can't, and `failed` is told.
   */
  noteInitialize(
    request: Message,
    keep: (said: SessionInfo) => Promise<unknown>,
    failed: (error: unknown) => void,
  ): void {
    const { transport } = this
    const { send } = transport
    transport.send = async (message: Message, options) => {
      if (message.id !== request.id || message.result === undefined) return send(message, options)
      transport.send = send
      try {
        await keep(this.#said(request.params ?? {}, message.result))
      } catch (error) {
        failed(error)
        const told = { code: -32603, message: 'The session could not be kept; initialize again' }
        return send({ jsonrpc: '2.0', id: request.id, error: told }, options)
      }
      return send(message, options)
    }
  }

  #said(params: Record<string, unknown>, { protocolVersion }: Record<string, unknown>): SessionInfo {
    const { clientInfo, capabilities } = params
    if (typeof protocolVersion === 'string') this.version = protocolVersion
    return {
      initializeParams: params as JsonObject,
      ...(isObject(clientInfo) && { clientInfo }),
      ...(isObject(capabilities) && { clientCapabilities: capabilities }),
      ...(this.version !== '' && { protocolVersion: this.version }),
    }
  }

  /**
   * Tells a new server what the client told the one before, through the transport, as the client did: the
   * SDKs have no other way to make a transport of a session that is there already.
   */
  async replay({ params, version, info }: Known, request: Request, subscriptions: string[]): Promise<boolean> {
    this.version = version
    const headers = new Headers(ACCEPT)
    for (const name of ['host', 'origin', 'authorization']) {
      const value = request.headers.get(name)
      if (value !== null) headers.set(name, value)
    }
    const say = async (message: object) => {
      const one = new Request(request.url, { method: 'POST', headers })
      const response = await this.transport.handleRequest(one, { parsedBody: { jsonrpc: '2.0', ...message } })
      await response.text()
      return response.ok
    }
    if (!(await say({ id: 'again', method: 'initialize', params }))) return false
    headers.set('mcp-session-id', this.id)
    if (version !== '') headers.set('mcp-protocol-version', version)
    if (!(await say({ method: 'notifications/initialized' }))) return false
    const { logLevel: level } = info
    if (level !== undefined) await say({ id: 'level', method: 'logging/setLevel', params: { level } })
    for (const uri of subscriptions) await say({ id: `to ${uri}`, method: 'resources/subscribe', params: { uri } })
    return true
  }
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A session's event store, as its transport sees it: what is said again is not kept again. */
export class Muted implements EventStore {
  muted = false
  #store: EventStore

  constructor(store: EventStore) {
    this.#store = store
  }

  storeEvent(streamId: string, message: object): Promise<string> {
    return this.muted ? Promise.resolve('') : this.#store.storeEvent(streamId, message)
  }

  replayEventsAfter(...given: Parameters<EventStore['replayEventsAfter']>): Promise<string> {
    return this.#store.replayEventsAfter(...given)
  }
}
