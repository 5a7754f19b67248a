// Steps of the session registry.

import { attempt, check, checkSet, checkUntil, done, eventually, same, shown, within } from './check.mjs'
import { text, texts } from './written.mjs'

/** @typedef {import('./world.mjs').World} World */

/**
 * A session by its id, or as `$name` by the name it was created under.
 *
 * @param {World} world
 * @param {any} written
 */
const session = (world, written) => world.named(text(written))

/** @param {any} written */
const maybe = (written) => (written === undefined ? undefined : text(written))

/** @type {{ [step: string]: import('./steps.mjs').Run }} */
export const REGISTRY_STEPS = {
  'registry.create': async (world, { node, session: id, as, owner, metadata, pad = 0, expect }) => {
    const { registry } = world.engine(node)
    const kept = pad > 0 ? { ...metadata, pad: 'x'.repeat(pad) } : metadata
    const created = await attempt(() => registry.create({ id: maybe(id), owner: maybe(owner), metadata: kept }))
    if ('value' in created && id === undefined) {
      unguessable(world, created.value)
      if (as === undefined) throw new Error('a created session needs a name: "as"')
      world.cursors.set(as, created.value)
    }
    done(created, expect)
  },
  'registry.get': async (world, { node, session: id, owner, trusted, expect }) => {
    const caller = { owner: maybe(owner), trusted }
    checkRecord(world, await attempt(() => world.engine(node).registry.get(session(world, id), caller)), expect)
  },
  'registry.peek': async (world, { node, session: id, eventually: until, expect }) => {
    const { registry } = world.engine(node)
    const peek = async () => checkRecord(world, await attempt(() => registry.peek(session(world, id))), expect)
    await (until ? eventually(peek) : peek())
  },
  'registry.getByOwner': async (world, { node, owner, expect }) =>
    checkRecord(world, await attempt(() => world.engine(node).registry.getByOwner(text(owner))), expect),
  'registry.has': (world, { node, session: id, eventually: until, expect }) =>
    checkUntil(until, () => attempt(() => world.engine(node).registry.has(session(world, id))), expect),
  'registry.begin': async (world, { node, session: id, as, expect }) => {
    const begun = await attempt(() => world.engine(node).registry.beginRequest(session(world, id)))
    if ('value' in begun) world.requests.set(as, begun.value)
    done(begun, expect)
  },
  'registry.end': async (world, { request }) => done(await attempt(() => taken(world, request).end()), undefined),
  'registry.drop': (world, { request }) => taken(world, request)[Symbol.dispose](),
  'registry.adopt': async (world, { node, session: id, expect }) =>
    check(await attempt(() => world.engine(node).registry.adopt(session(world, id))), expect),
  'registry.close': async (world, { node, session: id, reason, expect }) =>
    check(await attempt(() => world.engine(node).registry.close(session(world, id), text(reason))), expect),
  'registry.closeByOwner': async (world, { node, owner, reason, expect }) =>
    check(await attempt(() => world.engine(node).registry.closeByOwner(text(owner), text(reason))), expect),
  'registry.list': async (world, { node, owner, of, state, limit = 100, after, expect }) => {
    const filter = { owner: maybe(owner), node: of === undefined ? undefined : world.nodeId(of), state }
    const listed = await attempt(() => list(world.engine(node).registry, filter, limit, maybe(after)))
    checkSet(listed, expect, (ids) => texts(ids).map((id) => world.named(id)))
  },
  'registry.stats': async (world, { node, eventually: until, expect }) => {
    const { registry } = world.engine(node)
    const look = async () => {
      const stats = /** @type {{ [name: string]: unknown }} */ ({ ...(await registry.stats()) })
      const { byNode, ...counts } = expect
      for (const [name, count] of Object.entries(counts)) same(name, stats[name], count)
      if (byNode === undefined) return
      const wanted = Object.entries(byNode).map(([name, count]) => [world.nodeId(name), count])
      same('by node', stats.byNode, Object.fromEntries(wanted.sort()))
    }
    await (until ? eventually(look) : look())
  },
  'registry.sweep': async (world, { node, expect }) =>
    check(await attempt(() => world.engine(node).registry.sweepStale()), expect),
  'registry.follow': (world, { node, as }) => {
    world.closings.set(as, new Followed(world.engine(node).registry.closings()))
  },
  'registry.closings': async (world, { of, expect }) => {
    const followed = world.followed(of)
    const got = []
    while (got.length < expect.length) {
      const closing = await within(followed.next(), `waited in vain for a closing after ${shown(got)}`)
      if (closing === undefined) throw new Error(`the closings ended after ${shown(got)}`)
      got.push(closing)
    }
    const wanted = expect.map((/** @type {any} */ one) => ({ ...one, session: world.named(one.session) }))
    same('closings', got.toSorted(bySession), wanted.toSorted(bySession))
  },
  'registry.closingsEnd': async (world, { of }) =>
    same('closing', await within(world.followed(of).next(), 'the closings go on'), undefined),
  'registry.drain': async (world, { node, deadlineMs, expect }) =>
    same('requests left', await world.engine(node).registry.drain(deadlineMs), expect),
  'registry.shutdown': async (world, { node, deadlineMs, expect }) =>
    check(await attempt(() => world.engine(node).registry.shutdown(deadlineMs)), expect),
}

