// What a request that came through `resumable` tells the managers, past the transport in between.

import { AsyncLocalStorage } from 'node:async_hooks'
import type { ControlledStream } from './controlled-stream'

/** A GET that opens a session's stream. */
export interface Opening {
  kind: 'open'
  /** The client's `Last-Event-ID`. */
  after: string | undefined
  conflict: 'replace' | 'reject'
  /** Milliseconds the client is asked to wait before it reconnects. */
  retryMs: number
  onGap: ((gap: { sessionId: string; lastEventId: string | undefined }) => void) | undefined
  /** What `create` made. */
  stream?: ControlledStream
  gap?: boolean
}

/** A DELETE that terminates a session. */
export interface Terminating {
  kind: 'terminate'
}

/** The client of this very stream is gone; its session is not. */
export interface Leaving {
  kind: 'leave'
  stream: ControlledStream
}

export type Visit = Opening | Terminating | Leaving

export const visits = new AsyncLocalStorage<Visit>()
