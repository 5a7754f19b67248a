/** How much of a log is kept for replay; whichever bound is met first trims it. */
export interface RetentionOptions {
  /** Events kept; 0 turns history off, and delivery is live only. */
  events?: number
  /** Payload bytes kept. */
  bytes?: number
  /** Milliseconds an event is kept, and a session is remembered after its last stream. */
  ageMs?: number
}

/** The options of an engine; the same names in every language. What is left out has its default. */
export interface Options {
  /** What is kept of a session's own events (default: 256 events, 1 MiB, 5 minutes). */
  retention?: RetentionOptions
  /** What is kept of events sent to all (default: 1,024 events, 4 MiB, 5 minutes). */
  broadcastRetention?: RetentionOptions
  /** What may wait for one slow reader before its stream ends with `overflow` (default: 1,024 events, 4 MiB). */
  queue?: { events?: number; bytes?: number }
  /** How soon the others notice that this node died (default: 5 s, renewed every 2 s). */
  lease?: { ttlMs?: number; renewMs?: number }
  /** The session registry. */
  registry?: {
    /** Milliseconds without access and without an active request after which a session is stale (default: 30 minutes). */
    staleMs?: number
    /** Milliseconds between the sweeps that close stale sessions (default: 1 minute). */
    sweepMs?: number
    /** Milliseconds a closed session's id can't be used again (default: 5 minutes). */
    tombstoneMs?: number
    /** The largest metadata of a session, in bytes of JSON (default: 16 KiB). */
    maxMetadataBytes?: number
    /** What owners' tokens are hashed with, at least 16 bytes; without it the backend keeps a random one. */
    ownerKey?: string
  }
  /** Milliseconds a session's info is kept without being touched (default: 24 hours). */
  sessionTtlMs?: number
  /** The largest payload of one event, in bytes (default: 4 MiB). */
  maxPayloadBytes?: number
  /** The longest resource URI, in bytes (default: 8 KiB). */
  maxUriBytes?: number
  /** The largest info value, in bytes of JSON (default: 64 KiB). */
  maxInfoBytes?: number
  /** The most resource subscriptions of one session (default: 10,000). */
  maxSubscriptions?: number
  /** Milliseconds an operation may take before it fails with `timeout` (default: 10 s). */
  operationTimeoutMs?: number
  /**
   * In an outage an operation waits for the backend to come back for so long before it fails with `unavailable` (0,
   * which fails at once). What may have happened already is not tried again.
   */
  outageWaitMs?: number
  /** The most bytes of payload that wait for the backend before `send` waits, too (default: 64 MiB). */
  maxPendingBytes?: number
  /** Whether an `id:` line with the cursor is put in front of SSE frames (default: true). */
  frameIds?: boolean
}
