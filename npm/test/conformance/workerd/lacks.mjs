// What scenarios need that a Worker does not have. They are left out, and counted.

/** What the managers can do, as `requires` names it. */
const CAPABILITIES = new Set(['mergedOrder', 'pipelined'])

/** Steps for which a Worker's classes have no word, and the sync layer is not asked either. */
const STEPS = new Map([
  ['start', 'a Worker is there when its request comes'],
  ['shutdown', 'streams end with their requests'],
  ['kill', 'one Worker of a workerd cannot be killed'],
  ['outage', 'a Worker cannot be cut off from its objects'],
  ['drop', 'a Worker is not told of what is collected'],
  ['subscription.drop', 'a Worker is not told of what is collected'],
  ['health', 'there is no connection to be well'],
  ['stats', 'a Worker counts nothing'],
  ['info.put', 'fields are set one by one'],
  ['info.record', 'fields are read one by one'],
  ['subscription.closeAll', 'it does not count'],
  ['registry.begin', 'requests of a Worker are noted, not counted'],
  ['registry.drop', 'a Worker is not told of what is collected'],
  ['registry.adopt', 'sessions name no process'],
  ['registry.follow', 'nothing is held in a Worker that has to end'],
  ['registry.drain', 'nothing is held in a Worker that has to end'],
  ['registry.shutdown', 'nothing is held in a Worker that has to end'],
])
const SCENARIOS = new Map([
  ['sessions-in-use-do-not-expire', 'KV keeps what it is given for a minute at least'],
  ['stale-is-told-before-it-is-swept', 'the alarm of an object sweeps as soon as it is due'],
  ['overflow-without-a-cursor', 'what was not acknowledged is given again'],
  ['every-node', 'to subscriptions all Workers are one node'],
  ['a-slow-subscriber', 'a subscription ends as closed or cancelled, as tmcp has it'],
])
const EVENTS = 'the event log is for SDKs that do not run in Workers'

/**
 * Why a scenario can't be run in a Worker, if it can't.
 *
 * @param {any} scenario
 * @returns {string | undefined}
 */
export function lack({ name, requires = [], steps }) {
  const known = SCENARIOS.get(name)
  if (known !== undefined) return known
  const missing = requires.find((/** @type {string} */ it) => !CAPABILITIES.has(it))
  if (missing !== undefined) return `it is not ${missing}`
  for (const step of stepsOf(steps)) {
    if (step.do.startsWith('events.')) return EVENTS
    const why = STEPS.get(step.do) ?? detail(step)
    if (why !== undefined) return why
  }
  return undefined
}

/** @param {any} step */
function detail({ do: what, field, of, expect }) {
  if (expect?.byNode !== undefined || (what === 'registry.list' && of !== undefined)) return 'sessions name no process'
  if (what.startsWith('info.') && ['protocolVersion', 'initializeParams'].includes(field)) {
    return `${field} is not kept`
  }
  if (what === 'read' && JSON.stringify(expect).includes('"kind"')) return 'frames do not tell to whom they were sent'
  return undefined
}

/**
 * Those inside of others, too.
 *
 * @param {any[]} steps
 * @returns {any[]}
 */
function stepsOf(steps) {
  return steps.flatMap((step) => [step, ...stepsOf(step.steps ?? []), ...(step.branches ?? []).flatMap(stepsOf)])
}
