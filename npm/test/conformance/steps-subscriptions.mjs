// Steps of subscriptions of the modern era.

import { attempt, check, done, same, shown } from './check.mjs'
import { Listening } from './held.mjs'
import { notifications, texts, withParam } from './written.mjs'

/** @type {{ [step: string]: import('./steps.mjs').Run }} */
export const SUBSCRIPTION_STEPS = {
  'subscription.listen': async (world, { node, id, origin, filters, as: name, expect }) => {
    world.takeName(name)
    const { subscriptions } = world.engine(node)
    const wanted = { ...filters }
    if (filters.resourceSubscriptions !== undefined) wanted.resourceSubscriptions = texts(filters.resourceSubscriptions)
    const created = await attempt(() => subscriptions.listen({ id, origin, filters: wanted }))
    check('value' in created ? { value: created.value !== undefined } : created, expect)
    if ('error' in created || created.value === undefined) return
    world.subscriptions.set(name, new Listening(world.nameOf(node), created.value, wanted))
  },
  'subscription.acknowledge': (world, { subscription }) => world.subscription(subscription).subscription.acknowledge(),
  'subscription.waiting': async (world, { subscription }) => {
    const got = await world.subscription(subscription).now()
    if (got !== undefined) throw new Error(`got ${shown(got)} before the acknowledgement`)
  },
  'subscription.notify': async (world, { node, notification, pad, expect }) => {
    const { subscriptions } = world.engine(node)
    for (const one of notifications(notification)) {
      const padded = pad === undefined ? one : withParam(one, 'pad', 'x'.repeat(pad))
      done(await attempt(() => subscriptions.send(padded)), expect)
    }
  },
  'subscription.read': (world, { subscription, expect }) => world.subscription(subscription).readExactly(expect),
  'subscription.idle': async (world, { subscription, node }) => {
    const listening = world.subscription(subscription)
    const { subscriptions } = world.engine(node ?? listening.node)
    // Where nothing can be sent that it must get, that nothing is there has to do.
    if (listening.fence === undefined) return listening.nothingUnread()
    const mark = world.newFence()
    const fence = withParam(listening.fence, 'fence', mark)
    await subscriptions.send(fence)
    return same('notification', await listening.next(mark), fence)
  },
  'subscription.ended': async (world, { subscription, expect }) => {
    const listening = world.subscription(subscription)
    await listening.checkEnd(expect)
    const more = await listening.nextOrEnd()
    if (more !== undefined) throw new Error(`gave ${shown(more)} after its end`)
  },
  'subscription.drop': (world, { subscription }) => world.drop('subscriptions', subscription),
  'subscription.close': async (world, { node, id, origin, reason, expect }) =>
    same('closed', await world.engine(node).subscriptions.close(id, origin, reason), expect),
  'subscription.closeAll': async (world, { node, origin, reason, expect }) =>
    same('closed', await world.engine(node).subscriptions.closeAll(origin, reason), expect),
}
