// A real Redis server on a free port, for `redis://` without a host.
package dev.mcpsessions.conformance

import java.io.IOException
import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket
import java.nio.file.Files
import java.util.concurrent.TimeUnit

class RedisServer private constructor(port: Int) {
    val url = "redis://127.0.0.1:$port"

    companion object {
        /** Starts one that ends with this process. */
        fun start(): RedisServer {
            // Another process may take the port first: then the next one is tried.
            repeat(10) {
                val port = freePort()
                val folder = Files.createTempDirectory("redis").toString()
                val command = listOf("redis-server", "--port", "$port", "--save", "", "--dir", folder)
                val process = ProcessBuilder(command).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.DISCARD).start()
                Runtime.getRuntime().addShutdownHook(Thread { process.destroyForcibly() })
                if (answers(process, port)) return RedisServer(port)
            }
            throw Failed("redis-server does not start")
        }

        private fun answers(process: Process, port: Int): Boolean {
            while (!process.waitFor(20, TimeUnit.MILLISECONDS)) {
                try {
                    Socket(InetAddress.getLoopbackAddress(), port).use { socket ->
                        socket.getOutputStream().write("PING\r\n".toByteArray())
                        return socket.getInputStream().readNBytes(5).decodeToString() == "+PONG"
                    }
                } catch (notYet: IOException) {
                    // It is still starting.
                }
            }
            return false
        }
    }
}

/** A port that was free a moment ago. */
fun freePort(): Int = ServerSocket(0, 1, InetAddress.getLoopbackAddress()).use { it.localPort }
