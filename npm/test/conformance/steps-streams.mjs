// Steps of streams: they open, get events and end.

import { Engine } from 'mcp-sessions'
import { attempt, check, checkSend, checkUntil, eventually, PATIENCE_MS, same, shown } from './check.mjs'
import { Held } from './held.mjs'
import { text, texts } from './written.mjs'

/** @typedef {import('./world.mjs').World} World */

const CURSOR_ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
const ADDITIONS = ['A', 'AAAA', '=', ' ', '\n']

/** @type {{ [step: string]: import('./steps.mjs').Run }} */
export const STREAM_STEPS = {
  open,
  send,
  read,
  idle,
  silent: async (world, { stream }) => {
    const held = world.stream(stream)
    await held.nothingUnread()
    same('end', held.stream.end, undefined)
  },
  ended: async (world, { stream, expect }) => {
    const held = world.stream(stream)
    await held.checkEnd(expect)
    await held.nothingUnread()
    const more = await held.nextOrEnd()
    if (more !== undefined) throw new Error(`gave ${shown(more)} after its end`)
  },
  survivor,
  release: async (world, { stream }) => {
    const held = world.stream(stream)
    await held.stream.close()
    held.endExpected = true
  },
  drop: (world, { stream }) => world.drop('streams', stream),
  forgeries,
  has: (world, { node, session, eventually, expect }) => {
    const { streams } = world.engine(node)
    return checkUntil(eventually, () => attempt(() => streams.has(text(session))), expect)
  },
  known: async (world, { node, session, expect }) => {
    const { streams } = world.engine(node)
    check(await attempt(() => streams.known(text(session))), expect)
  },
  close: async (world, { node, session, expect }) => {
    const { streams } = world.engine(node)
    check(await attempt(() => streams.close(text(session))), expect)
  },
  forget: async (world, { node, session, expect }) => {
    const { streams } = world.engine(node)
    check(await attempt(() => streams.forget(text(session))), expect)
  },
}

/** @type {import('./steps.mjs').Run} */
async function open(world, { node, session, as: name = text(session), after, conflict, save, expect }) {
  world.takeName(name)
  const { streams } = world.engine(node)
  const cursor = after === undefined ? undefined : await cursorOf(world, after)
  const opened = await attempt(() => streams.open(text(session), { after: cursor, conflict }))
  check('value' in opened ? { value: { gap: opened.value.gap } } : opened, expect)
  if ('error' in opened) return
  if (save !== undefined) world.cursors.set(save, opened.value.cursor)
  world.streams.set(name, new Held(world.nameOf(node), opened.value))
}

/** @type {import('./steps.mjs').Run} */
async function send(world, { node, to, payload, key, pipelined, expect }) {
  const { streams } = world.engine(node)
  const target = to.all ? undefined : isText(to) ? text(to) : texts(to)
  const options = key === undefined ? undefined : { idempotencyKey: text(key) }
  const sendOne = (/** @type {string} */ one) => attempt(() => streams.send(target, one, options))
  if (pipelined) {
    for (const receipt of await Promise.all(texts(payload).map(sendOne))) checkSend(receipt, expect)
    return
  }
  for (const one of texts(payload)) checkSend(await sendOne(one), expect)
}

/** @type {import('./steps.mjs').Run} */
async function read(world, { stream, expect, save }) {
  const held = world.stream(stream)
  await readWhat(world, held, expect)
  if (save !== undefined) world.cursors.set(save, held.stream.cursor)
}

/**
 * @param {World} world
 * @param {Held} held
 * @param {any} expect
 */
function readWhat(world, held, expect) {
  if (Array.isArray(expect)) return held.readExactly(expect)
  const { interleaved, headOf, tailOf, atLeast, atMost, restOf, after, sameAs, ...unknown } = expect
  same('unknown fields of what is read', unknown, {})
  if (interleaved !== undefined) return held.readInterleaved(interleaved.map(texts))
  if (headOf !== undefined) return held.readHead(texts(headOf), atLeast, atMost)
  if (tailOf !== undefined) return held.readTail(texts(tailOf), atLeast, atMost)
  if (sameAs !== undefined) return held.readTexts([...world.stream(sameAs).read])
  const before = world.stream(after).read
  const all = texts(restOf)
  same('what the other stream read', before, all.slice(0, before.length))
  return held.readTexts(all.slice(before.length))
}

