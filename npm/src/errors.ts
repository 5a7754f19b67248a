/** The stable code of an error, the same in every language. */
export type ErrorCode =
  | 'invalid_input'
  | 'not_found'
  | 'conflict'
  | 'too_large'
  | 'unauthorized'
  | 'unavailable'
  | 'timeout'
  | 'closed'
  | 'corrupt'
  | 'config'

/** What an error says besides its message. */
export interface ErrorDetails {
  /** The operation may have happened all the same. */
  outcomeUnknown?: boolean
  /** The error that caused it. */
  cause?: unknown
}

/**
 * A failed operation of the engine. Catch a subclass, or look at `code`.
 *
 * @example
 * ```ts
 * import { Engine, McpSessionsError } from 'mcp-sessions'
 *
 * const engine = Engine.memory()
 * try {
 *   await engine.info.getClientInfo('nobody')
 * } catch (error) {
 *   if (error instanceof McpSessionsError && error.code === 'not_found') console.log('never set')
 *   else throw error
 * }
 * ```
 */
export class McpSessionsError extends Error {
  /** What kind of failure this is. */
  readonly code: ErrorCode
  /** Whether the same call can succeed later without a change by the caller. */
  readonly retryable: boolean
  /** Whether the operation may have happened although it failed; retry with the same idempotency key. */
  readonly outcomeUnknown: boolean
  /** The operation that failed, such as `streams.send`. */
  readonly operation: string

  constructor(code: ErrorCode, message: string, operation: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.name = new.target.name
    this.code = code
    this.retryable = code === 'unavailable' || code === 'timeout'
    this.outcomeUnknown = details.outcomeUnknown === true
    this.operation = operation
  }
}

/** An argument breaks a rule; nothing was done. */
export class InvalidInputError extends McpSessionsError {
  constructor(message: string, operation: string, details?: ErrorDetails) {
    super('invalid_input', message, operation, details)
  }
}

/** What was asked for does not exist (any more). */
export class NotFoundError extends McpSessionsError {
  constructor(message: string, operation: string, details?: ErrorDetails) {
    super('not_found', message, operation, details)
  }
}

/** Somebody else holds what was asked for. */
export class ConflictError extends McpSessionsError {
  constructor(message: string, operation: string, details?: ErrorDetails) {
    super('conflict', message, operation, details)
  }
}

/** A payload, URI or document is over its limit; nothing was done. */
export class TooLargeError extends McpSessionsError {
  constructor(message: string, operation: string, details?: ErrorDetails) {
    super('too_large', message, operation, details)
  }
}

/** The backend or the owner check refused the caller. */
export class UnauthorizedError extends McpSessionsError {
  constructor(message: string, operation: string, details?: ErrorDetails) {
    super('unauthorized', message, operation, details)
  }
}

/** The backend can't be reached just now. */
export class UnavailableError extends McpSessionsError {
  constructor(message: string, operation: string, details?: ErrorDetails) {
    super('unavailable', message, operation, details)
  }
}

/** A deadline passed first. */
export class TimeoutError extends McpSessionsError {
  constructor(message: string, operation: string, details?: ErrorDetails) {
    super('timeout', message, operation, details)
  }
}

/** The engine was shut down. */
export class ClosedError extends McpSessionsError {
  constructor(message: string, operation: string, details?: ErrorDetails) {
    super('closed', message, operation, details)
  }
}

/** The backend holds data this engine can't read. */
export class CorruptError extends McpSessionsError {
  constructor(message: string, operation: string, details?: ErrorDetails) {
    super('corrupt', message, operation, details)
  }
}

/** A URL or an option makes no sense. */
export class ConfigError extends McpSessionsError {
  constructor(message: string, operation: string, details?: ErrorDetails) {
    super('config', message, operation, details)
  }
}

const CLASSES: Record<ErrorCode, new (message: string, operation: string, details?: ErrorDetails) => McpSessionsError> =
  {
    invalid_input: InvalidInputError,
    not_found: NotFoundError,
    conflict: ConflictError,
    too_large: TooLargeError,
    unauthorized: UnauthorizedError,
    unavailable: UnavailableError,
    timeout: TimeoutError,
    closed: ClosedError,
    corrupt: CorruptError,
    config: ConfigError,
  }

/** A failure as the addon tells it. */
interface Failure {
  code: ErrorCode
  message: string
  operation: string
  outcomeUnknown: boolean
}

/** Makes the error object of a failure that the addon told as JSON. */
export function errorOf(json: string): McpSessionsError {
  const { code, message, operation, outcomeUnknown } = JSON.parse(json) as Failure
  return new CLASSES[code](message, operation, { outcomeUnknown })
}

/** Any thrown value as one of our errors: what others throw is a fault in what they gave us. */
export function asError(thrown: unknown, operation: string): McpSessionsError {
  if (thrown instanceof McpSessionsError) return thrown
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return new InvalidInputError(message, operation, { cause: thrown })
}
