// `make bench-kotlin`: what the border between the JVM and the engine costs, on the embedded backend.
package dev.mcpsessions.bench

import dev.mcpsessions.EndReason
import dev.mcpsessions.Engine
import dev.mcpsessions.Event
import dev.mcpsessions.EventStream
import dev.mcpsessions.StreamListener
import dev.mcpsessions.events
import dev.mcpsessions.withEngine
import java.io.File
import kotlin.time.Duration
import kotlin.time.Duration.Companion.nanoseconds
import kotlin.time.measureTime
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive

private const val CALLS = 20_000
private const val EVENTS = 100_000
private const val ROUNDS = 3
private val PAYLOAD = "x".repeat(512)

/** Nothing is trimmed and nobody is too slow: what is measured is the way of an event. */
private const val ROOMY = """{"retention":{"events":1},"queue":{"events":200000,"bytes":268435456},"maxPendingBytes":268435456}"""

private val rows = LinkedHashMap<String, JsonPrimitive>()

private fun row(name: String, value: Number, unit: String) {
    rows[name] = JsonPrimitive(value)
    println("%-56s %12s %s".format(name, if (value is Double) "%.2f".format(value) else "%,d".format(value.toLong()), unit))
}

/** The middle of some rounds, after one that warms up. */
private inline fun median(rounds: Int = ROUNDS, round: () -> Duration): Duration =
    List(rounds + 1) { round() }.drop(1).sorted()[rounds / 2]

private fun Duration.each(count: Int, unit: Double) = inWholeNanoseconds / unit / count

private suspend fun calls(engine: Engine) {
    val plain = median { measureTime { repeat(CALLS) { engine.isClosed() } } }
    row("a call across the border", plain.each(CALLS, 1.0), "ns")
    val streams = engine.streams()
    streams.open("s1")
    val awaited = median { measureTime { repeat(CALLS) { streams.has("s1") } } }
    row("a suspend call across the border (has)", awaited.each(CALLS, 1e3), "µs")
    val sorted = LongArray(CALLS) { measureTime { streams.has("s1") }.inWholeNanoseconds }.sorted()
    row("the same, p99", sorted[CALLS * 99 / 100] / 1e3, "µs")
}

/** Fills a new stream, and says how long [read] takes to empty it. */
private suspend fun readingOf(engine: Engine, read: suspend (EventStream) -> Unit): Duration {
    val streams = engine.streams()
    return streams.open("s2").use { stream ->
        repeat(EVENTS) { streams.send("s2", PAYLOAD) }
        measureTime { read(stream) }.also { stream.stop() }
    }
}

private suspend fun streams(engine: Engine) {
    row("100,000 events, read as a flow", perSecond(readingOf(engine) { it.events().take(EVENTS).collect {} }), "events/s")
    row("100,000 events, next() each", perSecond(readingOf(engine) { stream -> repeat(EVENTS) { stream.next() } }), "events/s")
    row("100,000 events, told to a listener", perSecond(readingOf(engine, ::listened)), "events/s")
    row("100,000 events, sent one by one and read as a flow", perSecond(sentAndRead(engine)), "events/s")
}

private suspend fun listened(stream: EventStream) {
    val all = CompletableDeferred<Unit>()
    stream.listen(object : StreamListener {
        private var told = 0

        override fun onEvents(events: List<Event>) {
            told += events.size
            if (told == EVENTS) all.complete(Unit)
        }

        override fun onEnd(reason: EndReason) {
            all.completeExceptionally(IllegalStateException("it ended: $reason"))
        }
    })
    all.await()
}

private suspend fun sentAndRead(engine: Engine): Duration {
    val streams = engine.streams()
    return streams.open("s3").use { stream ->
        measureTime {
            kotlinx.coroutines.coroutineScope {
                launch(Dispatchers.Default) { repeat(EVENTS) { streams.send("s3", PAYLOAD) } }
                stream.events().take(EVENTS).collect {}
            }
        }.also { stream.stop() }
    }
}

private fun perSecond(time: Duration): Long = (EVENTS * 1e9 / time.inWholeNanoseconds).toLong()

fun main(arguments: Array<String>) = runBlocking {
    // What the JVM and its clock cost by themselves is not in question, but is seen.
    println("JVM ${System.getProperty("java.version")}, a clock tick ${median { measureTime {} }.coerceAtLeast(1.nanoseconds)}")
    withEngine("memory://", ROOMY) {
        calls(it)
        streams(it)
    }
    arguments.firstOrNull()?.let { File(it).writeText("${JsonObject(rows)}\n") }
    Unit
}