/**
 * Sends a fence after everything that was accepted: it must be the next thing the stream gives.
 *
 * @type {import('./steps.mjs').Run}
 */
async function idle(world, { stream, node, fence = 'directed' }) {
  const held = world.stream(stream)
  const payload = world.newFence()
  const target = fence === 'broadcast' ? undefined : held.stream.id
  const { streams } = world.engine(node ?? held.node)
  checkSend(await attempt(() => streams.send(target, payload)), { accepted: 1 })
  const event = await held.next(payload)
  if (event.payload !== payload) throw new Error(`not idle: gave ${shown(event.payload)}`)
}

/** @type {import('./steps.mjs').Run} */
async function survivor(world, { among, as: name, expect }) {
  world.takeName(name)
  /** @type {Held[]} */
  const all = among.map((/** @type {string} */ one) => world.stream(one))
  // An end that happens elsewhere is known here once somebody asks for it.
  for (const held of all) held.stream.ended.catch(() => {})
  const live = () => all.filter((held) => held.stream.end === undefined)
  await eventually(() => {
    if (live().length > 1) throw new Error('several are live')
  })
  const [left] = live()
  if (left === undefined) throw new Error('none is live')
  for (const held of all) if (held !== left) await held.checkEnd(expect)
  world.streams.set(name, left)
}

/**
 * Every edit of a cursor is refused, or a gap that shows nothing but the session's own events.
 *
 * @type {import('./steps.mjs').Run}
 */
async function forgeries(world, { node, session, cursor, allowed }) {
  const { streams } = world.engine(node)
  const id = text(session)
  for (const forged of editsOf(world.saved(cursor))) {
    const opened = await attempt(() => streams.open(id, { after: forged }))
    if ('value' in opened) await checkGap(new Held(world.nameOf(node), opened.value), forged, texts(allowed))
    else if (opened.error.code !== 'invalid_input') throw new Error(`${shown(forged)}: ${opened.error.message}`)
  }
}

/** @param {string} cursor */
export function editsOf(cursor) {
  const places = Array.from(cursor, (_, at) => at)
  return [
    ...places.map((at) => flipped(cursor, at)),
    ...places.map((at) => cursor.slice(0, at)),
    ...ADDITIONS.map((more) => cursor + more),
  ]
}

/**
 * @param {Held} held
 * @param {string} forged
 * @param {string[]} allowed
 */
async function checkGap(held, forged, allowed) {
  if (!held.stream.gap) throw new Error(`${shown(forged)} was taken for a cursor`)
  for (let event = await held.now(); event !== undefined; event = await held.now()) {
    if (!allowed.includes(event.payload)) throw new Error(`${shown(forged)} gave ${shown(event.payload)}`)
  }
  await held.stream.close()
}

/**
 * The cursor an open resumes after: a saved one, one that was tampered with, or any text.
 *
 * @param {World} world
 * @param {any} after
 */
export async function cursorOf(world, after) {
  if (isText(after)) return text(after).startsWith('$') ? world.saved(text(after)) : text(after)
  const { truncate, by, flip, byte, extend, with: more, foreign, ...unknown } = after
  same('unknown fields of the cursor', unknown, {})
  if (truncate !== undefined) return world.saved(truncate).slice(0, -by)
  if (flip !== undefined) return flipped(world.saved(flip), byte)
  if (extend !== undefined) return world.saved(extend) + more
  return foreignCursor(world.place.foreignUrl, foreign)
}

/**
 * A cursor for the session of that name from another deployment, three events in.
 *
 * @param {string} url
 * @param {string} session
 */
async function foreignCursor(url, session) {
  const engine = await Engine.connect(url)
  const stream = await engine.streams.open(session)
  for (const n of [1, 2, 3]) {
    await engine.streams.send(session, `foreign-${n}`)
    await stream.next()
  }
  const { cursor } = stream
  await engine.shutdown(PATIENCE_MS)
  await engine[Symbol.asyncDispose]()
  return cursor
}

/**
 * @param {string} cursor
 * @param {number} at
 */
function flipped(cursor, at) {
  const place = CURSOR_ALPHABET.indexOf(cursor.charAt(at))
  const other = CURSOR_ALPHABET.charAt((Math.max(place, 0) + 1) % CURSOR_ALPHABET.length)
  return at < cursor.length ? cursor.slice(0, at) + other + cursor.slice(at + 1) : cursor
}

/** @param {any} written */
function isText(written) {
  return typeof written === 'string' || written.repeat !== undefined
}
