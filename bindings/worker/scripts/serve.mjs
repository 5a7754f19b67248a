// A Worker with the sync layer and its gateway in workerd, for tests:
//
//   node scripts/serve.mjs [--port=0] [--token=secret] [--persist=folder]
//
// It says `ready PORT` once it listens, and ends when its standard input does. Beside the gateway:
//
//   /test/rows?prefix=…      what rows the object has in its storage: a letter each, the first of the key
//   /test/life?prefix=…      how often it was brought to life since its Worker was
//   /test/abort?prefix=…     ends the object as a crash does; what it stored stays

import { workerd } from './workerd.mjs'

const options = Object.fromEntries(
  process.argv.slice(2).map((argument) => argument.replace(/^--/, '').split(/=(.*)/s).slice(0, 2)),
)
const script = `
  import { gateway, SyncLayer as Packaged } from '../../npm/dist/cloudflare.mjs'

  const lives = new Map()

  export class SyncLayer extends Packaged {
    constructor(ctx, env) {
      super(ctx, env)
      lives.set(ctx.id.name, (lives.get(ctx.id.name) ?? 0) + 1)
    }

    fetch(request) {
      const { pathname } = new URL(request.url)
      if (pathname === '/test/rows') {
        const keys = [...this.ctx.storage.sql.exec('SELECT k FROM pairs').raw()]
        return Response.json(keys.map(([key]) => String.fromCharCode(new Uint8Array(key)[0])).join(''))
      }
      if (pathname === '/test/abort') this.ctx.abort('the test asked for it')
      return super.fetch(request)
    }
  }

  export default {
    async fetch(request, env) {
      const { pathname, searchParams } = new URL(request.url)
      if (!pathname.startsWith('/test/')) return gateway(env)(request)
      const name = searchParams.get('prefix') + 'sync-layer'
      if (pathname === '/test/life') return Response.json(lives.get(name) ?? 0)
      try {
        return await env.TMCP_DURABLE_OBJECT.getByName(name).fetch(request)
      } catch (error) {
        return Response.json(String(error))
      }
    }
  }
`
const worker = await workerd({
  script,
  port: Number(options.port ?? 0),
  persist: options.persist,
  bindings: { TMCP_GATEWAY_TOKEN: options.token ?? 'secret' },
})
console.log(`ready ${worker.url.port}`)
// The tests may be killed: nothing of theirs outlives them.
process.stdin.resume().on('end', async () => {
  await worker.dispose()
  process.exit(0)
})
