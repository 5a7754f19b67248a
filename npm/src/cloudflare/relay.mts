// One socket of an engine outside for all the objects: each frame begins with the number of its object.

import type { WorkerSocket } from './objects.mjs'
import { type ServerSocket, workers } from './platform.mjs'

/** The end of the socket that the engine gets; whatever ends one of the sockets ends them all. */
export function relay(objects: WorkerSocket[]): ServerSocket {
  const { 0: client, 1: server } = new workers.WebSocketPair()
  new Relay(server as unknown as WorkerSocket, objects).run()
  return client
}

class Relay {
  #engine: WorkerSocket
  #objects: WorkerSocket[]
  /** How many heartbeats each object has answered, and how many were passed on: those that all have. */
  #answered: number[]
  #passedOn = 0
  #over = false

  constructor(engine: WorkerSocket, objects: WorkerSocket[]) {
    this.#engine = engine
    this.#objects = objects
    this.#answered = objects.map(() => 0)
  }

  /** What an object sends before its socket is accepted waits for that. */
  run(): void {
    this.#listen(this.#engine, (data) => this.#fromEngine(data))
    this.#objects.forEach((object, shard) => {
      this.#listen(object, (data) => this.#fromObject(shard, data))
    })
  }

  #listen(socket: WorkerSocket, take: (data: ArrayBuffer | string) => void): void {
    socket.binaryType = 'arraybuffer'
    socket.addEventListener('message', ({ data }) => {
      if (this.#over) return
      try {
        take(data)
      } catch {
        // One of them is closing; the engine connects anew and reads what it missed.
        this.#end(1012, 'an object is gone')
      }
    })
    const gone = () => this.#end(1012, 'an object is gone')
    socket.addEventListener('close', gone)
    socket.addEventListener('error', gone)
    socket.accept()
  }

  #fromEngine(data: ArrayBuffer | string): void {
    if (typeof data === 'string') {
      for (const object of this.#objects) object.send(data)
      return
    }
    const object = this.#objects[new Uint8Array(data)[0] ?? this.#objects.length]
    if (object === undefined) this.#end(4406, 'another version')
    else object.send(data.slice(1))
  }

  #fromObject(shard: number, data: ArrayBuffer | string): void {
    if (typeof data === 'string') {
      this.#answered[shard] = (this.#answered[shard] ?? 0) + 1
      for (const all = Math.min(...this.#answered); this.#passedOn < all; this.#passedOn++) this.#engine.send(data)
      return
    }
    const frame = new Uint8Array(data.byteLength + 1)
    frame[0] = shard
    frame.set(new Uint8Array(data), 1)
    this.#engine.send(frame)
  }

  #end(code: number, reason: string): void {
    if (this.#over) return
    this.#over = true
    for (const socket of [this.#engine, ...this.#objects]) {
      try {
        socket.close(code, reason)
      } catch {
        // It was closed already.
      }
    }
  }
}
