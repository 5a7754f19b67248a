// Steps of the event log.

import { attempt, check, done, same, shown, within } from './check.mjs'
import { cursorOf, editsOf } from './steps-streams.mjs'
import { text, texts } from './written.mjs'

/** @typedef {import('./world.mjs').World} World */

/**
 * @param {World} world
 * @param {string | undefined} node
 * @param {any} scope
 */
const log = (world, node, scope) => world.engine(node).events(world.named(text(scope)))

/** @type {{ [step: string]: import('./steps.mjs').Run }} */
export const EVENT_STEPS = {
  'events.append': async (world, { node, scope, stream, payload, save, expect }) => {
    for (const one of texts(payload)) {
      kept(world, await attempt(() => log(world, node, scope).append(text(stream), one)), save, expect)
    }
  },
  'events.prime': async (world, { node, scope, stream, save }) =>
    kept(world, await attempt(() => log(world, node, scope).prime(text(stream))), save, undefined),
  'events.end': async (world, { node, scope, stream }) =>
    kept(world, await attempt(() => log(world, node, scope).end(text(stream))), undefined, undefined),
  'events.streamOf': async (world, { node, scope, id, expect }) => {
    const given = await cursorOf(world, id)
    const found = await attempt(async () => ({ value: await log(world, node, scope).streamOf(given) }))
    check(found, expect)
  },
  'events.replay': async (world, { node, scope, after, expect }) => {
    const given = await cursorOf(world, after)
    checkReplay(await attempt(() => log(world, node, scope).replay(given)), expect)
  },
  'events.read': async (world, { node, scope, stream, expect }) =>
    checkReplay(await attempt(() => log(world, node, scope).read(text(stream))), expect),
  'events.tail': async (world, { node, scope, after, as, expect }) => {
    const given = await cursorOf(world, after)
    held(world, as, await attempt(() => log(world, node, scope).tail(given)), expect)
  },
  'events.follow': async (world, { node, scope, stream, as, expect }) =>
    held(world, as, await attempt(() => log(world, node, scope).follow(text(stream))), expect),
  'events.next': async (world, { tail: name, expect, save }) => {
    const tail = world.tail(name)
    for (const wanted of texts(expect)) {
      const event = await within(tail.next(), 'waited in vain for an event')
      if (event === undefined) throw new Error(`the tail has ended (${tail.end})`)
      same('event', shown(event.payload), shown(wanted))
      same('whole', event.payload === wanted, true)
      if (save !== undefined) world.cursors.set(save, event.id)
    }
  },
  'events.ended': async (world, { tail: name, expect }) => {
    const tail = world.tail(name)
    same('event', await within(tail.next(), 'the tail goes on'), undefined)
    same('end', tail.end, expect)
    world.tails.delete(name)
  },
  'events.close': async (world, { tail: name }) => {
    await world.tail(name).close()
    world.tails.delete(name)
  },
  'events.forget': async (world, { node, scope, stream, expect }) =>
    check(await attempt(() => log(world, node, scope).forget(text(stream))), expect),
  'events.forgetAll': async (world, { node, scope, expect }) =>
    check(await attempt(() => log(world, node, scope).forgetAll()), expect),
  'events.forgeries': async (world, { node, scope, id }) => {
    for (const forged of editsOf(world.saved(id))) {
      const got = await attempt(() => log(world, node, scope).replay(forged))
      if ('value' in got || got.error.code !== 'invalid_input') {
        throw new Error(`${shown(forged)} was taken for an event id: ${shown(got)}`)
      }
    }
  },
}

/** A tail that is read ahead, so that an event left unread is seen. */
class Read {
  #tail
  /** @type {Promise<import('mcp-sessions').LoggedEvent | undefined>} */
  #next
  /** @type {import('mcp-sessions').LoggedEvent | undefined} */
  unread

  /** @param {import('mcp-sessions').EventTail} tail */
  constructor(tail) {
    this.#tail = tail
    this.#next = this.#ahead()
  }

  get end() {
    return this.#tail.end
  }

  next() {
    const next = this.#next
    return next.then((event) => {
      if (event !== undefined) this.#next = this.#ahead()
      return event
    })
  }

  close() {
    return this.#tail.close()
  }

  async #ahead() {
    this.unread = undefined
    const event = await this.#tail.next().catch(() => undefined)
    this.unread = event
    return event
  }
}

/**
 * A tail that was opened is read by its name.
 *
 * @param {World} world
 * @param {string} name
 * @param {import('./check.mjs').Outcome<import('mcp-sessions').EventTail>} tail
 * @param {any} expect
 */
function held(world, name, tail, expect) {
  world.takeName(name)
  check('value' in tail ? { value: { gap: tail.value.gap } } : tail, expect)
  if ('value' in tail) world.tails.set(name, new Read(tail.value))
}

/**
 * Ids are URL-safe, short enough and never the same again.
 *
 * @param {World} world
 * @param {import('./check.mjs').Outcome<string>} id
 * @param {string | undefined} save
 * @param {any} expect
 */
function kept(world, id, save, expect) {
  if ('value' in id) {
    if (!/^[A-Za-z0-9_-]{1,208}$/.test(id.value)) throw new Error(`${id.value} is no event id`)
    if (world.made.has(id.value)) throw new Error(`${id.value} was given twice`)
    world.made.add(id.value)
    if (save !== undefined) world.cursors.set(save, id.value)
  }
  done(id, expect)
}

/**
 * @param {import('./check.mjs').Outcome<import('mcp-sessions').Replay>} got
 * @param {any} wanted
 */
function checkReplay(got, wanted) {
  if (wanted.error !== undefined || 'error' in got) return check(got, wanted)
  const { stream, events, gap, ended } = got.value
  same(
    'events',
    events.map((event) => event.payload),
    texts(wanted.events),
  )
  same('gap', gap, wanted.gap)
  same('ended', ended, wanted.ended ?? false)
  if (wanted.stream !== undefined) same('stream', stream, wanted.stream)
}
