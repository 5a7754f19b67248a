// The conformance scenarios on the engine API of this package, on the backend of MCP_SESSIONS_TEST_URL.
//
// Each scenario is a test of its own, named `file::scenario`; what they are is told in
// `tests/conformance/README.md`. With nodes in different languages only those are run that have several nodes.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { APART, Backend, MIXED } from './backend.mjs'
import { files, parse, schema } from './scenario.mjs'
import { problemOf } from './schema.mjs'
import { STEPS } from './steps.mjs'
import { everyFieldUsed, run, World } from './world.mjs'
import { malformed, mistaken } from './wrong.mjs'

/** Proved by at least one scenario each. */
const GUARANTEES = ['G1', 'G2', 'G3', 'G4', 'G5', 'G6', 'G7', 'G8', 'G9', 'G10', 'G11', 'G12']

const backend = await Backend.fromEnv()
const written = files()
const all = [...written.values()].flat()
assert.ok(all.length > 0, 'there are no scenarios')

// Where time is real, most of a scenario is waiting.
describe(`scenarios on ${backend.scheme}${APART ? `, processes apart${MIXED ? `, in ${MIXED}` : ''}` : ''}`, {
  concurrency: backend.capability.manualClock ? 1 : APART ? 4 : 8,
}, () => {
  for (const [file, scenarios] of written) {
    for (const scenario of scenarios) {
      if (MIXED && nodesOf(scenario) < 2) continue
      const name = `${file}::${scenario.name}`
      const skip = !backend.can(scenario.requires ?? []) && 'the backend is not able to'
      test(name, { skip }, () => run(parse(scenario), backend.place(name.replace('::', '-'))))
    }
  }
})

/** For what is so whatever language the nodes are in, and is not tested again with several. */
const describeOnce = MIXED ? () => {} : describe

describeOnce('scenario files', () => {
  for (const [file, scenarios] of written) {
    test(`${file} is what the schema says`, () => assert.equal(problemOf(schema, scenarios, schema), undefined))
    test(`${file} uses each name once`, () => {
      const names = scenarios.map((scenario) => scenario.name)
      assert.deepEqual(names, [...new Set(names)])
    })
  }
  test('every guarantee is proved', () => {
    const cited = new Set(all.flatMap((scenario) => scenario.guarantees))
    const unproved = GUARANTEES.filter((guarantee) => !cited.has(guarantee))
    assert.deepEqual(unproved, [])
  })
})

// Every wrong scenario fails, and for its own reason.
describeOnce('runner', () => {
  for (const { name, scenario, says } of malformed) {
    test(`refuses ${name}`, () => assert.throws(() => parse(scenario), saying(says)))
  }
  for (const { name, scenario, says } of mistaken) {
    const place = backend.place(`runner-${name.replaceAll(' ', '-')}`)
    test(`fails on ${name}`, () => assert.rejects(run(parse(scenario), place), saying(says)))
  }
  test('fails on an unknown capability', () => {
    assert.throws(() => backend.can(['flight']), saying('flight is no capability'))
  })
  test('fails on a field that a step ignores', async () => {
    const scenario = parse({ name: 'x', title: 'X.', guarantees: ['G1'], steps: [{ do: 'kill', node: 'a' }] })
    const world = new World(scenario, backend.place('runner-ignored'))
    const ignoring = everyFieldUsed(() => {}, world, { do: 'kill', node: 'a' })
    await assert.rejects(ignoring, saying('fields the runner ignores: expected [], got ["node"]'))
  })
  test('knows every step of the schema, and no other', () => {
    const shapes = [...schema.$defs.step.oneOf, ...schema.$defs.sessionStep.oneOf]
    const known = shapes.flatMap((/** @type {any} */ { properties }) => properties.do.enum ?? properties.do.const)
    assert.deepEqual([...Object.keys(STEPS), 'repeat', 'parallel'].sort(), known.sort())
  })
})

/**
 * How many nodes a scenario starts with, or starts.
 *
 * @param {any} scenario
 */
function nodesOf({ nodes = ['a'], steps }) {
  return nodes.length + JSON.stringify(steps).split('"do":"start"').length - 1
}

/** @param {string} text */
function saying(text) {
  return (/** @type {Error} */ error) => {
    assert.ok(error.message.includes(text), `failed for another reason: ${error.message}, not ${text}`)
    return true
  }
}
