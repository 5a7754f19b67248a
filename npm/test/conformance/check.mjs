// Compares what came with what was expected; every difference is told in words.

import { setTimeout as wait } from 'node:timers/promises'
import { inspect, isDeepStrictEqual } from 'node:util'
import { McpSessionsError } from 'mcp-sessions'

/**
 * @template T
 * @typedef {{ value: T } | { error: McpSessionsError }} Outcome
 */

/** How long anything expected may take to happen. */
export const PATIENCE_MS = 10_000
const NO_RECEIPT = { accepted: 0, dropped: 0, duplicates: 0 }

/**
 * @param {unknown} value
 * @param {number} [most]
 */
export function shown(value, most = 200) {
  const text = JSON.stringify(value) ?? String(value)
  return text.length <= most ? text : `${text.slice(0, most)}… (${text.length} characters)`
}

/**
 * @param {string} what
 * @param {unknown} got
 * @param {unknown} wanted
 */
export function same(what, got, wanted) {
  if (isDeepStrictEqual(got, wanted)) return
  throw new Error(`${what}: expected ${shown(wanted, 400)}, got ${shown(got, 400)}`)
}

/**
 * What `work` comes to, within the patience. An error that is not the engine's own is nobody's expectation.
 *
 * @template T
 * @param {() => T | Promise<T>} work
 * @returns {Promise<Outcome<T>>}
 */
export async function attempt(work) {
  try {
    return { value: await work() }
  } catch (error) {
    if (error instanceof McpSessionsError) return { error }
    throw error
  }
}

/**
 * A value, or the error that is expected in its place.
 *
 * @param {Outcome<unknown>} got
 * @param {any} wanted
 */
export function check(got, wanted) {
  if (isFailure(wanted)) return checkFailure(got, wanted)
  if ('error' in got) throw new Error(`expected ${shown(wanted)}, got error ${told(got.error)}`)
  return same('result', got.value, wanted)
}

/**
 * A step without a result, which succeeds unless it expects an error.
 *
 * @param {Outcome<unknown>} got
 * @param {any} wanted
 */
export function done(got, wanted) {
  if (wanted !== undefined) return checkFailure(got, wanted)
  if ('error' in got) throw new Error(`unexpected error ${told(got.error)}`)
}

/**
 * @param {Outcome<import('mcp-sessions').Receipt>} got
 * @param {any} wanted
 */
export function checkSend(got, wanted) {
  if (isFailure(wanted)) return checkFailure(got, wanted)
  if ('error' in got) throw new Error(`unexpected error ${told(got.error)}`)
  if (wanted.anyOf === undefined) return same('receipt', got.value, { ...NO_RECEIPT, ...wanted })
  const fits = wanted.anyOf.some((/** @type {object} */ one) => isDeepStrictEqual(got.value, { ...NO_RECEIPT, ...one }))
  if (!fits) throw new Error(`expected any of ${shown(wanted.anyOf)}, got ${shown(got.value)}`)
}

/**
 * Compares lists whose order means nothing, duplicates included.
 *
 * @param {Outcome<string[]>} got
 * @param {any} wanted
 * @param {(written: any) => string[]} texts
 */
export function checkSet(got, wanted, texts) {
  if (isFailure(wanted) || 'error' in got) return check(got, wanted)
  return check({ value: got.value.toSorted() }, texts(wanted).toSorted())
}

/**
 * Checks once, or, where others only have to get there, until it holds.
 *
 * @param {boolean | undefined} until
 * @param {() => Promise<Outcome<unknown>>} get
 * @param {any} wanted
 */
export async function checkUntil(until, get, wanted) {
  if (!until) return check(await get(), wanted)
  return eventually(async () => check(await get(), wanted))
}

/**
 * For what nobody tells: tries until `test` does not throw.
 *
 * @param {() => void | Promise<void>} test
 */
export async function eventually(test) {
  for (const deadline = Date.now() + PATIENCE_MS; Date.now() < deadline; await wait(5)) {
    try {
      return await test()
    } catch {
      // Not yet.
    }
  }
  return test()
}

/**
 * What a promise comes to, or an error that says what did not happen in time.
 *
 * @template T
 * @param {Promise<T>} work
 * @param {string} problem
 * @param {number} [ms]
 * @returns {Promise<T>}
 */
export async function within(work, problem, ms = PATIENCE_MS) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(problem)), ms)
  })
  try {
    return await Promise.race([work, /** @type {Promise<never>} */ (late)])
  } finally {
    clearTimeout(timer)
  }
}

/** @param {any} wanted */
function isFailure(wanted) {
  return typeof wanted === 'object' && wanted !== null && 'error' in wanted
}

/**
 * @param {Outcome<unknown>} got
 * @param {any} wanted
 */
function checkFailure(got, wanted) {
  const { error: code, message, messageLacks, retryable, outcomeUnknown, ...unknown } = wanted
  same('unknown fields of the expected error', unknown, {})
  if (!('error' in got)) throw new Error(`expected error ${code}, ${succeeded(got.value)}`)
  const { error } = got
  if (error.code !== code) throw new Error(`expected error ${code}, got error ${told(error)}`)
  same('operation', typeof error.operation, 'string')
  if (message !== undefined) same('message', error.message, message)
  if (retryable !== undefined) same('retryable', error.retryable, retryable)
  if (outcomeUnknown !== undefined) same('outcomeUnknown', error.outcomeUnknown, outcomeUnknown)
  if (messageLacks !== undefined && inspect(error, { depth: null }).includes(messageLacks)) {
    throw new Error(`the message says too much: ${inspect(error)}`)
  }
}

/** @param {unknown} value */
function succeeded(value) {
  return value === undefined ? 'but it succeeded' : `got ${shown(value)}`
}

/** @param {McpSessionsError} error */
function told(error) {
  return `${error.code}: ${error.message}`
}
