// What the tests share.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as api from 'mcp-sessions'

export const packageFolder = join(dirname(fileURLToPath(import.meta.url)), '..')

const CLASSES = {
  invalid_input: api.InvalidInputError,
  not_found: api.NotFoundError,
  conflict: api.ConflictError,
  too_large: api.TooLargeError,
  unauthorized: api.UnauthorizedError,
  unavailable: api.UnavailableError,
  timeout: api.TimeoutError,
  closed: api.ClosedError,
  corrupt: api.CorruptError,
  config: api.ConfigError,
}

/** Fails unless `promise` settles soon: nothing may hang. */
export async function within(promise, what = 'it', ms = 10_000) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(
      () => reject(new assert.AssertionError({ message: `${what} did not settle within ${ms} ms` })),
      ms,
    )
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Fails unless `error` is one of ours with this code, of the class that goes with it. */
export function assertTyped(error, code, what = 'it') {
  assert.ok(error instanceof api.McpSessionsError, `${what}: not one of our errors: ${error?.stack ?? error}`)
  assert.equal(error.code, code, `${what}: ${error.message}`)
  assert.ok(error instanceof CLASSES[code], `${what}: a ${error.constructor.name} with the code ${code}`)
  assert.equal(error.name, CLASSES[code].name)
  assert.equal(error.retryable, code === 'unavailable' || code === 'timeout')
  assert.notEqual(error.message, '')
  assert.notEqual(error.operation, '')
}

/** Fails unless `work` throws or rejects, soon, with this code; returns the error. */
export async function fails(code, work, what) {
  let error
  try {
    await within(work(), what)
  } catch (thrown) {
    error = thrown
  }
  assert.notEqual(error, undefined, `${what ?? 'it'} should have failed with ${code}`)
  assertTyped(error, code, what)
  return error
}

/** A promise, and the functions that settle it. */
export function deferred() {
  let resolve
  let reject
  const promise = new Promise((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}

/** Runs an ES module in a process of its own, to its end. */
export function child(source, { flags = [], ms = 20_000 } = {}) {
  const { promise, resolve } = deferred()
  const one = spawn(process.execPath, [...flags, '--input-type=module', '--eval', source], {
    cwd: packageFolder,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: ms,
    killSignal: 'SIGKILL',
  })
  const said = { out: '', err: '' }
  one.stdout.on('data', (data) => (said.out += data))
  one.stderr.on('data', (data) => (said.err += data))
  one.on('close', (status, signal) => resolve({ status: status ?? signal, ...said }))
  return promise
}

/** Runs it, and fails unless it ends by itself with 0; returns what it said. */
export async function childEnds(source, options) {
  const { status, out, err } = await child(source, options)
  assert.equal(status, 0, `the process did not end by itself with 0 but with ${status}:\n${out}\n${err}`)
  return { out, err }
}

/** Collects garbage until `done` says so. */
export async function collectUntil(done, what, ms = 10_000) {
  const deadline = Date.now() + ms
  while (!(await done())) {
    assert.ok(Date.now() < deadline, `${what} was not collected`)
    // What was looked at lives until its turn ends, and finalizers run in a turn of their own.
    await new Promise((resolve) => setImmediate(resolve))
    global.gc()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** A real stream of the platform, with its controller. */
export function controlled(strategy) {
  let controller
  const cancelled = deferred()
  const body = new ReadableStream(
    {
      start(own) {
        controller = own
      },
      cancel: (reason) => cancelled.resolve(reason),
    },
    strategy,
  )
  return { body, controller, cancelled: cancelled.promise }
}

/** Reads frames of server-sent events off a stream of bytes, one at a time. */
export class SseReader {
  #decoder = new TextDecoder()
  #text = ''

  constructor(body) {
    this.reader = body.getReader()
  }

  /** The next frame as `{ id, event, data, retry, comment }`; `undefined` at the end. */
  async frame() {
    for (;;) {
      const end = this.#text.indexOf('\n\n')
      if (end >= 0) {
        const frame = parse(this.#text.slice(0, end))
        this.#text = this.#text.slice(end + 2)
        return frame
      }
      const { done, value } = await within(this.reader.read(), 'a read')
      if (done) {
        assert.equal(this.#text, '', 'the stream ended inside a frame')
        return undefined
      }
      // A line ends as its server likes; no server here ends one with a carriage return alone.
      this.#text += this.#decoder.decode(value, { stream: true }).replaceAll('\r', '')
    }
  }

  /** The next frame that has data of somebody's; `undefined` at the end. */
  async event() {
    let frame = await this.frame()
    // Where a stream begins is told in an event of its own, which clients pass over.
    while (frame !== undefined && (frame.data === undefined || frame.event === 'cursor')) frame = await this.frame()
    return frame
  }

  cancel(reason) {
    return this.reader.cancel(reason)
  }
}

function parse(text) {
  const frame = {}
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':')
    const name = colon === 0 ? 'comment' : line.slice(0, colon)
    frame[name] = line.slice(colon + 1).replace(/^ /, '')
  }
  return frame
}

/** A frame as tmcp writes it. */
export const frameOf = (data) => `event: message\ndata: ${JSON.stringify(data)}\n\n`
