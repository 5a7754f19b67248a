// Owners: what names them.

import type { AuthInfo } from './types'

/**
 * What names the owner of a request: the subject of its token, with the client and issuer, if the verifier
 * tells it (`extra.sub`); else the token itself, which then must not be renewed within a session.
 */
export function ownerOf(auth: AuthInfo | undefined | null): string | undefined {
  if (auth === undefined || auth === null) return undefined
  const { sub, iss } = auth.extra ?? {}
  if (typeof sub === 'string' && sub !== '') return JSON.stringify(['sub', auth.clientId, iss ?? null, sub])
  return typeof auth.token === 'string' && auth.token !== '' ? auth.token : undefined
}
