// What goes wrong where tmcp's transports do not wait: it is told, and never ends the process.

import { asError, type McpSessionsError } from '../errors'

/** Told of every failure that a transport may not wait for. */
export type OnError = (error: McpSessionsError) => void

/** One log line a failure. */
export function logError(error: McpSessionsError): void {
  console.error(`[mcp-sessions] ${error.operation} failed (${error.code}): ${error.message}`)
}

export class Failures {
  readonly hook: OnError

  constructor(hook: OnError | undefined) {
    this.hook = hook ?? logError
  }

  report = (error: McpSessionsError): void => {
    try {
      this.hook(error)
    } catch (thrown) {
      console.error('[mcp-sessions] the onError hook threw:', thrown)
    }
  }

  /** A rejection for whoever awaits it; nobody has to. */
  reject(thrown: unknown, operation: string): Promise<never> {
    const error = asError(thrown, operation)
    this.report(error)
    return quiet(Promise.reject(error))
  }

  /** Runs what may throw or reject: either way its caller gets a promise that nobody has to await. */
  attempt<T>(operation: string, work: () => T | Promise<T>): Promise<T> {
    try {
      const result = work()
      if (!(result instanceof Promise)) return Promise.resolve(result)
      return quiet(
        result.catch((thrown) => {
          const error = asError(thrown, operation)
          this.report(error)
          throw error
        }),
      )
    } catch (thrown) {
      return this.reject(thrown, operation)
    }
  }
}

/** The same promise; its rejection does not end the process when nobody awaits it. */
export function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}
