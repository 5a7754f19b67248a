// What each step does; `tests/conformance/README.md` says it in words.

import { EVENT_STEPS } from './steps-events.mjs'
import { INFO_STEPS } from './steps-info.mjs'
import { NODE_STEPS } from './steps-nodes.mjs'
import { REGISTRY_STEPS } from './steps-registry.mjs'
import { STREAM_STEPS } from './steps-streams.mjs'
import { SUBSCRIPTION_STEPS } from './steps-subscriptions.mjs'

/** @typedef {import('./world.mjs').World} World */
/** @typedef {(world: World, step: any) => void | Promise<void>} Run */

/** @type {{ [step: string]: Run | undefined }} */
export const STEPS = {
  ...NODE_STEPS,
  ...STREAM_STEPS,
  ...INFO_STEPS,
  ...SUBSCRIPTION_STEPS,
  ...REGISTRY_STEPS,
  ...EVENT_STEPS,
}
