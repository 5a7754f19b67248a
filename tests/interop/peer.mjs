// tmcp's own managers in a process of their own, told what to do by JSON lines on stdin.
//
// What a request asks for is answered in a line {n, ok} or {n, error}; what happens is told by
// {event, ...}. Each role has its own manager: tmcp's stream manager dies when one that holds a stream
// sends, as it publishes on the connection that it subscribes with.

import { createInterface } from 'node:readline'
import {
  RedisInfoSessionManager,
  RedisStreamSessionManager,
  RedisSubscriptionManager,
} from '@tmcp/session-manager-redis'

const url = process.argv[2]
const holder = new RedisStreamSessionManager(url)
const sender = new RedisStreamSessionManager(url)
const info = new RedisInfoSessionManager(url)
const subscriptions = new RedisSubscriptionManager(url)

const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)

/** A stream as tmcp's HTTP transport makes it, read to its end. */
async function create(id) {
  const text = new TextDecoder()
  let registered
  const stream = new ReadableStream({
    start(controller) {
      registered = holder.create(id, controller)
    },
  })
  await registered
  follow(id, stream, text)
}

async function follow(id, stream, text) {
  for await (const chunk of stream) tell({ event: 'message', id, data: text.decode(chunk) })
  tell({ event: 'closed', id })
}

const callbacks = (id) => ({
  acknowledge: () => {},
  send: (notification) => tell({ event: 'notification', id, data: notification }),
  close: (reason) => tell({ event: 'subscription closed', id, data: reason }),
})

const calls = {
  create,
  has: (id) => sender.has(id),
  send: (ids, data) => sender.send(ids ?? undefined, data),
  // by the one that holds it, and by another
  delete: (id) => holder.delete(id),
  deleteElsewhere: (id) => sender.delete(id),
  listen: (id, filters) => {
    void subscriptions.create({ id, origin: 'peer', filters }, callbacks(id))
  },
  notify: (notification) => subscriptions.send(notification),
}

async function answer(line) {
  const { n, call, arguments: given } = JSON.parse(line)
  try {
    const work = call.startsWith('info.') ? info[call.slice('info.'.length)](...given) : calls[call](...given)
    tell({ n, ok: (await work) ?? null })
  } catch (error) {
    tell({ n, error: error.message })
  }
}

createInterface({ input: process.stdin }).on('line', answer).on('close', () => process.exit(0))
await Promise.all([sender.has('-'), holder.has('-'), info.getSubscriptions('-'), subscriptions.closeAll('-')])
tell({ event: 'ready' })
