// A port: what this thread holds of one engine, and all that crosses to the addon and back.
//
// Operations are packed into buffers as they are called for. The first one of a turn crosses at once,
// with what it brings back; those after it in the same turn cross together at the turn's end, or when
// the buffers are full. What comes back, events of many streams, comes as bytes with offsets.

import { markAsUntransferable } from 'node:worker_threads'
import { asError, ClosedError, errorOf, type McpSessionsError } from './errors'
import { native } from './native'
import {
  ALL,
  FLAG_MORE,
  FLAG_OTHERS,
  FLAG_PRESSED,
  FLAG_RECORDS,
  HEAD_DONE,
  HEAD_OUT,
  HEAD_RECORDS,
  HEAD_WORDS,
  ID_BIT,
  NONE,
  OPEN_FRAME_IDS,
  OPEN_REJECT,
  OPEN_TELL_START,
  Op,
  REASONS,
  RECORD_WORDS,
  Rec,
} from './wire'

const INBOX_BYTES = 256 * 1024
const OPS_WORDS = 16 * 1024
const OUT_BYTES = 256 * 1024
const RECORDS_WORDS = 16 * 1024
/** Buffers that had to grow beyond this shrink again once they are empty. */
const KEPT_BYTES = 4 * 1024 * 1024
/**
 * Small chunks share a piece of memory of this size, as Node's own buffers do: memory of its own costs
 * a chunk several times its copy. A client that reads nothing keeps no more than this a chunk.
 */
const SLAB_BYTES = 16 * 1024
/** The most words of operations handed over before what they brought is fetched. */
const MAX_UNFETCHED_WORDS = 256 * 1024
/** The most exchanges in one go; then other events of the process get their turn. */
const MAX_EXCHANGES = 256
/** How long the last one out waits for the backend to know. */
const LEAVE_MS = 2_000
const ID_NUMBERS = 0x7fff_ffff

/** Why a stream or subscription ended. */
export type Reason = (typeof REASONS)[number]

/** Who gets what comes for a token. */
export interface Receiver {
  /** Bytes, as a place in the port's buffer that is only valid during the call. */
  chunk?(from: number, to: number): void
  /** A JSON-RPC notification. */
  notification?(notification: unknown): void
  /** Something can be taken. */
  readable?(): void
  /** It was opened; `start` is its first cursor, if that was asked for. */
  opened?(gap: boolean, start: string): void
  failed?(error: McpSessionsError): void
  end?(reason: Reason): void
}

/** Who is told of failures that no caller waits for. */
export interface Reporter {
  readonly hook: unknown
  report(error: McpSessionsError): void
}

/** How a stream is opened whose events are pushed. */
export interface PushOptions {
  after: string | undefined
  reject: boolean
  frameIds: boolean
  /** Tell the receiver the cursor at which the stream starts. */
  tellStart: boolean
}

/** What a send came to, counted in sessions (a broadcast counts once). */
export interface Receipt {
  /** Accepted: it will be delivered, now or when the session's stream opens. */
  accepted: number
  /** Dropped, because the session is unknown, or has no stream and history is off. */
  dropped: number
  /** Accepted before, under the same idempotency key. */
  duplicates: number
}

/** One event of a stream that is read by asking. */
export interface Taken {
  payload: string
  cursor: string
  kind: 'directed' | 'broadcast'
}

/** What can be taken, why there is nothing more, or that it will be told. */
export type Take<T> = { items: T[] } | { end: Reason } | 'pending'

interface Waiting {
  resolve(value: unknown): void
  reject(error: McpSessionsError): void
  takesTime: boolean
  /** It does not keep the process alive. */
  background: boolean
}

/** What an engine is, as far as it does not change. */
export interface Described {
  nodeId: string
  immediate: boolean
  mergedOrder: boolean
  processes: boolean
  manualClock: boolean
  maxPayloadBytes: number
  maxUriBytes: number
  maxInfoBytes: number
  sessionTtlMs: number
  registryStaleMs: number
  frameIds: boolean
}

