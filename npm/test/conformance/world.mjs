// Runs one scenario: its nodes, its streams, what it saved, and what each step must give.

import { setImmediate as turn } from 'node:timers/promises'
import { APART } from './backend.mjs'
import { attempt, done, eventually, PATIENCE_MS, same, shown, within } from './check.mjs'
import { FENCE } from './held.mjs'
import { STEPS } from './steps.mjs'

/** @typedef {import('./held.mjs').Held} Held */
/** @typedef {import('./held.mjs').Listening} Listening */
/** @typedef {import('./scenario.mjs').Located} Located */
/** @typedef {import('./scenario.mjs').Step} Step */
/** @typedef {{ engine: import('mcp-sessions').Engine, alive: boolean }} Node */

/** The nodes, streams and names of one scenario. */
export class World {
  /** @type {Map<string, Node>} killed ones stay: what they held must not be given back by collecting them */
  nodes = new Map()
  /** @type {Map<string, Held>} */
  streams = new Map()
  /** @type {Map<string, Listening>} */
  subscriptions = new Map()
  /** @type {Map<string, string>} */
  cursors = new Map()
  /** @type {Map<string, import('./proxy.mjs').Route>} nodes reach their backend through one, if it is to be taken away */
  proxies = new Map()
  /** @type {Map<string, import('mcp-sessions').ActiveRequest>} */
  requests = new Map()
  /** @type {Map<string, import('./steps-registry.mjs').Followed>} */
  closings = new Map()
  /** @type {Map<string, any>} */
  tails = new Map()
  /** @type {Set<string>} ids that were made; none twice */
  made = new Set()
  /** @type {Set<string>} */
  #cutOff
  /** @type {Set<string>} */
  #names = new Set()
  #fences = 0
  #options
  #firstNode

  /**
   * @param {import('./scenario.mjs').Scenario} scenario
   * @param {import('./backend.mjs').Place} place
   */
  constructor(scenario, place) {
    this.place = place
    this.#options = scenario.options
    this.#firstNode = scenario.nodes[0]
    this.#cutOff = cutOff(scenario.steps)
  }

