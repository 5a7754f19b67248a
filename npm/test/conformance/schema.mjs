// Checks a value against the part of JSON Schema that `scenario.schema.json` uses; refuses the rest of it.

/** @typedef {true | { [keyword: string]: any }} Schema */
/** @typedef {{ $defs: { [name: string]: Schema } }} Root */

const ANNOTATIONS = ['$schema', '$defs', 'title', 'description']
/** Read together with the keyword they belong to. */
const COMPANIONS = ['additionalProperties', 'patternProperties', 'then', 'else']
const DEFS = '#/$defs/'

/**
 * What is wrong with a value, in words; `undefined` if nothing is.
 *
 * @param {Schema} schema
 * @param {any} value
 * @param {Root} root where `$ref` points into
 * @param {string} [at] where the value stands
 * @returns {string | undefined}
 */
export function problemOf(schema, value, root, at = '') {
  if (schema === true) return undefined
  for (const [keyword, rule] of Object.entries(schema)) {
    if (ANNOTATIONS.includes(keyword) || COMPANIONS.includes(keyword)) continue
    const check = CHECKS[keyword]
    if (check === undefined) throw new Error(`the schema says ${keyword}, which is not understood here`)
    const problem = check(rule, value, root, at, schema)
    if (problem !== undefined) return problem
  }
  if (isObject(value) && 'additionalProperties' in schema) return unknownField(schema, value, at)
  return undefined
}

/** @type {{ [keyword: string]: (rule: any, value: any, root: Root, at: string, schema: any) => string | undefined }} */
const CHECKS = {
  $ref: (rule, value, root, at) => {
    const schema = root.$defs[rule.slice(DEFS.length)]
    if (!rule.startsWith(DEFS) || schema === undefined) throw new Error(`the schema has no ${rule}`)
    return problemOf(schema, value, root, at)
  },
  type: (rule, value, _, at) => {
    const types = [rule].flat()
    return types.some((type) => isOf(type, value)) ? undefined : said(at, `is not of type ${types.join(' or ')}`)
  },
  enum: (rule, value, _, at) => (rule.includes(value) ? undefined : said(at, `${JSON.stringify(value)} is not known`)),
  const: (rule, value, _, at) => (rule === value ? undefined : said(at, `is not ${JSON.stringify(rule)}`)),
  pattern: (rule, value, _, at) =>
    typeof value !== 'string' || new RegExp(rule, 'u').test(value) ? undefined : said(at, `does not match ${rule}`),
  minLength: (rule, value, _, at) =>
    typeof value !== 'string' || value.length >= rule ? undefined : said(at, `is shorter than ${rule}`),
  minimum: (rule, value, _, at) =>
    typeof value !== 'number' || value >= rule ? undefined : said(at, `is less than ${rule}`),
  maximum: (rule, value, _, at) =>
    typeof value !== 'number' || value <= rule ? undefined : said(at, `is more than ${rule}`),
  minItems: (rule, value, _, at) =>
    !Array.isArray(value) || value.length >= rule ? undefined : said(at, `has fewer than ${rule} items`),
  uniqueItems: (_, value, __, at) =>
    !Array.isArray(value) || new Set(value).size === value.length ? undefined : said(at, 'has an item twice'),
  items: (rule, value, root, at) =>
    Array.isArray(value) ? first(value, (item, n) => problemOf(rule, item, root, `${at}[${n}]`)) : undefined,
  minProperties: (rule, value, _, at) =>
    !isObject(value) || Object.keys(value).length >= rule ? undefined : said(at, `has fewer than ${rule} fields`),
  propertyNames: (rule, value, root, at) =>
    isObject(value) ? first(Object.keys(value), (name) => problemOf(rule, name, root, inside(at, name))) : undefined,
  required: (rule, value, _, at, schema) => {
    if (!isObject(value)) return undefined
    const missing = rule.find((/** @type {string} */ name) => !Object.hasOwn(value, name))
    if (missing === undefined) return undefined
    // A name that is wrong explains why the right one is missing.
    return unknownField(schema, value, at) ?? said(at, `missing field \`${missing}\``)
  },
  properties: (rule, value, root, at) =>
    isObject(value)
      ? first(Object.keys(rule), (name) =>
          Object.hasOwn(value, name) ? problemOf(rule[name], value[name], root, inside(at, name)) : undefined,
        )
      : undefined,
  oneOf,
  if: (rule, value, root, at, schema) =>
    problemOf(problemOf(rule, value, root, at) === undefined ? schema.then : schema.else, value, root, at),
}

/**
 * @param {any[]} shapes
 * @param {any} value
 * @param {Root} root
 * @param {string} at
 */
function oneOf(shapes, value, root, at) {
  if (shapes.every((shape) => shape.properties?.do !== undefined)) return stepOf(shapes, value, root, at)
  const fitting = shapes.filter((shape) => problemOf(shape, value, root, at) === undefined)
  if (fitting.length === 1) return undefined
  return said(at, `${JSON.stringify(value)} fits ${fitting.length === 0 ? 'no shape' : 'several shapes'}`)
}

/**
 * The shapes of steps are told apart by `do`.
 *
 * @param {any[]} shapes
 * @param {any} value
 * @param {Root} root
 * @param {string} at
 */
function stepOf(shapes, value, root, at) {
  const shape = shapes.find(({ properties }) => problemOf(properties.do, value?.do, root) === undefined)
  return shape === undefined ? said(at, `unknown step \`${value?.do}\``) : problemOf(shape, value, root, at)
}

/**
 * @param {any} schema
 * @param {any} value
 * @param {string} at
 */
function unknownField({ properties = {}, patternProperties = {}, additionalProperties }, value, at) {
  if (additionalProperties !== false) return undefined
  const patterns = Object.entries(patternProperties).map(([pattern, rule]) => ({
    name: new RegExp(pattern, 'u'),
    rule,
  }))
  return first(Object.keys(value), (name) => {
    if (Object.hasOwn(properties, name)) return undefined
    const pattern = patterns.find((one) => one.name.test(name))
    if (pattern === undefined) return said(at, `unknown field \`${name}\``)
    return problemOf(/** @type {Schema} */ (pattern.rule), value[name], { $defs: {} }, inside(at, name))
  })
}

/**
 * The first problem among `items`.
 *
 * @template T
 * @param {T[]} items
 * @param {(item: T, n: number) => string | undefined} check
 */
function first(items, check) {
  for (const [n, item] of items.entries()) {
    const problem = check(item, n)
    if (problem !== undefined) return problem
  }
  return undefined
}

/**
 * @param {string} type
 * @param {any} value
 */
function isOf(type, value) {
  if (type === 'object') return isObject(value)
  if (type === 'array') return Array.isArray(value)
  if (type === 'integer') return Number.isSafeInteger(value)
  if (type === 'string' || type === 'boolean') return typeof value === type
  throw new Error(`the schema says type ${type}, which is not understood here`)
}

/** @param {any} value */
function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * @param {string} at
 * @param {string} name
 */
function inside(at, name) {
  return at === '' ? name : `${at}.${name}`
}

/**
 * @param {string} at
 * @param {string} problem
 */
function said(at, problem) {
  return at === '' ? problem : `${at}: ${problem}`
}
