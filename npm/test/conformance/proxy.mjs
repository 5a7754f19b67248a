// A TCP proxy in front of a backend's server, so that it can be taken away from one node.

import { once } from 'node:events'
import { connect, createServer } from 'node:net'

/** @typedef {import('node:net').Socket} Socket */

/** A way to `127.0.0.1:port` that can be cut. */
export class Route {
  #cut = false
  /** @type {Set<Socket>} */
  #sockets = new Set()
  #server

  /** @param {number} to */
  constructor(to) {
    this.#server = createServer((client) => {
      if (this.#cut) return client.destroy()
      const server = connect(to, '127.0.0.1')
      for (const [one, other] of /** @type {[Socket, Socket][]} */ ([
        [client, server],
        [server, client],
      ])) {
        this.#sockets.add(one)
        one.setNoDelay(true)
        one.on('error', () => other.destroy())
        one.on('close', () => {
          this.#sockets.delete(one)
          other.destroy()
        })
        one.pipe(other)
      }
    })
  }

  /** Starts it; its port. */
  async listen() {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    return /** @type {import('node:net').AddressInfo} */ (this.#server.address()).port
  }

  /** Ends all connections, and new ones at once. */
  cut() {
    this.#cut = true
    for (const socket of this.#sockets) socket.destroy()
  }

  restore() {
    this.#cut = false
  }

  close() {
    this.cut()
    this.#server.close()
  }
}
