// What the tests share.

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const decoder = new TextDecoder()

/** A hub of this test's own. */
export function hub(name) {
  return `memory://${name}-${process.pid}-${Math.random().toString(36).slice(2)}`
}

/** An SSE frame as tmcp writes it. */
export function frame(data) {
  return `event: message\ndata: ${JSON.stringify(data)}\n\n`
}

/** A session's stream as a transport makes it: `create` in `start`, `delete` on cancel. */
export function openStream(manager, id, strategy) {
  let controller
  const stream = new ReadableStream(
    {
      async start(made) {
        controller = made
        await manager.create(id, made)
      },
      async cancel() {
        await manager.delete(id)
      },
    },
    strategy,
  )
  return { id, stream, controller, reader: stream.getReader() }
}

/** The frames of a stream, one by one, as `{ id, data }`. */
export class Frames {
  #reader
  #text = ''

  constructor(reader) {
    this.#reader = reader
  }

  /** The next message (or, if asked for, any block), `undefined` at the end. */
  async next({ any = false } = {}) {
    for (;;) {
      const end = this.#text.indexOf('\n\n')
      if (end >= 0) {
        const block = this.#text.slice(0, end)
        this.#text = this.#text.slice(end + 2)
        const read = parse(block)
        if (any || (read.data !== undefined && read.event !== 'cursor')) return read
        continue
      }
      const { done, value } = await this.#reader.read()
      if (done) return undefined
      this.#text += decoder.decode(value, { stream: true })
    }
  }

  async take(count) {
    const frames = []
    while (frames.length < count) frames.push(await this.next())
    return frames
  }

  /** The data of the next frames, parsed. */
  async data(count) {
    return (await this.take(count)).map((one) => JSON.parse(one.data))
  }
}

function parse(block) {
  const fields = {}
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':')
    const name = colon === 0 ? 'comment' : line.slice(0, colon)
    fields[name] = line.slice(colon + 1).trimStart()
  }
  return fields
}

/** The end of the current turn of the event loop. */
export function turn() {
  return new Promise((resolve) => setImmediate(resolve))
}

/** Resolves once this is true; for what nothing tells of. */
export async function until(check, ms = 10_000) {
  const deadline = performance.now() + ms
  while (!(await check())) {
    if (performance.now() > deadline) throw new Error(`in vain: ${check}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

/** Collects garbage until something is true of what is left. */
export function collected(check) {
  return until(() => {
    globalThis.gc()
    return check()
  })
}

/** Runs a program of this folder's in a process of its own. */
export function run(source, { args = [], timeout = 20_000 } = {}) {
  const cwd = fileURLToPath(new URL('..', import.meta.url))
  const argv = [...args, '--input-type=module', '--eval', source]
  return new Promise((resolve) => {
    const began = performance.now()
    execFile(process.execPath, argv, { cwd, timeout }, (error, stdout, stderr) => {
      resolve({ code: error ? (error.code ?? error.signal) : 0, stdout, stderr, ms: performance.now() - began })
    })
  })
}
