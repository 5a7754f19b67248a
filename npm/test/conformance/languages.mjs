// Scenarios with several nodes, one in Node and the next in Python, on real servers; then the other way round.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { startServer } from '../../../tests/support/servers.mjs'

const SUITE = fileURLToPath(new URL('conformance.test.mjs', import.meta.url))
const ORDERS = ['node,python', 'python,node']

let failed = false
for (const scheme of ['redis://', 'postgresql://']) {
  const server = await startServer(scheme)
  try {
    for (const order of ORDERS) {
      const env = { ...process.env, MCP_SESSIONS_TEST_URL: server.url, MCP_SESSIONS_TEST_PROCESSES: order }
      const args = ['--expose-gc', '--test', '--test-reporter=spec', SUITE]
      const [status] = await once(spawn(process.execPath, args, { env, stdio: 'inherit' }), 'exit')
      failed ||= status !== 0
    }
  } finally {
    await server.stop()
  }
}
process.exitCode = failed ? 1 : 0