const turnEnd = Promise.resolve()
const ports = new Map<number, WeakRef<Port>>()
const dropped = new FinalizationRegistry<number>((handle) => {
  ports.delete(handle)
  native.dropPort(handle)
  fetchOthers()
})
/** Ports that somebody waits for: nobody else may hold on to them. */
const held = new Set<Port>()
/** Ports whose operations wait for the end of the turn. */
const unsent = new Set<Port>()
/** Ports that keep changes of info back until something else crosses. */
const keepingBack = new Set<Port>()
/** Grows when info may have changed through any port of this thread. */
let infoChanges = 0
/** Calls that are under way: they keep the process alive, as any other pending work does. */
let calls = 0
let keepAlive: NodeJS.Timeout | undefined

function countCalls(by: 1 | -1): void {
  calls += by
  if (calls > 0) keepAlive ??= setInterval(() => {}, 0x7fff_ffff)
  else {
    clearInterval(keepAlive)
    keepAlive = undefined
  }
}

/** Keeps the process alive while somebody waits for this. */
export async function keptAlive<T>(work: Promise<T>): Promise<T> {
  countCalls(1)
  try {
    return await work
  } finally {
    countCalls(-1)
  }
}

function wakeUp(handle: number): void {
  ports.get(handle)?.deref()?.fetch()
}

let fetchingOthers = false

/** Other ports of this thread got something during a call of one of them. */
function fetchOthers(): void {
  if (fetchingOthers) return
  fetchingOthers = true
  try {
    for (let turns = 0; turns < MAX_EXCHANGES; turns++) {
      const handle = native.nextReady()
      if (handle === null) return
      wakeUp(handle)
    }
  } finally {
    fetchingOthers = false
  }
  // They keep each other busy: the rest of the process gets its turn, too.
  setImmediate(fetchOthers)
}

/** Hands over what waits in any port of this thread: whoever asks next must see it. */
export function flushAll(): void {
  for (const port of unsent) port.flush()
}

/** Time was moved: what is cached may have expired. */
export function distrustInfo(): void {
  infoChanges += 1
  for (const port of ports.values()) port.deref()?.infoChanged?.(undefined)
}

function buffer(bytes: number): Buffer {
  return Buffer.allocUnsafeSlow(bytes)
}

function words(of: Buffer): Uint32Array {
  return new Uint32Array(of.buffer, of.byteOffset, of.byteLength >>> 2)
}

export class Port {
  readonly handle: number
  /** Told of failures that no caller waits for. */
  readonly reporters = new Set<Reporter>()
  /** Told of sessions whose info changed elsewhere; `undefined` stands for any. */
  infoChanged: ((id: string | undefined) => void) | undefined
  /** What the engine is; set once it is connected. */
  described!: Described

  #inbox = buffer(INBOX_BYTES)
  #opsBuffer = buffer(OPS_WORDS * 4)
  #ops = words(this.#opsBuffer)
  #out = buffer(OUT_BYTES)
  #recordsBuffer = buffer(RECORDS_WORDS * 4)
  #records = words(this.#recordsBuffer)
  #chunks = new Uint8Array(this.#out.buffer, this.#out.byteOffset, this.#out.byteLength)

  #inboxAt = 0
  #opsAt = 0
  #opsDone = 0
  #lastText: string | undefined
  #lastOffset = 0
  #lastLength = 0
  #unfetched = 0

  /** An exchange or a delivery is under way: what is called for meanwhile joins it. */
  #busy = false
  /** The end of this turn, once something has crossed in it. */
  #turn: Promise<void> | undefined
  #goOnLater = false
  #closed = false
  #keepsBack: (() => void) | undefined
  /** Changes have crossed in this turn of the event loop. */
  #loopTurn = false

  #filled = 0
  #slab: Uint8Array = new Uint8Array(0)
  #slabAt = 0
  #mappedFrom = 0
  #mappedTo = -1
  #mappedAt = 0
  #noted: unknown
  #notedAt = -1

  #nextToken = 1
  #nextCall = 1
  #receivers = new Map<number, Receiver>()
  #waiting = new Map<number, Waiting>()
  /** Changes of info that were not answered yet. */
  #writes = new Set<Promise<void>>()
  /** What the sends that cross next are waited for by. */
  #group: Promise<void> | undefined
  /** Resolves once all that was sent before was answered. */
  #lastGroup: Promise<void> | undefined
  #holds = 0
  #freshAt = -1

