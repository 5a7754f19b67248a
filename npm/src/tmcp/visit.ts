// What a request that came through `resumable` tells the managers, past the transport in between.

import type { AsyncLocalStorage } from 'node:async_hooks'
import type { McpSessionsError } from '../errors'

/** A stream, as far as the door of a transport deals with it. */
export interface Seat {
  /** Its session. */
  readonly id: string
  /** Resolves once it is open, or over; with the failure if it could not be opened. */
  settled(): Promise<McpSessionsError | undefined>
  /** Its client is gone. */
  leave(): unknown
}

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
  stream?: Seat
  gap?: boolean
  /** What the client is told first, in chunks that may have others before them: they leave as one. */
  greeting?: Uint8Array
}

/** A DELETE that terminates a session. */
export interface Terminating {
  kind: 'terminate'
}

/** The client of this very stream is gone; its session is not. */
export interface Leaving {
  kind: 'leave'
  stream: Seat
}

export type Visit = Opening | Terminating | Leaving

let storage: AsyncLocalStorage<Visit> | undefined

/** Where visits are told from now on: Node and Workers each bring their own. */
export function tellVisitsIn(own: AsyncLocalStorage<Visit>): void {
  storage ??= own
}

/** The visit that the code at hand runs for. */
export const visits = {
  getStore: (): Visit | undefined => storage?.getStore(),
  run: <T>(visit: Visit, work: () => T): T => (storage === undefined ? work() : storage.run(visit, work)),
}
