// Runs a command with a real server of its own, whose URL is in MCP_SESSIONS_TEST_URL:
//
//     node with-server.mjs redis:// -- command...

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { startServer } from './servers.mjs'

const [url, separator, command, ...args] = process.argv.slice(2)
if (url === undefined || separator !== '--' || command === undefined) {
  console.error('with-server.mjs redis:// -- command...')
  process.exit(2)
}
const server = await startServer(url)
const child = spawn(command, args, { stdio: 'inherit', env: { ...process.env, MCP_SESSIONS_TEST_URL: server.url } })
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
const [code] = await once(child, 'exit')
await server.stop()
process.exit(code ?? 1)
