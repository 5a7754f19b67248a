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
  /** Bits of fields that were set here, and that a read may not show yet. */
  own: number
  /** Writes that the backend has yet to answer. */
  underWay: number
  /** Somebody else changed the session since one of these was sent. */
  doubted: boolean
  /** What the setters of unsent fields wait for. */
  written: Written | undefined
  expiresMs: number
}

interface Written {
  promise: Promise<void>
  resolve: () => void
  reject: (error: unknown) => void
}

type Record = { [field in (typeof INFO_FIELDS)[number]]?: unknown }

export class InfoCache {
  #entries = new Map<string, Entry>()
  #unsent: Entry[] = []
  /** Records that are being read; what changes meanwhile is not kept. */
  #reading = new Map<string, Promise<unknown[]>>()
  /** Sessions that are being deleted: a read that overtook that would find what was there before. */
  #deleting = new Map<string, Promise<void>>()
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
    const deleting = this.#deleting.get(id)
    if (deleting !== undefined) return deleting.then(() => this.get(id, field))
    let reading = this.#reading.get(id)
    if (reading === undefined) {
      const record = this.port.call<Record | null>('infoGet', { id })
      if (!(record instanceof Promise)) return this.#store(id, record)[field]
      reading = this.#read(id, record)
    }
    return reading.then((values) => values[field])
  }

  #read(id: string, asked: Promise<Record | null>): Promise<unknown[]> {
    // What was read before a change elsewhere is not kept.
    const stands = () => this.#reading.get(id) === reading
    const reading: Promise<unknown[]> = asked
      .then((record) => (stands() ? this.#store(id, record) : this.#merged(id, record)))
      .finally(() => {
        if (stands()) this.#reading.delete(id)
      })
    this.#reading.set(id, reading)
    return reading
  }

  /** Sets a field; the value has been checked. The promise is of what has to be waited for. */
  set(id: string, field: number, value: unknown): Promise<void> | undefined {
    let entry = this.#entries.get(id)
    if (entry === undefined) {
      checkSessionId(id, 'info.put')
      entry = newEntry(id)
      this.#add(entry)
    }
    const bit = 1 << field
    entry.values[field] = value
    if (entry.unsent === 0) {
      this.#unsent.push(entry)
      if (this.#unsent.length === 1) this.port.keepBack(this.#write)
    }
    entry.unsent |= bit
    if (this.port.immediate) return undefined
    entry.own |= bit
    entry.written ??= makeWritten()
    return entry.written.promise
  }

  /** The session's info was changed some other way. */
  drop(id: string): void {
    const entry = this.#entries.get(id)
    // What was set here comes before that.
    if (entry !== undefined && entry.unsent !== 0) this.port.flush()
    this.#reading.delete(id)
    this.#entries.delete(id)
  }

  /** Deletes a session's info, with what was set here and has yet to cross; `cross` has the addon do it. */
  delete<D extends Promise<unknown> | undefined>(id: string, cross: () => D): D {
    const entry = this.#entries.get(id)
    this.#reading.delete(id)
    if (entry !== undefined) {
      this.#entries.delete(id)
      entry.unsent = 0
    }
    const deleted = cross()
    if (this.port.immediate || deleted === undefined) return deleted
    const over = () => {
      if (this.#deleting.get(id) === waited) this.#deleting.delete(id)
      this.done(id)
    }
    const waited = deleted.then(over, over)
    this.#deleting.set(id, waited)
    return deleted
  }

  /** A change made some other way is there now: what was read meanwhile may be older. */
  done(id: string): void {
    if (!this.port.immediate) this.#changed(id)
  }

  #write = (): void => {
    const unsent = this.#unsent
    this.#unsent = []
    for (const entry of unsent) {
      const { written } = entry
      const fields = entry.unsent
      entry.unsent = 0
      entry.written = undefined
      if (fields === 0) {
        written?.resolve()
        continue
      }
      const values: string[] = []
      for (let field = 0; field < INFO_FIELDS.length; field++) {
        if ((fields & (1 << field)) === 0) continue
        const value = entry.values[field]
        values.push(TEXT[field] ? (value as string) : JSON.stringify(value))
      }
      entry.expiresMs = Date.now() + this.#ageMs
      const put = this.port.putInfo(entry.id, fields, values)
      if (put !== undefined) this.#watch(entry, put, written)
    }
  }

  #watch(entry: Entry, put: Promise<void>, written: Written | undefined): void {
    entry.underWay += 1
    put.then(
      () => {
        entry.underWay -= 1
        // A read that began before this, and is answered after it, must not be kept in its place.
        this.#reading.delete(entry.id)
        if (entry.underWay === 0 && entry.unsent === 0) entry.own = 0
        // What was read in its place meanwhile may be older, and what somebody else changed newer.
        if (this.#entries.get(entry.id) !== entry || (entry.underWay === 0 && entry.doubted)) this.#changed(entry.id)
        written?.resolve()
      },
      (error) => {
        // It may have happened or not: the backend is asked.
        entry.underWay -= 1
        this.#changed(entry.id)
        written?.reject(error)
      },
    )
  }

  #store(id: string, record: Record | null): unknown[] {
    const values = this.#merged(id, record)
    const known = this.#entries.get(id)
    if (known !== undefined && (known.own | known.unsent) !== 0) {
      known.values = values
      known.complete = true
    } else if (record !== null) {
      // A session that does not exist costs no memory, however often it is asked for.
      this.#add({ ...newEntry(id), values, complete: true, expiresMs: Date.now() + this.#ageMs })
    }
    return values
  }

  /** A record as it was read, with what was set here since. */
  #merged(id: string, record: Record | null): unknown[] {
    const known = this.#entries.get(id)
    const own = known === undefined ? 0 : known.own | known.unsent
    return INFO_FIELDS.map((name, field) => ((own & (1 << field)) === 0 ? record?.[name] : known?.values[field]))
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
    if (id === undefined) this.#reading.clear()
    else this.#reading.delete(id)
    if (id !== undefined) {
      const entry = this.#entries.get(id)
      if (entry !== undefined) this.#distrust(entry)
      return
    }
    for (const entry of this.#entries.values()) this.#distrust(entry)
  }

  /** Somebody else changed the session: only what is written here later than that is sure. */
  #distrust(entry: Entry): void {
    if (entry.unsent === 0 && entry.underWay === 0) {
      this.#entries.delete(entry.id)
      return
    }
    // What is on its way can't be read yet: until it is answered, this is all that is known of it.
    entry.doubted = entry.underWay > 0
    if (!entry.doubted) entry.own &= entry.unsent
    const kept = entry.own | entry.unsent
    entry.complete = false
    entry.values = entry.values.map((value, field) => ((kept & (1 << field)) === 0 ? undefined : value))
  }
}

function newEntry(id: string): Entry {
  const expiresMs = Number.POSITIVE_INFINITY
  return {
    id,
    values: [],
    complete: false,
    unsent: 0,
    own: 0,
    underWay: 0,
    doubted: false,
    written: undefined,
    expiresMs,
  }
}

/** Nobody has to wait for it. */
function makeWritten(): Written {
  let resolve: () => void = () => {}
  let reject: (error: unknown) => void = () => {}
  const promise = new Promise<void>((yes, no) => {
    resolve = yes
    reject = no
  })
  promise.catch(() => {})
  return { promise, resolve, reject }
}
