// The Workers platform, as far as it is used here.

/** What the sync layer needs of a Durable Object. */
export interface Host {
  nowMs(): number
  get(key: Uint8Array): Uint8Array | undefined
  put(key: Uint8Array, value: Uint8Array): void
  delete(key: Uint8Array): void
  /** Keys and values in turns, in order of keys, from `from` up to but without `to`. */
  scan(from: Uint8Array, to: Uint8Array, most: number): Uint8Array[]
  /** When the node's open socket was last heard. */
  heardMs(node: string): number | undefined
  send(node: string, message: Uint8Array): void
  /** Puts a line of text on a Worker's socket. */
  say(node: string, text: string): void
  /** Ends a Worker's stream or subscription. */
  end(node: string, reason: string): void
  wakeAt(atMs: number): void
}

/** The state of a Durable Object. */
export interface ObjectState {
  readonly storage: ObjectStorage
  acceptWebSocket(socket: ServerSocket, tags: string[]): void
  getWebSockets(tag?: string): ServerSocket[]
  getTags(socket: ServerSocket): string[]
  setWebSocketAutoResponse(pair: object): void
  getWebSocketAutoResponseTimestamp(socket: ServerSocket): Date | null
  blockConcurrencyWhile(work: () => Promise<void>): Promise<void>
}

export interface ObjectStorage {
  readonly sql: Sql
  transactionSync<T>(work: () => T): T
  setAlarm(atMs: number): Promise<void>
  list<T>(): Promise<Map<string, T>>
  put(pairs: Record<string, unknown>): Promise<void>
  delete(keys: string[]): Promise<number>
}

export interface Sql {
  exec(query: string, ...bindings: (ArrayBuffer | string | number)[]): Cursor
}

export interface Cursor {
  raw(): IterableIterator<unknown[]>
}

export interface ServerSocket {
  readonly readyState: number
  send(message: string | Uint8Array | ArrayBuffer): void
  close(code?: number, reason?: string): void
}

/** A binding to a class of Durable Objects. */
export interface ObjectNamespace {
  getByName(name: string): ObjectStub
}

/** One object, for the request at hand. */
export interface ObjectStub {
  fetch(url: string, init?: object): Promise<Response>
  ask(options: string, question: string): Promise<string>
}

/** A KV namespace. */
export interface KvNamespace {
  get(key: string): Promise<string | null>
  getWithMetadata(key: string): Promise<unknown>
  put(key: string, value: string, options: { expirationTtl: number; metadata?: object }): Promise<void>
  delete(key: string): Promise<void>
  list(options: { prefix: string; cursor?: string }): Promise<{
    keys: { name: string; metadata?: { session?: string } | null }[]
    list_complete: boolean
    cursor?: string
  }>
}

/** A key that can't be read. */
export type SigningKey = object

/** What only Workers have in their global scope. */
interface WorkersGlobals {
  readonly WebSocketPair: new () => { 0: ServerSocket; 1: ServerSocket }
  readonly WebSocketRequestResponsePair: new (request: string, response: string) => object
  readonly crypto: {
    readonly subtle: {
      digest(name: 'SHA-256', data: Uint8Array): Promise<ArrayBuffer>
      importKey(
        format: 'raw',
        key: Uint8Array,
        algorithm: { name: 'HMAC'; hash: 'SHA-256' },
        extractable: false,
        usages: ['sign'],
      ): Promise<SigningKey>
      sign(algorithm: 'HMAC', key: SigningKey, data: Uint8Array): Promise<ArrayBuffer>
      timingSafeEqual(a: ArrayBuffer, b: ArrayBuffer): boolean
    }
  }
}

export const workers = globalThis as unknown as WorkersGlobals
