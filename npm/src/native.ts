// Finds and loads the native addon of this platform.

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { ConfigError } from './errors'
import { WIRE_VERSION } from './wire'

/** What the addon exports; `bindings/node/src/lib.rs` says what each does. */
export interface Native {
  wireVersion(): number
  livePorts(): number
  makePort(wakeUp: (handle: number) => void, inbox: Buffer, ops: Buffer, out: Buffer, records: Buffer): number
  dropPort(port: number): boolean
  attach(port: number, inbox: Buffer, ops: Buffer, out: Buffer, records: Buffer): void
  exchange(port: number, from: number, to: number, fetch: boolean): number
  nextReady(): number | null
  isStale(port: number): boolean
  call(port: number, number: number, request: string): string | null
  take(port: number, token: number, limit: number): string | null
  endOf(port: number, token: number): string | null
}

/** Linux systems have one of two C libraries, and an addon is made for one. */
function isMusl(): boolean {
  try {
    const report = process.report as { excludeNetwork?: boolean; getReport(): unknown } | undefined
    if (report) {
      const before = report.excludeNetwork
      // Looking up the names of open connections can take seconds.
      report.excludeNetwork = true
      const { header } = report.getReport() as { header: { glibcVersionRuntime?: string } }
      report.excludeNetwork = before ?? false
      return header.glibcVersionRuntime === undefined
    }
  } catch {
    // Runtimes without reports are asked another way.
  }
  try {
    return readdirSync('/lib').some((name) => name.startsWith('ld-musl-'))
  } catch {
    return false
  }
}

/** The name of this platform, as in the names of the platform packages. */
export function platformName(): string {
  const name = `${process.platform}-${process.arch}`
  if (process.platform === 'linux') return isMusl() ? `${name}-musl` : `${name}-gnu`
  if (process.platform === 'win32') return `${name}-msvc`
  return name
}

function load(): Native {
  const platform = platformName()
  const file = `mcp-sessions.${platform}.node`
  // In a checkout and in a tarball packed on this platform the addon is inside the package itself.
  const inside = join(__dirname, '..', 'platforms', platform, file)
  const places = [process.env.MCP_SESSIONS_ADDON, existsSync(inside) ? inside : undefined, `mcp-sessions-${platform}`]
  const problems: string[] = []
  for (const place of places) {
    if (place === undefined || place === '') continue
    try {
      const native = require(place) as Native
      if (native.wireVersion() === WIRE_VERSION) return native
      problems.push(`${place} belongs to another version of mcp-sessions`)
    } catch (error) {
      problems.push((error as Error).message.split('\n')[0] ?? '')
    }
  }
  throw new ConfigError(
    `the addon of mcp-sessions for ${platform} could not be loaded; install the package mcp-sessions-${platform} ` +
      `(npm does unless optional dependencies are left out): ${problems.join('; ')}`,
    'load',
  )
}

/** The addon. */
export const native: Native = load()