/** Closings that are read ahead, so that one left unread is seen. */
export class Followed {
  #closings
  /** @type {Promise<import('mcp-sessions').Closing | undefined>} */
  #next
  /** @type {import('mcp-sessions').Closing | undefined} */
  unread

  /** @param {import('mcp-sessions').Closings} closings */
  constructor(closings) {
    this.#closings = closings
    this.#next = this.#ahead()
  }

  next() {
    const next = this.#next
    return next.then((closing) => {
      if (closing !== undefined) this.#next = this.#ahead()
      return closing
    })
  }

  async #ahead() {
    this.unread = undefined
    const closing = await this.#closings.next().catch(() => undefined)
    this.unread = closing
    return closing
  }
}

/**
 * @param {{ session: string }} a
 * @param {{ session: string }} b
 */
const bySession = (a, b) => (a.session < b.session ? -1 : 1)

/**
 * At least 128 bits in base64url, and never the same again.
 *
 * @param {World} world
 * @param {string} id
 */
function unguessable(world, id) {
  if (id.length < 22) throw new Error(`${id} is too short to be unguessable`)
  if (world.made.has(id)) throw new Error(`${id} was made twice`)
  world.made.add(id)
}

/**
 * @param {World} world
 * @param {string} name
 */
function taken(world, name) {
  const request = world.requests.get(name)
  if (request === undefined) throw new Error(`there is no request ${name}`)
  world.requests.delete(name)
  return request
}

/**
 * All pages; no page is longer than its limit.
 *
 * @param {import('mcp-sessions').Registry} registry
 * @param {import('mcp-sessions').SessionFilter} filter
 * @param {number} limit
 * @param {string | undefined} after
 */
async function list(registry, filter, limit, after) {
  const listed = []
  for (;;) {
    const { sessions, next } = await registry.list(filter, { limit, after })
    if (sessions.length > limit) throw new Error('a page is longer than its limit')
    listed.push(...sessions.map((record) => record.id))
    if (next === undefined) return listed
    after = next
  }
}

/**
 * What is named must be so.
 *
 * @param {World} world
 * @param {import('./check.mjs').Outcome<import('mcp-sessions').SessionRecord | undefined>} got
 * @param {any} wanted
 */
function checkRecord(world, got, wanted) {
  if (wanted?.error !== undefined || 'error' in got) return check(got, wanted)
  const record = got.value
  if (wanted === null) return same('record', record, undefined)
  if (record === undefined) throw new Error('there is no such session')
  const { metadata = null, info = {}, reason = '' } = record
  const shownAs = /** @type {{ [name: string]: unknown }} */ ({
    session: record.id,
    state: record.state,
    node: record.node,
    owned: record.owner !== undefined,
    activeRequests: record.activeRequests,
    reason,
    metadata,
    clientInfo: info.clientInfo ?? null,
    protocolVersion: info.protocolVersion ?? '',
  })
  const { idleAtLeastMs = 0, idleBelowMs = Number.POSITIVE_INFINITY, ageAtLeastMs = 0, ...fields } = wanted
  for (const [name, value] of Object.entries(fields)) {
    const is = name === 'session' ? session(world, value) : name === 'node' ? world.nodeId(value) : value
    same(name, shownAs[name], is)
  }
  same('idle for long enough', record.idleMs >= idleAtLeastMs, true)
  same('accessed lately enough', record.idleMs < idleBelowMs, true)
  same('old enough', record.ageMs >= ageAtLeastMs, true)
}
