// Closings: told to whoever holds something of a session, and asked for until the backend has heard.

import type { Engine } from '../engine'
import { asError, type McpSessionsError } from '../errors'

const FIRST_PAUSE_MS = 200
const LAST_PAUSE_MS = 30_000

/** Calls `ended` for every session of this node that closes, whoever closes it; gives what stops that. */
export function followClosings(engine: Engine, ended: (session: string, reason: string) => void): () => void {
  const closings = engine.registry.closings()
  const follow = async () => {
    for await (const { session, reason } of closings) ended(session, reason)
  }
  // It rejects only when the engine is gone, and so are its sessions.
  follow().catch(() => {})
  return () => closings.close()
}

/** Sessions whose local objects are gone already: they are closed for all as soon as the backend can be told. */
export class Owed {
  #timers = new Set<NodeJS.Timeout>()
  #report: (error: McpSessionsError) => void

  constructor(report: (error: McpSessionsError) => void) {
    this.#report = report
  }

  /** Closes it now, or later. */
  async close(engine: Engine, session: string, reason: string, pauseMs = FIRST_PAUSE_MS): Promise<void> {
    try {
      await engine.registry.close(session, reason)
    } catch (thrown) {
      const error = asError(thrown, 'registry.close')
      if (!error.retryable) return
      if (pauseMs === FIRST_PAUSE_MS) this.#report(error)
      const next = Math.min(pauseMs * 2, LAST_PAUSE_MS)
      const timer = setTimeout(() => {
        this.#timers.delete(timer)
        void this.close(engine, session, reason, next)
      }, pauseMs)
      timer.unref()
      this.#timers.add(timer)
    }
  }

  /** Those that are still owed are stale some day, and swept. */
  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer)
    this.#timers.clear()
  }
}

/** Ends a transport and its server, each whatever becomes of the other. */
export async function endBoth(
  transport: { onclose?: (() => void) | undefined; close(): Promise<void> },
  server: { close(): Promise<void> },
): Promise<unknown[]> {
  const ended = await Promise.allSettled([(async () => transport.close())(), (async () => server.close())()])
  return ended.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
}
