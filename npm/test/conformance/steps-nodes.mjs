// Steps of nodes: they come, go and die, and time passes.

import { setTimeout as wait } from 'node:timers/promises'
import { attempt, done, eventually, same } from './check.mjs'

/** @type {{ [step: string]: import('./steps.mjs').Run }} */
export const NODE_STEPS = {
  start: (world, { node, options, url, expect }) => world.start(node, options, url, expect),
  shutdown: async (world, { node, deadlineMs, expect }) =>
    done(await attempt(() => world.engine(node).shutdown(deadlineMs)), expect),
  kill: async (world, { node }) => {
    const killed = world.liveNode(node)
    killed.alive = false
    await killed.engine.abandon()
  },
  outage: (world, { node }) => {
    const proxy = world.proxies.get(node)
    if (proxy === undefined) world.engine(node).setOutage(true)
    else proxy.cut()
  },
  restore: async (world, { node }) => {
    const proxy = world.proxies.get(node)
    if (proxy === undefined) world.engine(node).setOutage(false)
    else proxy.restore()
    await eventually(async () => same('ready', (await world.engine(node).health()).ready, true))
  },
  advance: async (world, { ms }) => {
    if (!world.place.manualClock) return wait(ms)
    const node = [...world.nodes.values()].find((one) => one.alive)
    if (node === undefined) throw new Error('there is no node to move time with')
    return node.engine.advanceClock(ms)
  },
  health: async (world, { node, expect }) =>
    same('result', { ready: (await world.engine(node).health()).ready }, expect),
  stats: async (world, { node, expect }) => {
    const stats = /** @type {{ [name: string]: number }} */ ({ ...(await world.engine(node).stats()) })
    for (const [name, count] of Object.entries(expect)) same(name, stats[name], count)
  },
}
