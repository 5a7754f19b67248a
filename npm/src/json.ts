// Info is JSON: it is checked when it is given, and written when it crosses.

import { asError, InvalidInputError, TooLargeError } from './errors'

/** An object as JSON has it. */
export type JsonObject = { [key: string]: unknown }

/** Deeper documents are refused: nobody's client info is. */
const MAX_DEPTH = 64

/** One check under way; checks don't nest. */
let values = 0
let chars = 0
let converts = false

/**
 * Checks an object of the protocol, and returns it, or what JSON makes of it where that is something
 * else. Throws `invalid_input` for what JSON can't carry (a function, a symbol, a big integer, NaN, a
 * cycle, a lone surrogate) and `too_large` over the limit.
 */
export function checkJson(value: unknown, what: string, limit: number, operation: string): JsonObject {
  values = limit
  chars = 0
  converts = false
  let problem = checkValue(value, 0)
  let checked = value
  if (problem === undefined && converts) {
    checked = converted(value, operation)
    problem = checkValue(checked, 0)
  }
  if (problem === TOO_MUCH) throw tooLarge(what, limit, operation)
  if (problem !== undefined) throw new InvalidInputError(`${what} ${problem}`, operation)
  if (typeof checked !== 'object' || checked === null || Array.isArray(checked)) {
    throw new InvalidInputError(`${what} is a JSON object`, operation)
  }
  // A character becomes one to six bytes of JSON: only near the limit they have to be counted.
  if (chars * 6 > limit && Buffer.byteLength(JSON.stringify(checked)) > limit) throw tooLarge(what, limit, operation)
  return checked as JsonObject
}

function converted(value: unknown, operation: string): unknown {
  try {
    return JSON.parse(JSON.stringify(value))
  } catch (error) {
    throw asError(error, operation)
  }
}

const TOO_MUCH = 'is too large'
const LONE_SURROGATE = 'has a lone surrogate, which is not valid Unicode'

/** What is wrong with a value, if anything; adds up its size. */
function checkValue(value: unknown, depth: number): string | undefined {
  // Each value is at least a byte of JSON.
  values -= 1
  if (values < 0) return TOO_MUCH
  switch (typeof value) {
    case 'string':
      chars += value.length + 3
      return value.isWellFormed() ? undefined : LONE_SURROGATE
    case 'boolean':
      chars += 6
      return undefined
    case 'number':
      chars += 25
      return Number.isFinite(value) ? undefined : `holds ${value}, which is not JSON`
    case 'object':
      chars += 5
      if (value === null) return undefined
      if (depth >= MAX_DEPTH) return 'is nested too deep, or holds itself'
      return Array.isArray(value) ? checkItems(value, depth) : checkMembers(value as JsonObject, depth)
    default:
      return `holds a ${typeof value}, which is not JSON`
  }
}

function checkItems(items: readonly unknown[], depth: number): string | undefined {
  for (const item of items) {
    if (item === undefined) converts = true
    const problem = checkValue(item ?? null, depth + 1)
    if (problem !== undefined) return problem
  }
  return undefined
}

function checkMembers(object: JsonObject, depth: number): string | undefined {
  if (typeof object.toJSON === 'function') {
    converts = true
    return undefined
  }
  for (const key in object) {
    const member = object[key]
    // As JSON does: what is undefined is not there.
    if (member === undefined) continue
    if (!key.isWellFormed()) return LONE_SURROGATE
    chars += key.length + 4
    const problem = checkValue(member, depth + 1)
    if (problem !== undefined) return problem
  }
  return undefined
}

function tooLarge(what: string, limit: number, operation: string): TooLargeError {
  return new TooLargeError(`${what} is over the limit of ${limit} bytes of JSON`, operation)
}
