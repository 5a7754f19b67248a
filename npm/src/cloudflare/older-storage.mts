// Ordered keys and values in the storage of a Durable Object that was made with `new_classes`.

import type { ObjectState } from './platform.mjs'

/** A value of that storage has at most 128 KiB; larger ones lie in parts. */
const PART_BYTES = 120 << 10
/** It takes so many pairs at once. */
const BATCH = 128

/**
 * All of it in memory, as that storage can't be read without waiting; what changes is written behind. The
 * platform holds back what is sent until it is written, as with SQLite.
 */
export class OlderTable {
  #state: ObjectState
  #pairs = new Map<string, Uint8Array>()
  #sorted: string[] | undefined
  /** How many parts a value has; those with one are left out. */
  #parts = new Map<string, number>()
  /** What the work under way changed, as it was before. */
  #before: Map<string, Uint8Array | undefined> | undefined

  constructor(state: ObjectState) {
    this.#state = state
    void state.blockConcurrencyWhile(() => this.#load())
  }

  get(key: Uint8Array): Uint8Array | undefined {
    return this.#pairs.get(textOf(key))
  }

  put(key: Uint8Array, value: Uint8Array): void {
    this.#set(textOf(key), value.slice())
  }

  delete(key: Uint8Array): void {
    this.#set(textOf(key), undefined)
  }

  scan(from: Uint8Array, to: Uint8Array, most: number): Uint8Array[] {
    this.#sorted ??= [...this.#pairs.keys()].sort()
    const [low, high] = [textOf(from), textOf(to)]
    const found: Uint8Array[] = []
    for (let at = place(this.#sorted, low); at < this.#sorted.length && found.length < most * 2; at++) {
      const key = this.#sorted[at] as string
      if (key >= high) break
      found.push(bytesOf(key), this.#pairs.get(key) as Uint8Array)
    }
    return found
  }

  /** Does it whole, or not at all. */
  whole<T>(work: () => T): T {
    const before = new Map<string, Uint8Array | undefined>()
    this.#before = before
    try {
      const result = work()
      this.#write(before)
      return result
    } catch (error) {
      for (const [key, value] of before) {
        if (value === undefined) this.#pairs.delete(key)
        else this.#pairs.set(key, value)
      }
      this.#sorted = undefined
      throw error
    } finally {
      this.#before = undefined
    }
  }

  #set(key: string, value: Uint8Array | undefined): void {
    const old = this.#pairs.get(key)
    if (this.#before?.has(key) === false) this.#before.set(key, old)
    if (value === undefined) this.#pairs.delete(key)
    else this.#pairs.set(key, value)
    if ((old === undefined) !== (value === undefined)) this.#sorted = undefined
  }

  #write(changed: Map<string, unknown>): void {
    const puts: [string, Uint8Array][] = []
    const deletes: string[] = []
    for (const key of changed.keys()) {
      const value = this.#pairs.get(key)
      const had = this.#parts.get(key) ?? 1
      const has = value === undefined ? 0 : Math.max(1, Math.ceil(value.length / PART_BYTES))
      for (let part = 0; part < has; part++) {
        puts.push([nameOf(key, part), (value as Uint8Array).slice(part * PART_BYTES, (part + 1) * PART_BYTES)])
      }
      for (let part = has; part < had; part++) deletes.push(nameOf(key, part))
      if (has > 1) this.#parts.set(key, has)
      else this.#parts.delete(key)
    }
    const { storage } = this.#state
    // Without waiting in between they are one write.
    for (let at = 0; at < puts.length; at += BATCH) void storage.put(Object.fromEntries(puts.slice(at, at + BATCH)))
    for (let at = 0; at < deletes.length; at += BATCH) void storage.delete(deletes.slice(at, at + BATCH))
  }

  async #load(): Promise<void> {
    for (const [name, piece] of await this.#state.storage.list<Uint8Array>()) {
      const [key = '', part = '0'] = name.split('#')
      const before = this.#pairs.get(key)
      if (part === '0' || before === undefined) {
        this.#pairs.set(key, piece)
        continue
      }
      const whole = new Uint8Array(before.length + piece.length)
      whole.set(before)
      whole.set(piece, before.length)
      this.#pairs.set(key, whole)
      this.#parts.set(key, Number(part) + 1)
    }
  }
}

/** Two hexadecimal digits a byte: texts sort as their bytes do. */
function textOf(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += HEX[byte]
  return text
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

function bytesOf(text: string): Uint8Array {
  return Uint8Array.from({ length: text.length / 2 }, (_, at) => Number.parseInt(text.slice(at * 2, at * 2 + 2), 16))
}

/** A part's number sorts as it counts. */
function nameOf(key: string, part: number): string {
  return part === 0 ? key : `${key}#${String(part).padStart(3, '0')}`
}

/** Where the first one is that is not smaller. */
function place(sorted: string[], key: string): number {
  let [low, high] = [0, sorted.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((sorted[middle] as string) < key) low = middle + 1
    else high = middle
  }
  return low
}
