// A process for one node at a time: does what `remote.mjs` asks of its engine, streams and subscriptions.

import { setImmediate as turn } from 'node:timers/promises'
import { inspect } from 'node:util'
import { Engine, McpSessionsError } from 'mcp-sessions'

/** @type {Map<number, any>} */
const things = new Map()
let last = 0
/** @type {FinalizationRegistry<(value: unknown) => void>} */
const registry = new FinalizationRegistry((resolve) => resolve(undefined))
// Waiting for an event does not keep a process alive; the test does.
setInterval(() => {}, 0x7fff_ffff)

/** @param {any} thing */
function keep(thing) {
  last += 1
  things.set(last, thing)
  return last
}

/** @param {Promise<any>} opened */
async function tailed(opened) {
  const tail = await opened
  return { handle: keep(tail), gap: tail.gap }
}

/** What does not fit a message: calls by name. */
const CALLS = {
  connect: async (/** @type {string} */ url, /** @type {object} */ options) => {
    const engine = await Engine.connect(url, options)
    return { handle: keep(engine), capability: engine.capability, nodeId: engine.nodeId }
  },
  call: (/** @type {number} */ handle, /** @type {string[]} */ path, /** @type {unknown[]} */ args) => {
    let target = things.get(handle)
    for (const name of path.slice(0, -1)) target = target[name]
    return target[/** @type {string} */ (path.at(-1))](...args)
  },
  open: async (/** @type {number} */ engine, /** @type {string} */ id, /** @type {object} */ options) => {
    const stream = await things.get(engine).streams.open(id, options)
    return { handle: keep(stream), id: stream.id, gap: stream.gap, cursor: stream.cursor }
  },
  listen: async (/** @type {number} */ engine, /** @type {object} */ request) => {
    const subscription = await things.get(engine).subscriptions.listen(request)
    return subscription && { handle: keep(subscription) }
  },
  /** What a call gives stays here; its gap is told, if it has one. */
  make: async (/** @type {number} */ handle, /** @type {string[]} */ path, /** @type {unknown[]} */ args) => {
    const made = await CALLS.call(handle, path, args)
    return { handle: keep(made), gap: made.gap }
  },
  events: (
    /** @type {number} */ engine,
    /** @type {string} */ scope,
    /** @type {string} */ name,
    /** @type {unknown[]} */ args,
  ) =>
    things
      .get(engine)
      .events(scope)
      [name](...args),
  tail: (/** @type {number} */ engine, /** @type {string} */ scope, /** @type {string} */ after) =>
    tailed(things.get(engine).events(scope).tail(after)),
  follow: (/** @type {number} */ engine, /** @type {string} */ scope, /** @type {string} */ stream) =>
    tailed(things.get(engine).events(scope).follow(stream)),
  dispose: (/** @type {number} */ handle) => {
    things.get(handle)[Symbol.dispose]()
    things.delete(handle)
  },
  next: async (/** @type {number} */ handle) => {
    const source = things.get(handle)
    const item = await source.next()
    return { item, cursor: source.cursor }
  },
  ended: (/** @type {number} */ handle) => things.get(handle).ended,
  end: (/** @type {number} */ handle) => things.get(handle).end,
  /** What is there has been told when this is answered. */
  turn: () => turn(),
  drop: async (/** @type {number} */ handle) => {
    const collected = forget(handle)
    let isCollected = false
    collected.then(() => {
      isCollected = true
    })
    for (const deadline = Date.now() + 10_000; !isCollected; await turn()) {
      if (Date.now() > deadline) throw new Error('it was not collected')
      globalThis.gc?.()
    }
  },
  forgetAll: async () => {
    for (const thing of things.values()) if (thing instanceof Engine) await thing[Symbol.asyncDispose]().catch(() => {})
    things.clear()
  },
}

/** @param {number} handle */
function forget(handle) {
  const thing = things.get(handle)
  things.delete(handle)
  return new Promise((resolve) => registry.register(thing, resolve))
}

/** @param {unknown} error */
function told(error) {
  if (!(error instanceof McpSessionsError)) return { other: inspect(error) }
  const { code, message, operation, retryable, outcomeUnknown } = error
  return { code, message, operation, retryable, outcomeUnknown, inspected: inspect(error, { depth: null }) }
}

process.on(
  'message',
  async (/** @type {{ number: number, name: keyof typeof CALLS, args: any[] }} */ { number, name, args }) => {
    try {
      // @ts-expect-error: each call has its own parameters
      process.send?.({ number, value: await CALLS[name](...args) })
    } catch (error) {
      process.send?.({ number, error: told(error) })
    }
  },
)
process.on('disconnect', () => process.exit(0))
