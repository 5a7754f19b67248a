// Ordered keys and values in the SQLite storage of a Durable Object.

import type { ObjectStorage, Sql } from './platform.mjs'

/** A value of the platform's storage has at most 2 MB, key included; larger ones lie in parts. */
const PART_BYTES = 1 << 20
/** What is kept in memory: so much of all, and nothing that is larger than this alone. */
const MOST_KNOWN_BYTES = 8 << 20
const MOST_BYTES = 64 << 10

/**
 * A table of keys and values. What is larger than a part is written once and never changed. Nobody else writes
 * there, so that what was read or written lately is known without asking.
 */
export class Table {
  readonly #storage: ObjectStorage
  readonly #sql: Sql
  #known = new Map<string, Uint8Array>()
  #knownBytes = 0
  /** What the work under way changes; `undefined` is gone. */
  #changes = new Map<string, Uint8Array | undefined>()

  constructor(storage: ObjectStorage) {
    const { sql } = storage
    this.#storage = storage
    this.#sql = sql
    sql.exec('CREATE TABLE IF NOT EXISTS pairs (k BLOB, part INTEGER, v BLOB, PRIMARY KEY (k, part)) WITHOUT ROWID')
  }

  /** Does it whole, or not at all. Work that changes nothing waits for no disk, and neither does what it sends. */
  whole<T>(work: () => T): T {
    try {
      const result = work()
      if (this.#changes.size > 0) this.#storage.transactionSync(() => this.#write())
      for (const [key, value] of this.#changes) this.#know(key, value)
      return result
    } finally {
      this.#changes.clear()
    }
  }

  get(key: Uint8Array): Uint8Array | undefined {
    const text = textOf(key)
    if (this.#changes.has(text)) return this.#changes.get(text)
    const known = this.#known.get(text)
    if (known !== undefined) return known
    const parts = [...this.#sql.exec('SELECT v FROM pairs WHERE k = ? ORDER BY part', bufferOf(text)).raw()]
    if (parts.length === 0) return undefined
    const value = joined(parts.map(([part]) => part as ArrayBuffer))
    this.#know(text, value)
    return value
  }

  put(key: Uint8Array, value: Uint8Array): void {
    // What wasm hands over is a view of its memory, which moves.
    this.#changes.set(textOf(key), value.slice())
  }

  delete(key: Uint8Array): void {
    this.#changes.set(textOf(key), undefined)
  }

  scan(from: Uint8Array, to: Uint8Array, most: number): Uint8Array[] {
    const [low, high] = [textOf(from), textOf(to)]
    const changed = [...this.#changes].filter(([key]) => key >= low && key < high)
    const rows = this.#rows(low, high, most + changed.length)
    if (changed.length === 0) return [...rows].flatMap(([key, value]) => [bytesOf(key), value])
    for (const [key, value] of changed) {
      if (value === undefined) rows.delete(key)
      else rows.set(key, value)
    }
    const sorted = [...rows].sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, most)
    return sorted.flatMap(([key, value]) => [bytesOf(key), value])
  }

  /** What lies in storage from `low` up to but without `high`, in order. */
  #rows(low: string, high: string, most: number): Map<string, Uint8Array> {
    const query = 'SELECT k, part, v FROM pairs WHERE k >= ? AND k < ? ORDER BY k, part LIMIT ?'
    const limit = Math.min(most, Number.MAX_SAFE_INTEGER)
    const found = new Map<string, Uint8Array>()
    for (const [key, part, value] of this.#sql.exec(query, bufferOf(low), bufferOf(high), limit).raw()) {
      const text = textOf(new Uint8Array(key as ArrayBuffer))
      const before = part === 0 ? undefined : found.get(text)
      found.set(text, joined(before ? [before, value as ArrayBuffer] : [value as ArrayBuffer]))
    }
    return found
  }

  #write(): void {
    for (const [text, value] of this.#changes) {
      const key = bufferOf(text)
      if (value === undefined) {
        this.#sql.exec('DELETE FROM pairs WHERE k = ?', key)
        continue
      }
      for (let part = 0; part === 0 || part * PART_BYTES < value.length; part++) {
        const piece = value.slice(part * PART_BYTES, (part + 1) * PART_BYTES).buffer as ArrayBuffer
        this.#sql.exec('INSERT OR REPLACE INTO pairs VALUES (?, ?, ?)', key, part, piece)
      }
    }
  }

  /** Notes what lies in storage; what was noted first is forgotten first. */
  #know(key: string, value: Uint8Array | undefined): void {
    this.#forget(key)
    if (value === undefined || value.length > MOST_BYTES) return
    this.#known.set(key, value)
    this.#knownBytes += key.length + value.length
    for (const oldest of this.#known.keys()) {
      if (this.#knownBytes <= MOST_KNOWN_BYTES) return
      this.#forget(oldest)
    }
  }

  #forget(key: string): void {
    const value = this.#known.get(key)
    if (value === undefined) return
    this.#known.delete(key)
    this.#knownBytes -= key.length + value.length
  }
}

/** A character a byte: texts sort as their bytes do. Loops, as all that is shorter takes several times as long. */
function textOf(bytes: Uint8Array): string {
  let text = ''
  for (let at = 0; at < bytes.length; at++) text += String.fromCharCode(bytes[at] as number)
  return text
}

function bytesOf(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length)
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at)
  return bytes
}

function bufferOf(text: string): ArrayBuffer {
  return bytesOf(text).buffer as ArrayBuffer
}

function joined(parts: (Uint8Array | ArrayBuffer)[]): Uint8Array {
  const pieces = parts.map((part) => new Uint8Array(part as ArrayBuffer))
  const [first] = pieces
  if (pieces.length === 1 && first !== undefined) return first
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    whole.set(piece, at)
    at += piece.length
  }
  return whole
}