  constructor() {
    this.handle = native.makePort(wakeUp, this.#inbox, this.#opsBuffer, this.#out, this.#recordsBuffer)
    ports.set(this.handle, new WeakRef(this))
    dropped.register(this, this.handle, this)
  }

  get isClosed(): boolean {
    return this.#closed
  }

  /** Whether calls are answered at once, so that nothing has to be waited for. */
  get immediate(): boolean {
    return this.described.immediate
  }

  /** Lets go of the engine: its streams are given back. */
  close(): void {
    if (this.#closed) return
    this.flush()
    this.#closed = true
    ports.delete(this.handle)
    dropped.unregister(this)
    unsent.delete(this)
    keepingBack.delete(this)
    native.dropPort(this.handle)
    fetchOthers()
    const error = new ClosedError('the engine was closed', 'close')
    for (const call of [...this.#waiting.keys()]) this.#settled(call)?.reject(error)
    for (const receiver of [...this.#receivers.values()]) receiver.end?.('shutdown')
    this.#receivers.clear()
    held.delete(this)
    this.#holds = 0
  }

  /** As {@link close}; where the backend is waited for, the other nodes know when this resolves. */
  async leave(): Promise<void> {
    if (this.#closed) return
    try {
      if (!this.immediate) await this.ask('leave', { ms: LEAVE_MS })
    } catch {
      // The lease ends by itself.
    }
    this.close()
  }

  /** Somebody waits for what this port brings: it must not be collected. */
  hold(): void {
    this.#holds += 1
    if (this.#holds === 1 && !this.#closed) held.add(this)
  }

  unhold(): void {
    this.#holds -= 1
    if (this.#holds <= 0) held.delete(this)
  }

  // ---- operations -------------------------------------------------------------------------------

  /** A new token for a stream or subscription, under which `receiver` gets what comes. */
  register(receiver: Receiver): number {
    const token = this.#nextToken
    this.#nextToken = (token % ID_NUMBERS) + 1
    this.#receivers.set(token, receiver)
    return token
  }

  /** A receiver wants nothing more; its stream or subscription is given back. */
  release(token: number): void {
    this.#receivers.delete(token)
    if (this.#closed) return
    this.#room(2, 0)
    this.#put(Op.release, token)
    this.#added()
  }

  /** {@link release}, and resolves once the other nodes can know. */
  releaseKnown(token: number): Promise<void> {
    this.#receivers.delete(token)
    return this.ask<void>('release', { token })
  }

  pause(token: number, paused: boolean): void {
    if (this.#closed) return
    this.#room(3, 0)
    this.#put(Op.pause, token)
    this.#word(paused ? 1 : 0)
    this.#added()
  }

  acknowledge(token: number): void {
    if (this.#closed) return
    this.#room(2, 0)
    this.#put(Op.acknowledge, token)
    this.#added()
  }

  /** Opens a stream whose events are pushed to the receiver of `token`. */
  open(token: number, id: string, options: PushOptions): Promise<void> | undefined {
    const { after, reject, frameIds, tellStart } = options
    this.#room(7, id.length + (after?.length ?? 0) * 3)
    const idAt = this.#inboxAt
    const idLength = this.#text(id)
    const afterAt = this.#inboxAt
    const afterLength = after === undefined ? NONE : this.#text(after)
    this.#put(Op.open, token)
    this.#word(idAt)
    this.#word(idLength)
    this.#word(afterAt)
    this.#word(afterLength)
    this.#word((reject ? OPEN_REJECT : 0) | (frameIds ? OPEN_FRAME_IDS : 0) | (tellStart ? OPEN_TELL_START : 0))
    return this.#added()
  }

  /** Sends to one session: a stream's token, or an id. */
  sendOne(target: number | string, payload: string): Promise<void> | undefined {
    this.#payload(7, payload, typeof target === 'string' ? target.length : 0)
    const accepted = this.#accepted()
    const at = this.#lastOffset
    const length = this.#lastLength
    const idAt = typeof target === 'string' ? this.#inboxAt : 0
    if (typeof target === 'string') this.#text(target)
    this.#put(Op.sendOne, at)
    this.#word(length)
    this.#target(target, idAt)
    const crossed = this.#added()
    return accepted ?? crossed
  }

  /** Sends to all sessions. */
  sendAll(payload: string): Promise<void> | undefined {
    this.#payload(5, payload, 0)
    const accepted = this.#accepted()
    this.#put(Op.sendAll, this.#lastOffset)
    this.#word(this.#lastLength)
    const crossed = this.#added()
    return accepted ?? crossed
  }

  /** Sends to a list of sessions; the payload crosses once. */
  sendList(targets: readonly (number | string)[], payload: string): Promise<void> | undefined {
    this.#payload(6 + targets.length * 2, payload, idChars(targets))
    const accepted = this.#accepted()
    const at = this.#lastOffset
    const length = this.#lastLength
    this.#put(Op.sendList, at)
    this.#word(length)
    this.#targets(targets)
    const crossed = this.#added()
    return accepted ?? crossed
  }

  /** Resolves once all that was sent so far was answered. */
  sent(): Promise<void> {
    this.flush()
    return this.#lastGroup ?? turnEnd
  }

  /** Where the backend is waited for: resolves once all sends that cross together were answered. */
  #accepted(): Promise<void> | undefined {
    if (this.described.immediate) return undefined
    if (this.#group === undefined) {
      const call = this.#newNumber()
      this.#put(Op.group, call)
      // What fails is told send by send; the group itself only fails when the engine is closed.
      const group = (this.#answerTo(call, true) as Promise<void>).catch((error) => this.report(error))
      this.#group = group
      this.#lastGroup = group
      void group.then(() => {
        if (this.#lastGroup === group) this.#lastGroup = undefined
      })
    }
    return this.#group
  }

  /** Resolves once what was changed of info so far was answered, one way or the other. */
  async written(): Promise<void> {
    this.flush()
    if (this.#writes.size > 0) await Promise.allSettled(this.#writes)
  }

  /** The number and the outcome of an operation that is waited for where the backend is. */
  #maybeCall(): { call: number; result: Promise<void> | undefined } {
    if (this.described.immediate) return { call: 0, result: undefined }
    const call = this.#newNumber()
    const result = this.#answerTo(call, true) as Promise<void>
    this.#writes.add(result)
    const done = () => void this.#writes.delete(result)
    result.then(done, done)
    return { call, result }
  }

  /** Sends and tells what it came to; `undefined` is all sessions. */
  sendCall(targets: readonly string[] | undefined, payload: string, key: string | undefined): Promise<Receipt> {
    const chars = idChars(targets ?? []) + (key?.length ?? 0) * 3
    this.#payload(7 + (targets?.length ?? 0) * 2, payload, chars)
    const at = this.#lastOffset
    const length = this.#lastLength
    const keyAt = this.#inboxAt
    const keyLength = key === undefined ? NONE : this.#text(key)
    const call = this.#newNumber()
    const result = this.#answerTo(call, !this.immediate)
    this.#put(Op.sendCall, call)
    this.#word(at)
    this.#word(length)
    this.#word(keyAt)
    this.#word(keyLength)
    if (targets === undefined) this.#word(ALL)
    else this.#targets(targets)
    void this.#added()
    return result as Promise<Receipt>
  }

  /** Sends a JSON-RPC notification to subscriptions everywhere. */
  notify(json: string): Promise<void> {
    this.#payload(4, json, 0)
    const call = this.#newNumber()
    const result = this.#answerTo(call, !this.immediate)
    this.#put(Op.notify, call)
    this.#word(this.#lastOffset)
    this.#word(this.#lastLength)
    void this.#added()
    return result as Promise<void>
  }

  /** Changes a session's info; `values` are JSON or text, by the bits of `fields`. */
  putInfo(id: string, fields: number, values: readonly string[]): Promise<void> | undefined {
    let bytes = id.length
    for (const value of values) bytes += value.length * 3
    this.#room(5 + values.length * 2, bytes)
    const idAt = this.#inboxAt
    this.#text(id)
    const places: number[] = []
    for (const value of values) {
      places.push(this.#inboxAt)
      places.push(this.#text(value))
    }
    const { call, result } = this.#maybeCall()
    this.#put(Op.infoPut, call)
    this.#target(id, idAt)
    this.#word(fields)
    for (const place of places) this.#word(place)
    infoChanges += 1
    void this.#added()
    return result
  }

  deleteInfo(id: string): Promise<void> | undefined {
    this.#room(4, id.length)
    const idAt = this.#inboxAt
    this.#text(id)
    const { call, result } = this.#maybeCall()
    this.#put(Op.infoDelete, call)
    this.#target(id, idAt)
    infoChanges += 1
    const crossed = this.#added()
    return result ?? crossed
  }

  /** Subscribes a session to a resource, or ends that. */
  subscribe(id: string, uri: string, subscribed: boolean): Promise<void> | undefined {
    this.#room(6, id.length + uri.length * 3)
    const idAt = this.#inboxAt
    this.#text(id)
    const uriAt = this.#inboxAt
    const uriLength = this.#text(uri)
    const { call, result } = this.#maybeCall()
    this.#put(subscribed ? Op.subscribe : Op.unsubscribe, call)
    this.#target(id, idAt)
    this.#word(uriAt)
    this.#word(uriLength)
    const crossed = this.#added()
    return result ?? crossed
  }

  // ---- calls ------------------------------------------------------------------------------------

  /** A call that has no packed layout: its answer, or a promise of it where it is not there at once. */
  call<T>(name: string, request: object = {}, background = false): T | Promise<T> {
    if (this.#closed) throw new ClosedError('the engine was closed', 'call')
    const json = requestOf(name, request)
    flushAll()
    const call = this.#newNumber()
    const answer = native.call(this.handle, call, json)
    if (answer === null) return this.#answerTo(call, true, background) as Promise<T>
    this.fetch()
    if (answer.startsWith('!')) throw errorOf(answer.slice(1))
    return (answer === '' ? undefined : JSON.parse(answer)) as T
  }

  /** {@link call} as a promise in any case, whose rejection is the caller's to handle. */
  async ask<T>(name: string, request: object = {}): Promise<T> {
    return this.call<T>(name, request)
  }

  #newNumber(): number {
    const call = this.#nextCall
    this.#nextCall = (call % ID_NUMBERS) + 1
    return call
  }

  /** The answer to a call. One that takes longer than a turn keeps the process, and this port, alive. */
  #answerTo(call: number, takesTime: boolean, background = false): Promise<unknown> {
    const answer = new Promise<unknown>((resolve, reject) =>
      this.#waiting.set(call, { resolve, reject, takesTime, background }),
    )
    if (takesTime) {
      if (!background) countCalls(1)
      this.hold()
    }
    return answer
  }

  #settled(call: number): Waiting | undefined {
    const waiting = this.#waiting.get(call)
    if (waiting === undefined) return undefined
    this.#waiting.delete(call)
    if (waiting.takesTime) {
      if (!waiting.background) countCalls(-1)
      this.unhold()
    }
    return waiting
  }

  /** Events of a stream that is read by asking. */
  takeEvents(token: number, limit: number): Take<Taken> {
    return this.#take(token, limit, (at) => {
      const [from = 0, middle = 0, to = 0] = this.#records.subarray(at + 2, at + 5)
      return {
        payload: this.#out.toString('utf8', from, middle),
        cursor: this.#out.toString('latin1', middle, to),
        kind: this.#records[at + 1] === 1 ? 'broadcast' : 'directed',
      }
    })
  }

  /** The next notification of a subscription that is read by asking. */
  takeNotification(token: number): Take<unknown> {
    return this.#take(token, 1, (at) => {
      const [from = 0, to = 0] = this.#records.subarray(at + 2, at + 4)
      return JSON.parse(this.#out.toString('utf8', from, to))
    })
  }

  #take<T>(token: number, limit: number, read: (at: number) => T): Take<T> {
    if (this.#closed) return { end: 'shutdown' }
    if (this.#busy) {
      // The buffers are being read: this is asked again once they have been.
      void turnEnd.then(() => this.#receivers.get(token)?.readable?.())
      return 'pending'
    }
    flushAll()
    for (;;) {
      const answer = native.take(this.handle, token, limit)
      const end = HEAD_WORDS + (this.#records[HEAD_RECORDS] ?? 0)
      const items: T[] = []
      let grown = false
      for (let at = HEAD_WORDS; at < end; at += RECORD_WORDS) {
        if (this.#records[at] === Rec.grow) grown = this.#growOut(this.#records[at + 2] ?? 0)
        else items.push(read(at))
      }
      if (items.length > 0) return { items }
      if (grown) continue
      return answer === 'pending' || answer === null ? 'pending' : { end: answer as Reason }
    }
  }

  /** Why a stream or subscription ended; if it has not, its receiver is told `readable` when it does. */
  endOf(token: number): Reason | undefined {
    if (this.#closed) return 'shutdown'
    return (native.endOf(this.handle, token) as Reason | null) ?? undefined
  }

  /** Sees to it that what is cached of info is true until this turn ends; false if it was seen to. */
  freshen(): boolean {
    const others = keepingBack.size > (this.#keepsBack === undefined ? 0 : 1)
    if (this.#freshAt === infoChanges && !others) return false
    if (others) for (const port of keepingBack) if (port !== this) port.flush()
    // Changes that were put in with something else may wait for the end of the turn.
    for (const port of unsent) if (port !== this) port.flush()
    if (native.isStale(this.handle)) this.fetch()
    if (this.#freshAt === -1) void turnEnd.then(this.#notFresh)
    this.#freshAt = infoChanges
    return true
  }

  #notFresh = (): void => {
    this.#freshAt = -1
  }

  /**
   * Keeps changes back: `write` puts them in when anything else crosses, or at the end of this turn. The
   * next ones in the same turn of the event loop wait for its end: many changes of one session, or of
   * many, then cross together.
   */
  keepBack(write: () => void): void {
    this.#keepsBack = write
    keepingBack.add(this)
    unsent.add(this)
    if (this.#loopTurn) return
    this.#loopTurn = true
    setImmediate(this.#endLoopTurn)
    this.#turn ??= turnEnd.then(this.#endTurn)
  }

  #endLoopTurn = (): void => {
    this.#loopTurn = false
    this.flush()
  }

  #putKeptBack(): void {
    const write = this.#keepsBack
    if (write === undefined) return
    this.#keepsBack = undefined
    keepingBack.delete(this)
    write()
  }

  // ---- packing ----------------------------------------------------------------------------------

  #word(word: number): void {
    this.#ops[this.#opsAt++] = word
  }

  #put(op: number, first: number): void {
    this.#ops[this.#opsAt++] = op
    this.#ops[this.#opsAt++] = first
  }

  /** Writes text into the inbox, where there is room for it; returns its length in bytes. */
  #text(text: string): number {
    const written = this.#inbox.write(text, this.#inboxAt)
    this.#inboxAt += written
    return written
  }

  #target(target: number | string, idAt: number): void {
    if (typeof target === 'number') {
      this.#ops[this.#opsAt++] = target
      return
    }
    this.#ops[this.#opsAt++] = ID_BIT | target.length
    this.#ops[this.#opsAt++] = idAt
  }

  #targets(targets: readonly (number | string)[]): void {
    this.#word(targets.length)
    for (const target of targets) {
      const idAt = this.#inboxAt
      if (typeof target === 'string') this.#text(target)
      this.#target(target, idAt)
    }
  }

  /** Makes room, and puts a payload into the inbox unless it is the one that is there already. */
  #payload(words: number, payload: string, chars: number): void {
    const bytes = payload.length * 3
    // Counting costs little beside the memory that a guess would take for a large payload.
    this.#room(words, (bytes > INBOX_BYTES >> 2 ? Buffer.byteLength(payload) : bytes) + chars)
    if (this.#lastText !== payload) {
      this.#lastText = payload
      this.#lastOffset = this.#inboxAt
      this.#lastLength = this.#text(payload)
    }
  }

  #room(words: number, bytes: number): void {
    if (this.#keepsBack !== undefined) this.#putKeptBack()
    if (this.#opsAt + words <= this.#ops.length && this.#inboxAt + bytes <= this.#inbox.length) return
    if (!this.#busy) this.#exchange(this.#unfetched > MAX_UNFETCHED_WORDS)
    const opsWords = fitting(this.#ops.length, this.#opsAt + words)
    const inboxBytes = fitting(this.#inbox.length, this.#inboxAt + bytes)
    if (opsWords > this.#ops.length || inboxBytes > this.#inbox.length) this.#resize(inboxBytes, opsWords)
  }

  #resize(inboxBytes: number, opsWords: number): void {
    const [inbox, ops] = [this.#inbox, this.#opsBuffer]
    this.#inbox = buffer(inboxBytes)
    inbox.copy(this.#inbox, 0, 0, this.#inboxAt)
    this.#opsBuffer = buffer(opsWords * 4)
    ops.copy(this.#opsBuffer, 0, 0, this.#opsAt * 4)
    this.#ops = words(this.#opsBuffer)
    this.#attach()
  }

  #growOut(bytes: number): boolean {
    this.#out = buffer(fitting(this.#out.length, bytes))
    this.#chunks = new Uint8Array(this.#out.buffer, this.#out.byteOffset, this.#out.byteLength)
    this.#mappedTo = -1
    this.#attach()
    return true
  }

  #attach(): void {
    native.attach(this.handle, this.#inbox, this.#opsBuffer, this.#out, this.#recordsBuffer)
  }

  #shrink(): void {
    if (this.#inbox.length > KEPT_BYTES || this.#opsBuffer.length > KEPT_BYTES) this.#resize(INBOX_BYTES, OPS_WORDS)
    if (this.#out.length > KEPT_BYTES) this.#growOut(OUT_BYTES - this.#out.length)
  }

  // ---- crossing ---------------------------------------------------------------------------------

  /** An operation was added: it crosses now, or with others at the end of the turn. */
  #added(): Promise<void> | undefined {
    if (this.#busy) return undefined
    if (this.#turn !== undefined) {
      unsent.add(this)
      return this.#turn
    }
    this.#turn = turnEnd.then(this.#endTurn)
    // Where the backend is waited for, all of a turn leaves together: nothing could come back in it.
    if (this.described?.immediate === false) {
      unsent.add(this)
      return this.#turn
    }
    this.#exchange(true)
    return undefined
  }

  #endTurn = (): void => {
    this.#turn = undefined
    this.flush()
  }

  /** Hands over what waits, and fetches what it brought. */
  flush(): void {
    this.#putKeptBack()
    if (this.#opsAt === 0 && this.#unfetched === 0) {
      unsent.delete(this)
      return
    }
    if (this.#busy) this.#handOver()
    else this.#exchange(true)
  }

  /** Fetches what there is. */
  fetch(): void {
    if (!this.#busy && !this.#closed) this.#exchange(true)
  }

  /** Hands operations over without fetching: for calls from inside a delivery. */
  #handOver(): void {
    this.#group = undefined
    while (this.#opsDone < this.#opsAt) {
      native.exchange(this.handle, this.#opsDone, this.#opsAt, false)
      this.#opsDone = this.#records[HEAD_DONE] ?? this.#opsAt
    }
    this.#unfetched += 1
  }

  #exchange(fetch: boolean): void {
    if (this.#closed) return
    this.#busy = true
    let flags = 0
    let others = 0
    try {
      for (let turns = 0; ; turns++) {
        this.#putKeptBack()
        const to = this.#opsAt
        this.#group = undefined
        flags = native.exchange(this.handle, this.#opsDone, to, fetch)
        others |= flags & FLAG_OTHERS
        this.#opsDone = this.#records[HEAD_DONE] ?? to
        this.#unfetched = fetch ? 0 : this.#unfetched + to
        if ((flags & FLAG_RECORDS) !== 0) this.#deliver()
        if (this.#opsDone >= this.#opsAt) this.#reset()
        // What was handed over from inside a delivery may have brought something, too.
        const more = (flags & (FLAG_MORE | FLAG_PRESSED)) !== 0 || (fetch && this.#unfetched > 0)
        if (!more && this.#opsAt === 0) break
        fetch ||= (flags & FLAG_PRESSED) !== 0
        if (turns >= MAX_EXCHANGES && this.#opsAt === 0) {
          this.#goOn()
          break
        }
      }
    } finally {
      this.#busy = false
    }
    if (others !== 0) fetchOthers()
  }

  #reset(): void {
    this.#opsAt = 0
    this.#opsDone = 0
    this.#inboxAt = 0
    this.#lastText = undefined
    if (unsent.size > 0) unsent.delete(this)
    if (this.#inbox.length > KEPT_BYTES || this.#out.length > KEPT_BYTES) this.#shrink()
  }

  #goOn(): void {
    if (this.#goOnLater) return
    this.#goOnLater = true
    setImmediate(() => {
      this.#goOnLater = false
      this.fetch()
    })
  }

  // ---- deliveries -------------------------------------------------------------------------------

  #deliver(): void {
    const records = this.#records
    const end = HEAD_WORDS + (records[HEAD_RECORDS] as number)
    this.#filled = records[HEAD_OUT] as number
    this.#mappedTo = -1
    this.#notedAt = -1
    for (let at = HEAD_WORDS; at < end; at += RECORD_WORDS) {
      const kind = records[at] as number
      const id = records[at + 1] as number
      const a = records[at + 2] as number
      const b = records[at + 3] as number
      try {
        if (kind === Rec.chunk) this.#receivers.get(id)?.chunk?.(a, b)
        else this.#tell(kind, id, a, b, records[at + 4] as number)
      } catch (error) {
        this.report(error as McpSessionsError)
      }
    }
    this.#noted = undefined
  }

  #tell(kind: number, id: number, a: number, b: number, c: number): void {
    switch (kind) {
      case Rec.notification:
        this.#receivers.get(id)?.notification?.(this.#notification(a, b))
        return
      case Rec.end:
      case Rec.subscriptionEnd: {
        const receiver = this.#receivers.get(id)
        this.release(id)
        receiver?.end?.(REASONS[a] ?? 'closed')
        return
      }
      case Rec.receipt:
        this.#settled(id)?.resolve({ accepted: a, dropped: b, duplicates: c })
        return
      case Rec.done: {
        this.#settled(id)?.resolve(a === b ? undefined : JSON.parse(this.#out.toString('utf8', a, b)))
        return
      }
      case Rec.failed:
        this.#settled(id)?.reject(this.#error(a, b))
        return
      case Rec.readable:
        this.#receivers.get(id)?.readable?.()
        return
      case Rec.opened:
        this.#receivers.get(id)?.opened?.(c === 1, this.#out.toString('latin1', a, b))
        return
      case Rec.openFailed: {
        const receiver = this.#receivers.get(id)
        this.#receivers.delete(id)
        receiver?.failed?.(this.#error(a, b))
        return
      }
      case Rec.infoChanged:
        this.infoChanged?.(b === 0 ? undefined : this.#out.toString('latin1', a, b))
        return
      case Rec.lost:
        this.report(this.#error(a, b))
        return
      case Rec.grow:
        this.#growOut(a)
    }
  }

  /** A notification for many subscriptions is read once. */
  #notification(from: number, to: number): unknown {
    if (this.#notedAt !== from) {
      this.#noted = JSON.parse(this.#out.toString('utf8', from, to))
      this.#notedAt = from
    }
    return this.#noted
  }

  #error(from: number, to: number): McpSessionsError {
    return errorOf(this.#out.toString('utf8', from, to))
  }

  /** Tells the hooks of a failure that nobody waits for. */
  report(error: McpSessionsError): void {
    // Managers that share an engine often share a hook: it is told once.
    const told = new Set<unknown>()
    for (const { hook, report } of this.reporters) {
      if (told.has(hook)) continue
      told.add(hook)
      report(error)
    }
  }

  /** A chunk's bytes in memory shared with its neighbours; only valid places of this delivery. */
  shared(from: number, to: number): Uint8Array {
    const size = to - from
    if (size > SLAB_BYTES >> 1) return this.owned(from, to)
    if (from < this.#mappedFrom || to > this.#mappedTo) this.#map(from, size)
    return new Uint8Array(this.#slab.buffer, this.#mappedAt + from - this.#mappedFrom, size)
  }

  /** A chunk's bytes in memory of their own. */
  owned(from: number, to: number): Uint8Array {
    return this.#chunks.slice(from, to)
  }

  /** Copies what fits, from here on, into a slab: the next chunks are there then, too. */
  #map(from: number, size: number): void {
    if (this.#slabAt + size > this.#slab.length) {
      this.#slab = buffer(SLAB_BYTES)
      markAsUntransferable(this.#slab.buffer)
      this.#slabAt = 0
    }
    const bytes = Math.min(this.#slab.length - this.#slabAt, this.#filled - from)
    this.#out.copy(this.#slab, this.#slabAt, from, from + bytes)
    this.#mappedFrom = from
    this.#mappedTo = from + bytes
    this.#mappedAt = this.#slabAt
    this.#slabAt += bytes
  }
}

function fitting(have: number, wanted: number): number {
  let size = Math.max(have, 1024)
  while (size < wanted) size *= 2
  return size
}

/** A call as it crosses; what JSON can't carry is refused before anything is waited for. */
function requestOf(name: string, request: object): string {
  try {
    return `{"${name}":${JSON.stringify(request)}}`
  } catch (error) {
    throw asError(error, name)
  }
}

function idChars(targets: readonly (number | string)[]): number {
  let chars = 0
  for (const target of targets) if (typeof target === 'string') chars += target.length
  return chars
}
