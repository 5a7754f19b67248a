// Steps of what clients said.

import { attempt, check, checkSet, checkUntil, done } from './check.mjs'
import { text, texts } from './written.mjs'

/** @typedef {import('mcp-sessions').Info} Info */

/** @type {{ [field: string]: (info: Info, id: string, value: any) => Promise<void> }} */
const SETTERS = {
  clientInfo: (info, id, value) => info.setClientInfo(id, value),
  clientCapabilities: (info, id, value) => info.setClientCapabilities(id, value),
  logLevel: (info, id, value) => info.setLogLevel(id, value),
  protocolVersion: (info, id, value) => info.setProtocolVersion(id, value),
  initializeParams: (info, id, value) => info.setInitializeParams(id, value),
}

/** @type {{ [field: string]: (info: Info, id: string) => Promise<unknown> }} */
const GETTERS = {
  clientInfo: (info, id) => info.getClientInfo(id),
  clientCapabilities: (info, id) => info.getClientCapabilities(id),
  logLevel: (info, id) => info.getLogLevel(id),
  protocolVersion: (info, id) => info.getProtocolVersion(id),
  initializeParams: (info, id) => info.getInitializeParams(id),
}

/** @type {{ [step: string]: import('./steps.mjs').Run }} */
export const INFO_STEPS = {
  'info.set': async (world, { node, session, field, value, pad, expect }) => {
    const { info } = world.engine(node)
    const padded = pad === undefined ? value : { ...value, pad: 'x'.repeat(pad) }
    done(await attempt(() => known(SETTERS, field)(info, text(session), padded)), expect)
  },
  'info.get': (world, { node, session, field, eventually, expect }) => {
    const { info } = world.engine(node)
    const get = async () => ({ value: await known(GETTERS, field)(info, text(session)) })
    return checkUntil(eventually, () => attempt(get), expect)
  },
  'info.put': async (world, { node, session, patch, expect }) => {
    const { info } = world.engine(node)
    done(await attempt(() => info.put(text(session), patch)), expect)
  },
  'info.record': async (world, { node, session, expect }) => {
    const { info } = world.engine(node)
    check(await attempt(async () => ({ value: (await info.get(text(session))) ?? null })), expect)
  },
  'info.addSubscription': async (world, { node, session, uri, expect }) => {
    const { info } = world.engine(node)
    done(await attempt(() => info.addSubscription(text(session), text(uri))), expect)
  },
  'info.removeSubscription': async (world, { node, session, uri, expect }) => {
    const { info } = world.engine(node)
    done(await attempt(() => info.removeSubscription(text(session), text(uri))), expect)
  },
  'info.getSubscriptions': async (world, { node, uri, expect }) => {
    const { info } = world.engine(node)
    checkSet(await attempt(() => info.getSubscriptions(text(uri))), expect, texts)
  },
  'info.getSessionSubscriptions': async (world, { node, session, expect }) => {
    const { info } = world.engine(node)
    checkSet(await attempt(() => info.getSessionSubscriptions(text(session))), expect, texts)
  },
  'info.delete': async (world, { node, session, expect }) => {
    const { info } = world.engine(node)
    check(await attempt(() => info.delete(text(session))), expect)
  },
}

/**
 * @template T
 * @param {{ [name: string]: T }} table
 * @param {string} field
 * @returns {T}
 */
function known(table, field) {
  const entry = table[field]
  if (entry === undefined) throw new Error(`the runner does not know the field ${field}`)
  return entry
}
