// What this thread knows of sessions' info: reads are plain look-ups, kept true by invalidations;
// writes are seen at once here, and cross together with whatever crosses next.

import { checkSessionId } from './check'
import type { Port } from './port'
import { INFO_FIELDS } from './wire'

/** A field of a session's info, by its number in the packed layout. */
export const ClientInfo = 0
export const ClientCapabilities = 1
export const LogLevelField = 2
export const ProtocolVersion = 3
export const InitializeParams = 4

/** These are text on the wire; the others are JSON. */
const TEXT = [false, false, true, true, false]
/** The most sessions known at a time; those known longest make room. */
const MAX_ENTRIES = 4_096
/** A session's record is read again after this time at the latest, so that reading it lets it live on. */
const MAX_AGE_MS = 60_000

interface Entry {
  id: string
  values: unknown[]
  /** What has no value here has none at all. */
  complete: boolean
  /** Bits of fields that have yet to cross. */
  unsent: number
  expiresMs: number
}

type Record = { [field in (typeof INFO_FIELDS)[number]]?: unknown }

export class InfoCache {
  #entries = new Map<string, Entry>()
  #unsent: Entry[] = []
  #ageMs: number
  /** The time when it was last looked whether something changed. */
  #nowMs = 0

  constructor(private readonly port: Port) {
    this.#ageMs = Math.min(MAX_AGE_MS, port.described.sessionTtlMs / 8)
    port.infoChanged = (id) => this.#changed(id)
  }

  /** A field's value, `undefined` if it has none; a promise where the addon can't tell at once. */
  get(id: string, field: number): unknown {
    if (this.port.freshen()) this.#nowMs = Date.now()
    const entry = this.#entries.get(id)
    if (entry !== undefined && (entry.unsent !== 0 || entry.expiresMs > this.#nowMs)) {
      const value = entry.values[field]
      if (value !== undefined || entry.complete) return value
    }
    checkSessionId(id, 'info.get')
    const record = this.port.call<Record | null>('infoGet', { id })
    if (record instanceof Promise) return record.then((record) => this.#store(id, record).values[field])
    return this.#store(id, record).values[field]
  }

  /** Sets a field; the value has been checked. */
  set(id: string, field: number, value: unknown): void {
    let entry = this.#entries.get(id)
    if (entry === undefined) {
      checkSessionId(id, 'info.put')
      entry = { id, values: [], complete: false, unsent: 0, expiresMs: Number.POSITIVE_INFINITY }
      this.#add(entry)
    }
    entry.values[field] = value
    if (entry.unsent === 0) {
      this.#unsent.push(entry)
      if (this.#unsent.length === 1) this.port.keepBack(this.#write)
    }
    entry.unsent |= 1 << field
  }

  /** The session's info is being deleted, or was changed some other way. */
  drop(id: string): void {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    this.#entries.delete(id)
    entry.unsent = 0
  }

  #write = (): void => {
    const unsent = this.#unsent
    this.#unsent = []
    for (const entry of unsent) {
      const fields = entry.unsent
      entry.unsent = 0
      if (fields === 0) continue
      const values: string[] = []
      for (let field = 0; field < INFO_FIELDS.length; field++) {
        if ((fields & (1 << field)) === 0) continue
        const value = entry.values[field]
        values.push(TEXT[field] ? (value as string) : JSON.stringify(value))
      }
      entry.expiresMs = Date.now() + this.#ageMs
      this.port.putInfo(entry.id, fields, values)
    }
  }

  #store(id: string, record: Record | null): Entry {
    const values = INFO_FIELDS.map((field) => record?.[field])
    const entry = { id, values, complete: true, unsent: 0, expiresMs: Date.now() + this.#ageMs }
    // A session that does not exist costs no memory, however often it is asked for.
    if (record !== null) this.#add(entry)
    return entry
  }

  #add(entry: Entry): void {
    this.#entries.set(entry.id, entry)
    if (this.#entries.size <= MAX_ENTRIES) return
    for (const [id, oldest] of this.#entries) {
      if (oldest.unsent === 0) {
        this.#entries.delete(id)
        return
      }
    }
  }

  #changed(id: string | undefined): void {
    if (id !== undefined) {
      const entry = this.#entries.get(id)
      if (entry !== undefined) this.#distrust(entry)
      return
    }
    for (const entry of this.#entries.values()) this.#distrust(entry)
  }

  /** Somebody else changed the session: only what is written here later than that is sure. */
  #distrust(entry: Entry): void {
    if (entry.unsent === 0) {
      this.#entries.delete(entry.id)
      return
    }
    entry.complete = false
    entry.values = entry.values.map((value, field) => ((entry.unsent & (1 << field)) === 0 ? undefined : value))
  }
}
