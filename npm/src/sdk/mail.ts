// The way of a client's answer to the replica that asked, and of a cancellation to those that may have begun.
// It is that of the Python package, so that both serve the same sessions.

import { randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { Engine } from '../engine'
import { asError } from '../errors'
import type { EventStream } from '../streams'
import type { Message } from './answers'

// What a replica asks a client has this id, so that the answer names it wherever it arrives.
const ASKED = /^(worker-[A-Za-z0-9_-]{16}):(\d{1,15})$/
// Among the resources a session is subscribed to, the package's own notes: they go when the session does.
const OWN_URIS = 'mcp-sessions://'
const SERVED_BY = /^mcp-sessions:\/\/worker\/(worker-[A-Za-z0-9_-]{16})$/
const CANCELLED = 'notifications/cancelled'
const PROGRESS = 'notifications/progress'
// Of a request that is passed on: what the SDKs check.
const HEADERS = ['host', 'origin', 'content-type', 'accept', 'mcp-session-id', 'mcp-protocol-version']
const PAUSE_MS = 1_000

/** A message of a client, on its way from the replica it reached to another one. */
export interface Letter {
  session: string
  headers: [name: string, value: string][]
  message: Message
}

export function letterOf(session: string, request: Request, message: Message): Letter {
  const headers = [...request.headers].filter(([name]) => HEADERS.includes(name))
  // Not every runtime has it among a request's headers.
  if (!request.headers.has('host')) headers.push(['host', new URL(request.url).host])
  return { session, headers, message }
}

/** What the replicas of a fleet send each other: each has a stream of its own, named as it is. */
export class Mail {
  readonly name = `worker-${randomBytes(12).toString('base64url')}`
  /** Resolves once the other replicas were heard, or could not be. */
  readonly opened: Promise<void>
  #engine: Engine
  #deliver: (letter: Letter) => Promise<void>
  #report: (thrown: unknown) => void
  #stream: EventStream | undefined
  #over = false

  constructor(engine: Engine, deliver: (letter: Letter) => Promise<void>, report: (thrown: unknown) => void) {
    this.#engine = engine
    this.#deliver = deliver
    this.#report = report
    this.opened = this.#open(undefined)
    this.#follow().catch(report)
  }

  /** Notes that this replica serves a session. */
  join(session: string): Promise<unknown> {
    return this.#engine.info.addSubscription(session, `${OWN_URIS}worker/${this.name}`)
  }

  /** Sends a letter to a replica; false if that is gone. */
  async send(to: string, letter: Letter): Promise<boolean> {
    const { streams } = this.#engine
    const [{ accepted }, lives] = await Promise.all([streams.send(to, written(letter)), streams.has(to)])
    return lives && accepted > 0
  }

  /** Sends a letter to all other replicas that serve its session. */
  async sendOthers(letter: Letter): Promise<void> {
    const served = await this.#engine.info.getSessionSubscriptions(letter.session)
    const others = served.flatMap((uri) => SERVED_BY.exec(uri)?.[1] ?? []).filter((name) => name !== this.name)
    if (others.length > 0) await this.#engine.streams.send(others, written(letter))
  }

  async close(): Promise<void> {
    this.#over = true
    await this.#stream?.close()
    // Without a backend nobody can be told; it expires.
    await this.#engine.streams.forget(this.name).catch(() => {})
  }

  async #follow(): Promise<void> {
    await this.opened
    for (let cursor: string | undefined; !this.#over; await this.#open(cursor)) {
      if (this.#stream === undefined) await pause(PAUSE_MS, undefined, { ref: false })
      for await (const { payload, cursor: at } of this.#stream ?? []) {
        // One that is slow to take it holds up no other.
        void this.#take(payload)
        cursor = at
      }
    }
  }

  async #take(payload: string): Promise<void> {
    try {
      await this.#deliver(read(payload))
    } catch (thrown) {
      this.#report(thrown)
    }
  }

  async #open(after: string | undefined): Promise<void> {
    this.#stream = undefined
    if (this.#over) return
    try {
      const stream = await this.#engine.streams.open(this.name, { after })
      if (this.#over) await stream.close()
      else this.#stream = stream
    } catch (thrown) {
      const error = asError(thrown, 'streams.open')
      // An engine that was shut down never hears of anything again.
      this.#over = error.code === 'closed'
      if (!this.#over) this.#report(error)
    }
  }
}

function written({ session, headers, message }: Letter): string {
  return JSON.stringify([session, headers, JSON.stringify(message)])
}

function read(payload: string): Letter {
  const [session, headers, body] = JSON.parse(payload)
  return { session, headers, message: JSON.parse(body) }
}

/** Whether it is a resource that a client is subscribed to, and no note of the package's own. */
export const isResource = (uri: string): boolean => !uri.startsWith(OWN_URIS)

/** The replica that a client's message answers; `undefined` for any other message. */
export function askerOf({ method, id, params }: Message): string | undefined {
  const asked = method === PROGRESS ? params?.progressToken : method === undefined ? id : undefined
  return typeof asked === 'string' ? ASKED.exec(asked)?.[1] : undefined
}

/** Whether a client gives up a request it made, of whatever replica. */
export const isCancellation = ({ method }: Message): boolean => method === CANCELLED

/** What a server says, on its way to the client: the server's own numbers become names. */
export function toClient(message: Message, name: string): Message {
  const { id, method, params } = message
  if (method === undefined) return message
  if (typeof id === 'number') {
    const asked = { ...message, id: `${name}:${id}` }
    const meta = params?._meta as Record<string, unknown> | undefined
    // The SDKs' token is the request's number.
    if (meta?.progressToken !== id) return asked
    return { ...asked, params: { ...params, _meta: { ...meta, progressToken: asked.id } } }
  }
  const given = params?.requestId
  if (method !== CANCELLED || typeof given !== 'number') return message
  return { ...message, params: { ...params, requestId: `${name}:${given}` } }
}

/** What a client says, on its way to the server: names of what the server asked become its numbers. */
export function toServer(body: unknown, name: string): unknown {
  if (Array.isArray(body)) return body.map((one) => toServer(one, name))
  if (typeof body !== 'object' || body === null || askerOf(body) !== name) return body
  const message: Message = body
  if (message.method === undefined) return { ...message, id: numberOf(message.id) }
  return { ...message, params: { ...message.params, progressToken: numberOf(message.params?.progressToken) } }
}

function numberOf(asked: unknown): number {
  return Number(ASKED.exec(asked as string)?.[2])
}
