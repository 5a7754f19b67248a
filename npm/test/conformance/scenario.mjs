// The scenario files: read strictly, by their schema, and with every repetition written out.

import { readdirSync, readFileSync } from 'node:fs'
import { problemOf } from './schema.mjs'
import { numbers } from './written.mjs'

/** @typedef {{ do: string, [field: string]: any }} Step */
/** @typedef {{ at: string, step: Step } | { at: string, branches: Located[][] }} Located a step and where it stands, such as `2[i=17].1` */
/**
 * @typedef {object} Scenario
 * @property {string} name
 * @property {string[]} guarantees
 * @property {string[]} requires
 * @property {object} options
 * @property {string[]} nodes
 * @property {Located[]} steps
 */

const FOLDER = new URL('../../../tests/conformance/', import.meta.url)
const SCHEMA = 'scenario.schema.json'

/** @param {string} file */
const read = (file) => JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8'))

export const schema = read(SCHEMA)
/** Steps inside are looked at one by one, once they are written out. */
const shallow = { ...schema, $defs: { ...schema.$defs, steps: { type: 'array', minItems: 1 } } }

/**
 * The scenarios of every file, as they are written, by the file's name.
 *
 * @returns {Map<string, any[]>}
 */
export function files() {
  const inside = readdirSync(new URL('sessions/', FOLDER)).map((name) => `sessions/${name}`)
  const names = [...readdirSync(FOLDER), ...inside].filter((name) => name.endsWith('.json') && name !== SCHEMA)
  const title = (/** @type {string} */ name) => name.slice(name.indexOf('/') + 1, -'.json'.length)
  return new Map(names.sort().map((name) => [title(name), read(name)]))
}

/**
 * A scenario that can be run. Throws for whatever is not known.
 *
 * @param {any} written
 * @returns {Scenario}
 */
export function parse(written) {
  const problem = problemOf(schema.$defs.scenario, written, shallow)
  if (problem !== undefined) throw new Error(`scenario: ${problem}`)
  const { name, guarantees, requires = [], options = {}, nodes = ['a'], steps } = written
  return { name, guarantees, requires, options, nodes, steps: writeOut(steps, '') }
}

/**
 * @param {any[]} steps
 * @param {string} prefix
 * @returns {Located[]}
 */
function writeOut(steps, prefix) {
  return steps.flatMap((step, index) => writeOutOne(step, `${prefix}${index + 1}`))
}

/**
 * @param {any} step
 * @param {string} at
 * @returns {Located[]}
 */
function writeOutOne(step, at) {
  const shape = /^(registry|events)\./.test(step?.do) ? schema.$defs.sessionStep : schema.$defs.step
  const problem = problemOf(shape, step, shallow)
  if (problem !== undefined) throw new Error(`step ${at}: ${problem} in ${JSON.stringify(step).slice(0, 200)}`)
  if (step.do === 'repeat') return turns(step).flatMap(({ i, steps }) => writeOut(steps, `${at}[i=${i}].`))
  if (step.do !== 'parallel') return [{ at, step }]
  const branches = step.branches.map((/** @type {any[]} */ one, /** @type {number} */ n) =>
    writeOut(one, `${at}.${n + 1}.`),
  )
  return [{ at, branches }]
}

/** @param {{ from: number, to: number, steps: any[] }} repeat */
function turns({ from, to, steps }) {
  return numbers(from, to).map((i) => ({ i, steps: substituted(steps, i) }))
}

/**
 * Puts the number of a turn in place of `{i}`; a text that is nothing else becomes a number.
 *
 * @param {any} value
 * @param {number} i
 * @returns {any}
 */
function substituted(value, i) {
  if (value === '{i}') return i
  if (typeof value === 'string') return value.replaceAll('{i}', String(i))
  if (Array.isArray(value)) return value.map((item) => substituted(item, i))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, substituted(field, i)]))
}
