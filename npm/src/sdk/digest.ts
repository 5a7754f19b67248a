// How this process compares tokens without keeping them.

import { createHmac, randomBytes } from 'node:crypto'

const key = randomBytes(32)

/** A token as this process keeps it; equal tokens have equal digests. */
export function digest(token: string | undefined): string | undefined {
  return token === undefined ? undefined : createHmac('sha256', key).update(token).digest('base64url')
}