  /**
   * @param {string} name
   * @param {object} [options]
   * @param {string} [url]
   * @param {any} [expect]
   */
  async start(name, options, url, expect = undefined) {
    if (this.nodes.has(name)) throw new Error(`there is a node ${name} already`)
    const address = url ?? (await this.#urlOf(name))
    const started = await attempt(() => this.place.connect(address, { ...this.#options, ...options }, this.nodes.size))
    if ('value' in started) this.nodes.set(name, { engine: started.value, alive: true })
    done(started, expect)
  }

  /**
   * The URL for a node: its own way to the backend, if that is to be cut.
   *
   * @param {string} name
   */
  async #urlOf(name) {
    const { url, port } = this.place
    if (port === undefined || !this.#cutOff.has(name)) return url
    const proxy = this.place.route(port)
    this.proxies.set(name, proxy)
    return this.place.urlThrough(await proxy.listen())
  }

  /**
   * The name of a step's node: the first one, if it names none.
   *
   * @param {string | undefined} node
   */
  nameOf(node) {
    const name = node ?? this.#firstNode
    if (name === undefined) throw new Error('the step names no node')
    return name
  }

  /**
   * @param {string | undefined} name
   * @returns {Node}
   */
  liveNode(name) {
    const node = this.nodes.get(this.nameOf(name))
    if (!node?.alive) throw new Error(`there is no live node ${this.nameOf(name)}`)
    return node
  }

  /** @param {string | undefined} node */
  engine(node) {
    return this.liveNode(node).engine
  }

  /** @param {string} name */
  stream(name) {
    return found(this.streams, name, 'stream')
  }

  /** @param {string} name */
  subscription(name) {
    return found(this.subscriptions, name, 'subscription')
  }

  /** @param {string} name */
  takeName(name) {
    if (this.#names.has(name)) throw new Error(`the name ${name} is taken: give another with "as"`)
    this.#names.add(name)
  }

  /**
   * The cursor that was saved as `$name`.
   *
   * @param {string} reference
   */
  saved(reference) {
    const cursor = this.cursors.get(reference.slice(1))
    if (cursor === undefined) throw new Error(`no cursor was saved as ${reference.slice(1)}`)
    return cursor
  }

  /**
   * What was saved as `$name`; any other text stands for itself.
   *
   * @param {string} text
   */
  named(text) {
    return text.startsWith('$') ? (this.cursors.get(text.slice(1)) ?? text) : text
  }

  /**
   * A node's id, dead or alive.
   *
   * @param {string} name
   */
  nodeId(name) {
    return found(this.nodes, name, 'node').engine.nodeId
  }

  /** @param {string} name */
  followed(name) {
    return found(this.closings, name, 'follower')
  }

  /** @param {string} name */
  tail(name) {
    return found(this.tails, name, 'tail')
  }

  /** A payload that no scenario reads. */
  newFence() {
    this.#fences += 1
    return `${FENCE}${this.#fences}`
  }

  /**
   * Forgets a stream or subscription, and waits until it was collected and, if it was live, given back.
   *
   * @param {'streams' | 'subscriptions'} kind
   * @param {string} name
   */
  async drop(kind, name) {
    if (APART) return this.#dropApart(kind, name)
    const { collected, givenBack } = this.#forget(kind, name)
    if (globalThis.gc === undefined) throw new Error('dropping needs node --expose-gc')
    let isCollected = false
    collected.then(() => {
      isCollected = true
    })
    for (const deadline = Date.now() + PATIENCE_MS; !isCollected; await turn()) {
      if (Date.now() > deadline) throw new Error('it was not collected')
      globalThis.gc()
    }
    await eventually(givenBack)
  }

  /**
   * @param {'streams' | 'subscriptions'} kind
   * @param {string} name
   */
  async #dropApart(kind, name) {
    const held = kind === 'streams' ? this.stream(name) : this.subscription(name)
    const source = /** @type {any} */ ('stream' in held ? held.stream : held.subscription)
    const node = this.nodes.get(held.node)
    this[kind].delete(name)
    await source.turn()
    const before = node?.alive && source.end === undefined ? (await node.engine.stats())[kind] : undefined
    await source.drop()
    if (before === undefined) return
    await eventually(async () => same(`${kind} are fewer`, (await node?.engine.stats())?.[kind] < before, true))
  }

  /**
   * A frame of its own, so that nothing here refers to it afterwards.
   *
   * @param {'streams' | 'subscriptions'} kind
   * @param {string} name
   */
  #forget(kind, name) {
    const held = kind === 'streams' ? this.stream(name) : this.subscription(name)
    const source = 'stream' in held ? held.stream : held.subscription
    const node = this.nodes.get(held.node)
    this[kind].delete(name)
    const collected = collectionOf(source)
    if (!node?.alive || source.end !== undefined) return { collected, givenBack: () => {} }
    const { engine } = node
    const before = engine.stats()[kind]
    const givenBack = () => same(`${kind} are fewer`, engine.stats()[kind] < before, true)
    return { collected, givenBack }
  }

  /** @param {Located[]} steps */
  async run(steps) {
    for (const one of steps) {
      if ('branches' in one) await this.#runBranches(one.branches)
      else await this.#runStep(one.at, one.step)
    }
  }

  /** @param {Located[][]} branches */
  async #runBranches(branches) {
    const outcomes = await Promise.allSettled(branches.map((steps) => this.run(steps)))
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  }

  /**
   * @param {string} at
   * @param {Step} step
   */
  async #runStep(at, step) {
    const waits = step.do === 'advance' && !this.place.manualClock ? step.ms : 0
    try {
      const run = STEPS[step.do]
      if (run === undefined) throw new Error(`the runner does not know ${step.do}`)
      await within(everyFieldUsed(run, this, step), 'did not come to an end', PATIENCE_MS * 3 + waits)
    } catch (error) {
      throw new Error(`step ${at} ${shown(step, 160)}: ${/** @type {Error} */ (error).message}`, { cause: error })
    }
  }

  /** Nothing unexpected may be left over: no event, no end. */
  async checkTheEnd() {
    await this.#catchUp()
    const held = [
      ...Array.from(this.streams, ([name, stream]) => ({ name: `stream ${name}`, one: stream })),
      ...Array.from(this.subscriptions, ([name, subscription]) => ({
        name: `subscription ${name}`,
        one: subscription,
      })),
    ]
    for (const { name, one } of held) {
      if (this.nodes.get(one.node)?.alive) await atTheEnd(name, () => one.checkLeftovers())
    }
    this.requests.clear()
    const ahead = [...this.closings, ...this.tails]
    for (const [name, { unread }] of ahead) await atTheEnd(name, async () => same('unread', unread, undefined))
    for (const [name, tail] of this.tails) await atTheEnd(name, async () => same('end', tail.end, undefined))
  }

  /** What was accepted before is here once the backend has answered a node. */
  async #catchUp() {
    for (const { engine, alive } of this.nodes.values()) if (alive) await engine.health()
  }

