// The table of an object: what is in memory, what is under way and what is stored are one.
import assert from 'node:assert/strict'
import { beforeEach, test } from 'node:test'
import { Table } from '../../dist/cloudflare/storage.mjs'

const bytes = (text) => new TextEncoder().encode(text)
const text = (value) => value && new TextDecoder().decode(value)

/** The statements of a table, on a map; its transactions are those of the platform. */
class Storage {
  /** @type {Map<string, Uint8Array>} values by key and part */
  rows = new Map()
  asked = 0
  transactions = 0
  failing = false
  sql = {
    exec: (query, ...values) => {
      const rows = this.#exec(query, values)
      return { raw: () => rows.values() }
    },
  }

  transactionSync(work) {
    this.transactions += 1
    const before = new Map(this.rows)
    try {
      return work()
    } catch (error) {
      this.rows = before
      throw error
    }
  }

  #exec(query, [key, second, third]) {
    const named = (part) => `${text(new Uint8Array(key))}\0${part}`
    if (query.startsWith('CREATE')) return []
    if (query.startsWith('INSERT')) {
      if (this.failing) throw new Error('the disk is full')
      this.rows.set(named(second), third)
      return []
    }
    if (query.startsWith('DELETE')) {
      for (const row of [...this.rows.keys()]) if (row.startsWith(named(''))) this.rows.delete(row)
      return []
    }
    this.asked += 1
    const sorted = [...this.rows].sort(([a], [b]) => (a < b ? -1 : 1))
    const split = sorted.map(([row, value]) => [row.split('\0')[0], Number(row.split('\0')[1]), value])
    if (query.startsWith('SELECT v')) {
      return split.filter(([row]) => row === text(new Uint8Array(key))).map(([, , value]) => [value])
    }
    const [low, high] = [key, second].map((it) => text(new Uint8Array(it)))
    const found = split.filter(([row]) => row >= low && row < high).slice(0, third)
    return found.map(([row, part, value]) => [bytes(row).buffer, part, value])
  }
}

let storage
let table
beforeEach(() => {
  storage = new Storage()
  table = new Table(storage)
})

const put = (key, value = key) => table.put(bytes(key), bytes(value))
const get = (key) => text(table.get(bytes(key)))
const scan = (most = 100) => table.scan(bytes('a'), bytes('z'), most).map(text)

test('work that fails changes nothing', () => {
  table.whole(() => put('b', 'before'))
  const fails = () => {
    put('b', 'after')
    table.delete(bytes('b'))
    throw new Error('no')
  }
  assert.throws(() => table.whole(fails), /no/)
  assert.deepEqual([get('b'), scan(), storage.rows.size], ['before', ['b', 'before'], 1])
})

test('what can not be stored is not in memory, either', () => {
  table.whole(() => put('b', 'before'))
  storage.failing = true
  assert.throws(() => table.whole(() => put('b', 'after')), /full/)
  assert.equal(get('b'), 'before')
})

test('work sees what it changed, in order and within the limit', () => {
  table.whole(() => ['b', 'd', 'f'].map((key) => put(key)))
  table.whole(() => {
    put('c')
    table.delete(bytes('b'))
    put('d', 'new')
    assert.deepEqual([get('b'), get('d')], [undefined, 'new'])
    assert.deepEqual(scan(), ['c', 'c', 'd', 'new', 'f', 'f'])
    assert.deepEqual(scan(2), ['c', 'c', 'd', 'new'])
  })
  assert.deepEqual(scan(), ['c', 'c', 'd', 'new', 'f', 'f'])
})

test('what is known is not asked for, and work that changes nothing stores nothing', () => {
  table.whole(() => put('b'))
  const again = new Table(storage)
  const { asked, transactions } = storage
  for (let turn = 0; turn < 3; turn++) again.whole(() => again.get(bytes('b')))
  assert.deepEqual([storage.asked - asked, storage.transactions - transactions], [1, 0])
})

test('memory is bounded', () => {
  const large = 'x'.repeat(60_000)
  for (let n = 0; n < 200; n++) table.whole(() => put(`k${n}`, large))
  const { asked } = storage
  assert.ok(get('k199') === large)
  assert.equal(storage.asked, asked)
  assert.ok(get('k0') === large)
  assert.equal(storage.asked, asked + 1)
})

test('what is larger than a part comes back whole', () => {
  const large = 'ab'.repeat(1_300_000)
  table.whole(() => put('b', large))
  assert.equal(storage.rows.size, 3)
  assert.ok(get('b') === large)
  assert.ok(scan()[1] === large)
  table.whole(() => table.delete(bytes('b')))
  assert.deepEqual([get('b'), storage.rows.size], [undefined, 0])
})
