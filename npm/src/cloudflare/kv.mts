// Session info in KV, in the keys of tmcp's own manager.

import type { Info } from './info.mjs'
import type { KvNamespace } from './platform.mjs'

/** KV takes no shorter time to live. */
const MIN_TTL_SECONDS = 60
/** The longest key of KV, in bytes; what would be longer is in the session's object alone. */
const MAX_KEY_BYTES = 512
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

export class KvInfo {
  #namespace: () => KvNamespace
  #prefix: string
  #expirationTtl: number

  constructor(namespace: () => KvNamespace, prefix: string, ttlMs: number) {
    this.#namespace = namespace
    this.#prefix = prefix
    this.#expirationTtl = Math.max(MIN_TTL_SECONDS, Math.ceil(ttlMs / 1_000))
  }

  async read(id: string): Promise<Info | null> {
    const keys = ['client_info', 'client_capabilities', 'log_level'].map((name) => this.#key(name, id))
    const kv = this.#namespace()
    const [clientInfo, clientCapabilities, level] = await Promise.all(keys.map((key) => kv.get(key)))
    if (clientInfo == null && clientCapabilities == null && level == null) return null
    // tmcp's manager puts quotes around a level, and can't read it then.
    return {
      clientInfo: json(clientInfo),
      clientCapabilities: json(clientCapabilities),
      logLevel: level?.replaceAll('"', '') ?? null,
    }
  }

  async write(id: string, info: Info): Promise<void> {
    const { clientInfo, clientCapabilities, logLevel } = info
    await Promise.all([
      clientInfo != null && this.#put(this.#key('client_info', id), clientInfo),
      clientCapabilities != null && this.#put(this.#key('client_capabilities', id), clientCapabilities),
      logLevel != null && this.#put(this.#key('log_level', id), logLevel),
    ])
  }

  async subscribe(id: string, uri: string): Promise<void> {
    const key = this.#subscription(id, uri)
    if (!fits(key)) return
    const metadata = { session: id }
    await this.#namespace().put(key, id, { expirationTtl: this.#expirationTtl, metadata })
  }

  async unsubscribe(id: string, uri: string): Promise<void> {
    const key = this.#subscription(id, uri)
    if (fits(key)) await this.#namespace().delete(key)
    await this.#deleteOlder(id, [uri])
  }

  /** The sessions that subscribed to this very resource. */
  async subscribers(uri: string): Promise<string[]> {
    const prefix = this.#key('subscriptions', `${uri}:`)
    if (!fits(prefix)) return []
    const sessions: string[] = []
    for await (const { rest, value } of this.#list(prefix)) if (isOf(rest, value)) sessions.push(value)
    return sessions
  }

  async delete(id: string, uris: string[]): Promise<void> {
    const kv = this.#namespace()
    const names = ['client_info', 'client_capabilities', 'log_level'].map((name) => this.#key(name, id))
    const keys = [...names, ...uris.map((uri) => this.#subscription(id, uri)).filter(fits)]
    await Promise.all(keys.map((key) => kv.delete(key)))
    await this.#deleteOlder(id, uris)
  }

  /** What tmcp's manager wrote has a random name. */
  async #deleteOlder(id: string, uris: string[]): Promise<void> {
    for (const uri of uris) {
      const prefix = this.#key('subscriptions', `${uri}:`)
      if (!fits(prefix)) continue
      for await (const { name, rest, value } of this.#list(prefix)) {
        if (UUID.test(rest) && value === id) await this.#namespace().delete(name)
      }
    }
  }

  /** All keys that begin with this: a page has a thousand. */
  async *#list(prefix: string): AsyncGenerator<{ name: string; rest: string; value: string }> {
    const kv = this.#namespace()
    for (let cursor: string | undefined; ; ) {
      const page = await kv.list(cursor === undefined ? { prefix } : { prefix, cursor })
      const keys = page.keys.filter(({ name }) => isPlausible(name.slice(prefix.length)))
      // Our own keys say it themselves.
      const values = await Promise.all(keys.map(({ name, metadata }) => metadata?.session ?? kv.get(name)))
      for (const [at, { name }] of keys.entries()) {
        const value = values[at]
        if (value != null) yield { name, rest: name.slice(prefix.length), value }
      }
      if (page.list_complete || page.cursor === undefined) return
      cursor = page.cursor
    }
  }

  #put(key: string, value: string): Promise<void> {
    return this.#namespace().put(key, value, { expirationTtl: this.#expirationTtl })
  }

  #key(name: string, of: string): string {
    return `${this.#prefix}${name}:${of}`
  }

  /** One key a session, so that there are no two; an id's colon is not the end of the URI. */
  #subscription(id: string, uri: string): string {
    return this.#key('subscriptions', `${uri}:${encodeURIComponent(id)}`)
  }
}

/** What follows a URI and a colon: another colon would belong to a longer URI. */
function isPlausible(rest: string): boolean {
  return !rest.includes(':') && isEscaped(rest)
}

function isEscaped(text: string): boolean {
  try {
    return encodeURIComponent(decodeURIComponent(text)) === text
  } catch {
    return false
  }
}

function isOf(rest: string, value: string): boolean {
  return UUID.test(rest) || encodeURIComponent(value) === rest
}

function fits(key: string): boolean {
  return new TextEncoder().encode(key).length <= MAX_KEY_BYTES
}

/** What somebody else wrote may be anything. */
function json(text: string | null | undefined): string | null {
  try {
    if (text != null) JSON.parse(text)
    return text ?? null
  } catch {
    return null
  }
}
