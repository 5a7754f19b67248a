// The class of transports for those who do not say which: that of the SDK that is installed.

import { ConfigError } from '../errors'
import type { NodeTransport, TransportClass, WebTransport } from './types'

type Choice = readonly [module: string, name: string]

const NODE: Choice[] = [
  ['@modelcontextprotocol/sdk/server/streamableHttp.js', 'StreamableHTTPServerTransport'],
  ['@modelcontextprotocol/node', 'NodeStreamableHTTPServerTransport'],
]
const WEB: Choice[] = [
  ['@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js', 'WebStandardStreamableHTTPServerTransport'],
  ['@modelcontextprotocol/server', 'WebStandardStreamableHTTPServerTransport'],
]

async function find(choices: Choice[]): Promise<unknown> {
  for (const [module, name] of choices) {
    const found = await import(module).catch(() => undefined)
    if (typeof found?.[name] === 'function') return found[name]
  }
  const names = choices.map(([module]) => module).join(' and ')
  throw new ConfigError(`neither ${names} is installed: install one, or pass its class as Transport`, 'sdk')
}

/** The installed SDK's transport for `node:http`; version 1 if both are. Rejects with `config`. */
export function nodeTransport(): Promise<TransportClass<NodeTransport>> {
  return find(NODE) as Promise<TransportClass<NodeTransport>>
}

/** The installed SDK's transport for `fetch`; version 1 if both are. Rejects with `config`. */
export function webTransport(): Promise<TransportClass<WebTransport>> {
  return find(WEB) as Promise<TransportClass<WebTransport>>
}
