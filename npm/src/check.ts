// Checks that are cheap enough to be made before anything is queued.

import { InvalidInputError, TooLargeError } from './errors'

const SESSION_ID = /^[\x21-\x7e]{1,256}$/

/** Throws unless `id` is a session id: 1 to 256 bytes of visible ASCII. */
export function checkSessionId(id: unknown, operation: string): asserts id is string {
  if (typeof id === 'string' && SESSION_ID.test(id)) return
  const what =
    typeof id === 'string'
      ? 'a session id is 1 to 256 bytes of visible ASCII (0x21 to 0x7E)'
      : notText('a session id', id)
  throw new InvalidInputError(what, operation)
}

/** Throws unless `text` can be written as UTF-8 in at most `limit` bytes. */
export function checkText(text: unknown, what: string, limit: number, operation: string): asserts text is string {
  if (typeof text !== 'string') throw new InvalidInputError(notText(what, text), operation)
  if (!text.isWellFormed())
    throw new InvalidInputError(`${what} has a lone surrogate, which is not valid Unicode`, operation)
  // A code unit becomes one to three bytes: only in between they have to be counted.
  if (text.length * 3 <= limit) return
  const bytes = text.length > limit ? text.length : Buffer.byteLength(text)
  if (bytes > limit) throw new TooLargeError(`${what} is over the limit of ${limit} bytes`, operation)
}

/** Throws unless `uri` is a resource's URI. */
export function checkUri(uri: unknown, limit: number, operation: string): asserts uri is string {
  checkText(uri, 'a resource URI', limit, operation)
  if (uri === '') throw new InvalidInputError('a resource URI is not empty', operation)
}

const LOG_LEVELS = ['debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency'] as const

/** The severities of RFC 5424 as MCP names them. */
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Throws unless `level` is one of the eight log levels. */
export function checkLogLevel(level: unknown, operation: string): asserts level is LogLevel {
  if (!(LOG_LEVELS as readonly unknown[]).includes(level)) {
    throw new InvalidInputError(`a log level is one of ${LOG_LEVELS.join(', ')}`, operation)
  }
}

function notText(what: string, value: unknown): string {
  return `${what} is a string, not ${value === null ? 'null' : Array.isArray(value) ? 'a list' : typeof value}`
}
