// The conformance scenarios inside a real workerd, on the managers of a Worker and the sync layer: the runner is
// bundled into a Worker, which is given one scenario after the other. What a Worker lacks is in `lacks.mjs`.

import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { workerd } from '../../../../bindings/worker/scripts/workerd.mjs'
import { files, parse } from '../scenario.mjs'
import { mistaken } from '../wrong.mjs'
import { lack } from './lacks.mjs'

const here = (/** @type {string} */ file) => fileURLToPath(new URL(file, import.meta.url))
const worker = await workerd({
  script: `export * from '${here('worker.mjs')}'; export { default } from '${here('worker.mjs')}'`,
  kv: ['TMCP_SESSION_INFO'],
  bindings: { TMCP_SHARDS: process.env.MCP_SESSIONS_TEST_SHARDS ?? 1 },
  instead: { 'mcp-sessions': here('engine.mjs'), './backend.mjs': here('backend.mjs') },
})
after(() => worker.dispose())

/** @type {Map<string, number>} */
const leftOut = new Map()

// Most of a scenario is waiting.
describe('scenarios inside workerd', { concurrency: 4 }, () => {
  for (const [file, scenarios] of files()) {
    for (const scenario of scenarios) {
      const skip = lack(scenario)
      if (skip !== undefined) leftOut.set(skip, (leftOut.get(skip) ?? 0) + 1)
      const name = `${file}::${scenario.name}`
      test(name, { skip: skip ?? false }, async () => {
        const problem = await problemOf(name.replace('::', '-'), scenario)
        assert.equal(problem, undefined, problem)
      })
    }
  }
})

// Every wrong scenario fails, and for its own reason.
describe('the runner inside workerd', () => {
  for (const { name, scenario, says } of mistaken) {
    if (lack(scenario) !== undefined) continue
    test(`fails on ${name}`, async () => {
      const problem = await problemOf(`runner-${name.replaceAll(' ', '-')}`, scenario)
      assert.ok(problem?.includes(says), `failed for another reason: ${problem}, not ${says}`)
    })
  }
})

/**
 * What went wrong with a scenario, if anything did.
 *
 * @param {string} name
 * @param {any} scenario
 * @returns {Promise<string | undefined>}
 */
async function problemOf(name, scenario) {
  const body = JSON.stringify({ name, scenario: parse(scenario) })
  // A connection that was idle for long may be gone when it is used again.
  const answer = await fetch(worker.url, { method: 'POST', body, headers: { Connection: 'close' } })
  return (await answer.json()).problem
}

for (const [why, count] of [...leftOut].toSorted(([, a], [, b]) => b - a)) console.log(`left out: ${count}, as ${why}`)