  /** Every node that is left leaves in order, and holds nothing afterwards (G11). */
  async shutDown() {
    for (const [name, { engine, alive }] of this.nodes) {
      if (!alive) continue
      await atTheEnd(`node ${name}`, async () => {
        await within(engine.shutdown(PATIENCE_MS), 'it did not shut down', PATIENCE_MS * 2)
        const { streams, subscriptions } = await engine.stats()
        same('streams and subscriptions after the shutdown', [streams, subscriptions], [0, 0])
        await engine[Symbol.asyncDispose]()
      })
      this.nodes.delete(name)
    }
  }

  /** Nothing is left running, also by a scenario that failed. */
  abandon() {
    for (const { engine, alive } of this.nodes.values()) if (alive) void engine.abandon()
    for (const proxy of this.proxies.values()) proxy.close()
  }
}

/**
 * Runs a scenario at a place of its own.
 *
 * @param {import('./scenario.mjs').Scenario} scenario
 * @param {import('./backend.mjs').Place} place
 */
export async function run(scenario, place) {
  const world = new World(scenario, place)
  try {
    for (const node of scenario.nodes) await world.start(node)
    await world.run(scenario.steps)
    await world.checkTheEnd()
    await world.shutDown()
  } finally {
    world.abandon()
  }
}

/**
 * The nodes from which the backend is taken away at some time.
 *
 * @param {Located[]} steps
 * @returns {Set<string>}
 */
function cutOff(steps) {
  const nodes = steps.flatMap((one) => {
    if ('branches' in one) return one.branches.flatMap((branch) => [...cutOff(branch)])
    return one.step.do === 'outage' ? [one.step.node] : []
  })
  return new Set(nodes)
}

/** @type {FinalizationRegistry<(value: unknown) => void>} */
const registry = new FinalizationRegistry((resolve) => resolve(undefined))

/**
 * Resolves once `object` is collected. It shares its scope with nothing that lives longer.
 *
 * @param {object} object
 */
function collectionOf(object) {
  return new Promise((resolve) => registry.register(object, resolve))
}

/**
 * A field that a step's code never looked at would be an expectation that nobody checks.
 *
 * @param {import('./steps.mjs').Run} run
 * @param {World} world
 * @param {Step} step
 */
export async function everyFieldUsed(run, world, step) {
  const used = new Set(['do'])
  const watched = new Proxy(step, {
    get: (target, name) => {
      used.add(String(name))
      return Reflect.get(target, name)
    },
  })
  await run(world, watched)
  const unused = Object.keys(step).filter((name) => !used.has(name))
  same('fields the runner ignores', unused, [])
}

/**
 * @template T
 * @param {Map<string, T>} map
 * @param {string} name
 * @param {string} what
 * @returns {T}
 */
function found(map, name, what) {
  const it = map.get(name)
  if (it === undefined) throw new Error(`there is no ${what} ${name}`)
  return it
}

/**
 * @param {string} what
 * @param {() => Promise<void>} check
 */
async function atTheEnd(what, check) {
  try {
    await check()
  } catch (error) {
    throw new Error(`at the end, ${what}: ${/** @type {Error} */ (error).message}`, { cause: error })
  }
}
