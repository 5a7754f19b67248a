// A TCP proxy in front of a backend's server, so that it can be taken away from one node.
package dev.mcpsessions.conformance

import java.io.IOException
import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket
import java.util.concurrent.ConcurrentHashMap
import kotlin.concurrent.thread

class Proxy(private val to: Int) : AutoCloseable {
    private val server = ServerSocket(0, 50, InetAddress.getLoopbackAddress())
    private val sockets = ConcurrentHashMap.newKeySet<Socket>()

    @Volatile
    private var isCut = false

    val port: Int = server.localPort

    init {
        thread(isDaemon = true) {
            while (!server.isClosed) {
                val client = try {
                    server.accept()
                } catch (closed: IOException) {
                    return@thread
                }
                serve(client)
            }
        }
    }

    private fun serve(client: Socket) {
        if (isCut) return client.close()
        val backend = Socket(InetAddress.getLoopbackAddress(), to)
        for (socket in listOf(client, backend)) {
            socket.tcpNoDelay = true
            sockets += socket
        }
        for ((from, into) in listOf(client to backend, backend to client)) {
            thread(isDaemon = true) {
                try {
                    from.getInputStream().transferTo(into.getOutputStream())
                } catch (gone: IOException) {
                    // One end is gone: so is the other.
                }
                from.close()
                into.close()
                sockets -= setOf(from, into)
            }
        }
        if (isCut) cut()
    }

    /** Ends all connections, and new ones at once. */
    fun cut() {
        isCut = true
        sockets.forEach { it.close() }
    }

    fun restore() {
        isCut = false
    }

    override fun close() {
        server.close()
        cut()
    }
}
