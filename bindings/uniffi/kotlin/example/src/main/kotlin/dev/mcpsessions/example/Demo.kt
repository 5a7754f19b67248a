// `make demo CLIENT=kotlin`: two nodes of the official SDK, a notification that crosses them, a cut, what was missed,
// and its replay. Line by line; ends with 0 only if all of it was seen to happen. On memory both nodes are in this
// process; on a URL each is a process of its own, and the first one is killed.
package dev.mcpsessions.example

import dev.mcpsessions.Engine
import kotlin.system.exitProcess
import kotlin.time.Duration.Companion.seconds
import kotlin.time.TimeSource
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeout

private val BEGUN = TimeSource.Monotonic.markNow()

private fun line(who: String, what: String) = println("%6.2f s  %-8s %s".format(BEGUN.elapsedNow().inWholeMilliseconds / 1e3, who, what))

/** A node of the demo. */
private interface Running {
    val url: String

    /** It goes without a word. */
    suspend fun kill()
}

/** In this process. */
private class Inner(private val engine: Engine, private val node: Node, override val url: String) : Running {
    override suspend fun kill() {
        engine.abandon()
        node.stop()
        engine.destroy()
    }
}

/** In a process of its own. */
private class Outer(private val process: Process, override val url: String) : Running {
    override suspend fun kill() {
        process.destroyForcibly()
        process.waitFor()
    }
}

private suspend fun started(backend: String): Running {
    if (backend.startsWith("memory:")) {
        val engine = Engine.connect(backend)
        val node = Node(engine)
        return Inner(engine, node, node.start())
    }
    val java = ProcessHandle.current().info().command().orElse("java")
    val native = "-Djna.library.path=${System.getProperty("jna.library.path")}"
    val command = listOf(java, native, "-cp", System.getProperty("java.class.path"), "dev.mcpsessions.example.DemoKt", "node", backend)
    val process = ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start()
    Runtime.getRuntime().addShutdownHook(Thread { process.destroyForcibly() })
    // A logger has something to say before.
    val url = process.inputReader().lineSequence().firstOrNull { it.startsWith("http://") }
    return Outer(process, url ?: error("a node did not start"))
}

private suspend fun demo(a: Running, b: Running, isKilled: Boolean) {
    line("node A", a.url)
    line("node B", b.url)
    val client = Client()
    client.initialize(a.url)
    line("client", "initialized on A (2025-11-25), session ${client.session.take(8)}…")
    val names = listOf(a, b).map { client.call(it.url, "whoami") }
    for (name in names) line("client", "<- node ${name.take(8)}…")
    check(names[0] != names[1]) { "one node answered twice" }

    line("", "-- the stream is on A; B speaks on it")
    val stream = client.stream(a.url)
    client.call(b.url, "announce", """{"text":"from B"}""")
    check(stream.next().also { line("client", "<- $it") } == "from B")

    line("", if (isKilled) "-- A is killed, and three events are missed" else "-- the connection is cut, and three events are missed")
    stream.cut()
    if (isKilled) a.kill()
    val missed = List(3) { "missed ${it + 1}" }
    for (text in missed) {
        client.call(b.url, "announce", """{"text":"$text"}""")
        line("node B", "-> $text")
    }

    line("", "-- the client comes back, on B, and gets exactly what it missed")
    val resumed = client.stream(b.url, stream.lastEventId)
    line("client", "GET with Last-Event-ID ${stream.lastEventId.take(12)}…")
    for (text in missed) check(resumed.next().also { line("client", "<- $it") } == text)
    client.call(b.url, "announce", """{"text":"live again"}""")
    check(resumed.next().also { line("client", "<- $it") } == "live again")
    check(resumed.isEmpty()) { "something came twice" }

    check(client.delete(b.url) == 200)
    val status = client.status(b.url)
    line("client", "DELETE; the next request is answered $status")
    check(status == 404)
    if (!isKilled) a.kill()
    b.kill()
    line("", "all of it happened: nothing lost, nothing doubled, nothing out of order")
}

fun main(arguments: Array<String>) {
    if (arguments.firstOrNull() == "node") return runBlocking { serve(arguments[1]) }
    val backend = arguments.singleOrNull() ?: "memory://demo"
    val done = runCatching {
        runBlocking {
            withTimeout(90.seconds) {
                withContext(Dispatchers.IO) { demo(started(backend), started(backend), !backend.startsWith("memory:")) }
            }
        }
    }
    done.onFailure { System.err.println("it did not happen: $it") }
    // Whatever a library left running does not keep this process.
    exitProcess(if (done.isSuccess) 0 else 1)
}
