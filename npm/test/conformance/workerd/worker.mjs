// The Worker: it runs the scenario that it is given, in the request that gives it.

import { run } from '../world.mjs'
import { Place } from './backend.mjs'

export { SyncLayer } from '../../../dist/cloudflare.mjs'

export default {
  /** @param {Request} request */
  async fetch(request) {
    const { name, scenario } = await request.json()
    try {
      await run(scenario, new Place(name))
      return Response.json({})
    } catch (error) {
      return Response.json({ problem: String(/** @type {Error} */ (error).stack ?? error) })
    }
  },
}
