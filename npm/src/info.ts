import { checkLogLevel, checkSessionId, checkText, checkUri, type LogLevel } from './check'
import { InvalidInputError, NotFoundError } from './errors'
import {
  ClientCapabilities,
  ClientInfo,
  type InfoCache,
  InitializeParams,
  LogLevelField,
  ProtocolVersion,
} from './info-cache'
import { checkJson, type JsonObject } from './json'
import type { Port } from './port'
import { INFO_FIELDS } from './wire'

/** All info of one session; what was never set is not there. */
export interface SessionInfo {
  /** `clientInfo` of `initialize`. */
  clientInfo?: JsonObject
  /** `capabilities` of `initialize`. */
  clientCapabilities?: JsonObject
  /** The level set by `logging/setLevel`. */
  logLevel?: LogLevel
  /** The negotiated protocol version. */
  protocolVersion?: string
  /** All `params` of `initialize`. */
  initializeParams?: JsonObject
}

/** What errors call the fields; tmcp's managers use the first three. */
const FIELD_NAMES = ['Client info', 'Client capabilities', 'Log Level', 'Protocol version', 'Initialize params']
const FIELD_TITLES = FIELD_NAMES.map((name) => name.toLowerCase())

/** The error for a value that was never set, in tmcp's words. */
export function neverSet(field: number, id: string): NotFoundError {
  return new NotFoundError(`${FIELD_NAMES[field]} not found for session ${id}`, 'info.get')
}

/** Checks a field's value. Throws `invalid_input` or `too_large`. */
export function checkField(field: number, value: unknown, limit: number, operation: string): unknown {
  switch (field) {
    case LogLevelField:
      checkLogLevel(value, operation)
      return value
    case ProtocolVersion:
      checkText(value, 'a protocol version', limit, operation)
      if (value === '') throw new InvalidInputError('a protocol version is not empty', operation)
      return value
    default:
      return checkJson(value, FIELD_TITLES[field] as string, limit, operation)
  }
}

/**
 * Keeps what a client said at `initialize` and since, for every node to read.
 *
 * @example
 * ```ts
 * import { Engine } from 'mcp-sessions'
 *
 * const engine = Engine.memory()
 * await engine.info.setClientInfo('session-1', { name: 'inspector', version: '1.0.0' })
 * await engine.info.addSubscription('session-1', 'file:///notes.md')
 * console.log(await engine.info.getClientInfo('session-1'))
 * console.log(await engine.info.getSubscriptions('file:///notes.md'))
 * ```
 */
export class Info {
  #port: Port
  #cache: InfoCache

  /** @internal */
  constructor(port: Port, cache: InfoCache) {
    this.#port = port
    this.#cache = cache
  }

