// A real PostgreSQL server on a free port, for `postgresql://` without a host.
package dev.mcpsessions.conformance

import java.io.File
import java.nio.file.Files
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread

private const val START_SECONDS = 60L
private const val READY = "database system is ready to accept connections"

class PostgresServer private constructor(port: Int) {
    val url = "postgresql://postgres@127.0.0.1:$port/postgres"

    companion object {
        /** Starts one that ends with this process. It runs as nobody special: it refuses root. */
        fun start(): PostgresServer {
            val folder = Files.createTempDirectory("mcp-sessions-postgres-").toFile()
            if (isRoot) run(folder, listOf("chown", "postgres", folder.path))
            val access = listOf("--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C")
            run(folder, asUser("initdb") + access + listOf("-D", "$folder/data"))
            // Another process may take the port first: then the next one is tried.
            repeat(5) {
                val port = freePort()
                val settings = listOf("listen_addresses=127.0.0.1", "max_connections=300", "log_min_messages=log", "fsync=off")
                val command = asUser("postgres") + listOf("-D", "$folder/data", "-p", "$port", "-k", "$folder") +
                    settings.flatMap { listOf("-c", it) }
                val process = ProcessBuilder(command).directory(folder).redirectOutput(ProcessBuilder.Redirect.DISCARD).start()
                Runtime.getRuntime().addShutdownHook(Thread { stop(process, folder) })
                if (isReady(process)) return PostgresServer(port)
            }
            throw Failed("postgres does not start")
        }

        /** Its processes end, too, and give back their shared memory. */
        private fun stop(process: Process, folder: File) {
            if (process.isAlive) ProcessBuilder("kill", "-QUIT", "${process.pid()}").start().waitFor()
            process.waitFor(START_SECONDS, TimeUnit.SECONDS)
            folder.deleteRecursively()
        }

        private fun isReady(process: Process): Boolean {
            val said = process.errorReader()
            while (true) if (READY in (said.readLine() ?: return false)) break
            // Reads on to the end, or the server would wait for room in the pipe.
            thread(isDaemon = true) { said.forEachLine { } }
            return true
        }
    }
}

private val isRoot by lazy {
    ProcessBuilder("id", "-u").start().inputReader().readLine() == "0"
}

/** A program of PostgreSQL, as somebody who may run it. */
private fun asUser(program: String): List<String> {
    val debian = File("/usr/lib/postgresql").listFiles().orEmpty().sortedDescending().map { File(it, "bin") }
    val folders = System.getenv("PATH").split(File.pathSeparator).map(::File) + debian
    val found = folders.map { File(it, program) }.find { it.canExecute() } ?: throw Failed("$program is not installed")
    val other = listOf("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--")
    return (if (isRoot) other else emptyList()) + found.path
}

private fun run(folder: File, command: List<String>) {
    val process = ProcessBuilder(command).directory(folder).redirectErrorStream(true).start()
    val said = process.inputReader().readText()
    if (process.waitFor() != 0) throw Failed("${command.joinToString(" ")}: $said")
}
