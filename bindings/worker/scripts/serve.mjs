// A Worker with the sync layer and its gateway in workerd, for tests:
//
//   node scripts/serve.mjs [--port=0] [--token=secret] [--persist=folder] [--shards=8]
//
// It says `ready PORT` once it listens, and ends when its standard input does. Beside the gateway:
//
//   /test/rows?prefix=…      what rows each object has in its storage: a letter each, the first of the key
//   /test/life?prefix=…      how often objects were brought to life since their Worker was
//   /test/abort?prefix=…     ends the objects as a crash does; what they stored stays

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
      const shards = Number(env.TMCP_SHARDS)
      const names = Array.from({ length: shards }, (_, shard) => {
        return searchParams.get('prefix') + 'sync-layer' + (shards === 1 ? '' : '/' + shard + '/' + shards)
      })
      if (pathname === '/test/life') return Response.json(names.reduce((sum, name) => sum + (lives.get(name) ?? 0), 0))
      const answers = names.map(async (name) => {
        try {
          return await (await env.TMCP_DURABLE_OBJECT.getByName(name).fetch(request.url)).json()
        } catch (error) {
          return String(error)
        }
      })
      return Response.json(await Promise.all(answers))
    }
  }
`
const worker = await workerd({
  script,
  port: Number(options.port ?? 0),
  persist: options.persist,
  bindings: { TMCP_GATEWAY_TOKEN: options.token ?? 'secret', TMCP_SHARDS: options.shards ?? '8' },
})
console.log(`ready ${worker.url.port}`)
// The tests may be killed: nothing of theirs outlives them.
process.stdin.resume().on('end', async () => {
  await worker.dispose()
  process.exit(0)
})