  /** All info of a session in one read; `undefined` when there is none. */
  async get(id: string): Promise<SessionInfo | undefined> {
    checkSessionId(id, 'info.get')
    return (await this.#port.ask<SessionInfo | null>('infoGet', { id })) ?? undefined
  }

  /** All info of a session if it can be had without waiting. */
  cached(id: string): SessionInfo | undefined {
    checkSessionId(id, 'info.cached')
    if (this.#port.isClosed) return undefined
    return (this.#port.call<SessionInfo | null>('infoCached', { id }) as SessionInfo | null) ?? undefined
  }

  /** Changes some fields at once; the session is known from here on. */
  async put(id: string, patch: SessionInfo): Promise<void> {
    const operation = 'info.put'
    checkSessionId(id, operation)
    if (typeof patch !== 'object' || patch === null) throw new InvalidInputError('a patch is an object', operation)
    const checked: { [field: string]: unknown } = {}
    for (const [name, value] of Object.entries(patch)) {
      const field = (INFO_FIELDS as readonly string[]).indexOf(name)
      if (field < 0) throw new InvalidInputError(`${name} is no field of a session's info`, operation)
      if (value !== undefined) checked[name] = checkField(field, value, this.#port.described.maxInfoBytes, operation)
    }
    this.#cache.drop(id)
    try {
      await this.#port.ask('infoPut', { id, patch: checked })
    } finally {
      this.#cache.done(id)
    }
  }

  /** Sets `clientInfo`. Rejects with `invalid_input` when it is not a JSON object. */
  setClientInfo(id: string, clientInfo: JsonObject): Promise<void> {
    return this.#set(id, ClientInfo, clientInfo)
  }

  /** `clientInfo`; rejects with `not_found` when it was never set. */
  getClientInfo(id: string): Promise<JsonObject> {
    return this.#get(id, ClientInfo) as Promise<JsonObject>
  }

  /** Sets `capabilities`. Rejects with `invalid_input` when they are not a JSON object. */
  setClientCapabilities(id: string, capabilities: JsonObject): Promise<void> {
    return this.#set(id, ClientCapabilities, capabilities)
  }

  /** `capabilities`; rejects with `not_found` when they were never set. */
  getClientCapabilities(id: string): Promise<JsonObject> {
    return this.#get(id, ClientCapabilities) as Promise<JsonObject>
  }

  /** Sets the log level. Rejects with `invalid_input` when it is none of the eight. */
  setLogLevel(id: string, level: LogLevel): Promise<void> {
    return this.#set(id, LogLevelField, level)
  }

  /** The log level; rejects with `not_found` when it was never set. */
  getLogLevel(id: string): Promise<LogLevel> {
    return this.#get(id, LogLevelField) as Promise<LogLevel>
  }

  /** Sets the negotiated protocol version. */
  setProtocolVersion(id: string, version: string): Promise<void> {
    return this.#set(id, ProtocolVersion, version)
  }

  /** The protocol version; rejects with `not_found` when it was never set. */
  getProtocolVersion(id: string): Promise<string> {
    return this.#get(id, ProtocolVersion) as Promise<string>
  }

  /** Sets all `params` of `initialize`. */
  setInitializeParams(id: string, params: JsonObject): Promise<void> {
    return this.#set(id, InitializeParams, params)
  }

  /** All `params` of `initialize`; rejects with `not_found` when they were never set. */
  getInitializeParams(id: string): Promise<JsonObject> {
    return this.#get(id, InitializeParams) as Promise<JsonObject>
  }

  /** Subscribes a session to a resource; false when it was already. */
  async addSubscription(id: string, uri: string): Promise<boolean> {
    checkSessionId(id, 'info.add_subscription')
    checkUri(uri, this.#port.described.maxUriBytes, 'info.add_subscription')
    return this.#port.ask<boolean>('addSubscription', { id, uri })
  }

  /** Ends a subscription; false when there was none. */
  async removeSubscription(id: string, uri: string): Promise<boolean> {
    checkSessionId(id, 'info.remove_subscription')
    checkUri(uri, this.#port.described.maxUriBytes, 'info.remove_subscription')
    return this.#port.ask<boolean>('removeSubscription', { id, uri })
  }

  /** The sessions subscribed to a resource, in no particular order. */
  async getSubscriptions(uri: string): Promise<string[]> {
    checkUri(uri, this.#port.described.maxUriBytes, 'info.subscribers')
    return this.#port.ask<string[]>('subscribers', { uri })
  }

  /** The resources a session is subscribed to, sorted. */
  async getSessionSubscriptions(id: string): Promise<string[]> {
    checkSessionId(id, 'info.subscriptions')
    return this.#port.ask<string[]>('sessionSubscriptions', { id })
  }

  /** Deletes a session's info and its resource subscriptions; false when there was none. */
  async delete(id: string): Promise<boolean> {
    checkSessionId(id, 'info.delete')
    return await this.#cache.delete(id, () => this.#port.ask<boolean>('infoDelete', { id }))
  }

  async #set(id: string, field: number, value: unknown): Promise<void> {
    checkSessionId(id, 'info.put')
    const checked = checkField(field, value, this.#port.described.maxInfoBytes, 'info.put')
    this.#cache.drop(id)
    try {
      await this.#port.ask('infoPut', { id, patch: { [INFO_FIELDS[field] as string]: checked } })
    } finally {
      this.#cache.done(id)
    }
  }

  async #get(id: string, field: number): Promise<unknown> {
    checkSessionId(id, 'info.get')
    const record = await this.#port.ask<SessionInfo | null>('infoGet', { id })
    const value = record?.[INFO_FIELDS[field] as keyof SessionInfo]
    if (value === undefined) throw neverSet(field, id)
    return value
  }
}
