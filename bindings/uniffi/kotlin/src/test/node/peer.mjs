// The other process of SharedWithNodeTest: does what it is told, a line of JSON each, and answers with one.
//   node peer.mjs URL PACKAGE
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const [url, folder] = process.argv.slice(2)
const { Engine } = await import(pathToFileURL(`${folder}/dist/index.mjs`))
const engine = await Engine.connect(url)
const streams = new Map()

const acts = {
  send: ({ session, payload }) => engine.streams.send(session, payload),
  async open({ session, after }) {
    const stream = await engine.streams.open(session, { after })
    streams.set(session, stream)
    return { gap: stream.gap }
  },
  async read({ session, count }) {
    const read = []
    while (read.length < count) {
      const event = await streams.get(session).next()
      if (event === undefined) break
      read.push({ payload: event.payload, cursor: event.cursor })
    }
    return read
  },
  info: ({ session }) => engine.info.get(session),
  owns: async ({ session, owner }) => (await engine.registry.get(session, { owner })) !== undefined,
  close: ({ session, reason }) => engine.registry.close(session, reason),
  notify: ({ notification }) => engine.subscriptions.send(notification),
}

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...fields } = JSON.parse(line)
  try {
    console.log(JSON.stringify({ value: (await acts[name](fields)) ?? null }))
  } catch (error) {
    console.log(JSON.stringify({ error: `${error}` }))
  }
}
await engine.shutdown()
