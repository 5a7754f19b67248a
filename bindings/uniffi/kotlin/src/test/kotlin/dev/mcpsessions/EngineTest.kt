// What is Kotlin's own: flows, listeners, cancelling, errors, the log, and what is left behind.
package dev.mcpsessions

import java.time.Duration
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.map
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.parallel.ResourceLock

class EngineTest {
    @Test
    fun `a stream is a flow, in order, until it ends`() = test { engine ->
        val stream = engine.streams().open("s1")
        repeat(1_000) { engine.streams().send("s1", "m$it") }
        engine.streams().end("s1")
        assertEquals(List(1_000) { "m$it" }, stream.events().map { it.payload }.toList())
        assertEquals(EndReason.CLOSED, stream.endReason())
    }

    @Test
    fun `a collector that stops resumes with the last cursor it saw, on another node`() = test { engine ->
        withEngine("memory://kotlin-resume") { here ->
            withEngine("memory://kotlin-resume") { there ->
                val stream = here.streams().open("s1")
                repeat(10) { there.streams().send("s1", "m$it") }
                val seen = stream.events().take(3).toList()
                val resumed = there.streams().open("s1", OpenOptions(after = seen.last().cursor))
                assertEquals(false, resumed.gap())
                assertEquals(List(7) { "m${it + 3}" }, resumed.events().take(7).map { it.payload }.toList())
                assertEquals(EndReason.REPLACED, withTimeout(10.seconds) { stream.ended() })
            }
        }
        assertEquals(0UL, engine.stats().streams)
    }

    @Test
    fun `cancelling a read loses no event`() = test { engine ->
        val stream = engine.streams().open("s1")
        coroutineScopeOf {
            val reading = async(start = CoroutineStart.UNDISPATCHED) { stream.next() }
            reading.cancel()
            reading.join()
        }
        engine.streams().send("s1", "m1")
        assertEquals("m1", withTimeout(10.seconds) { stream.next() }?.payload)
    }

    @Test
    fun `those that read one stream share its events, each in order`() = test { engine ->
        val stream = engine.streams().open("s1")
        val read = coroutineScopeOf {
            val readers = List(3) {
                async(Dispatchers.Default) {
                    buildList { while (true) add((stream.next() ?: break).payload.drop(1).toInt()) }
                }
            }
            repeat(1_000) { engine.streams().send("s1", "m$it") }
            engine.streams().end("s1")
            readers.awaitAll()
        }
        assertEquals(List(1_000) { it }, read.flatten().sorted())
        for (one in read) assertEquals(one.sorted(), one)
    }

    @Test
    fun `a listener is told in order, and then of the end`() = test { engine ->
        val told = LinkedBlockingQueue<String>()
        val stream = engine.streams().open("s1")
        stream.listen(object : StreamListener {
            override fun onEvents(events: List<Event>) = events.forEach { told.put(it.payload) }

            override fun onEnd(reason: EndReason) = told.put(reason.name)
        })
        // Nobody keeps what `listen` returned: it goes on all the same.
        System.gc()
        repeat(100) { engine.streams().send("s1", "m$it") }
        engine.streams().end("s1")
        for (wanted in List(100) { "m$it" } + "CLOSED") assertEquals(wanted, told.poll(10, TimeUnit.SECONDS))
    }

    @Test
    fun `a listening that was cancelled is told nothing more, and the stream stays open`() = test { engine ->
        val told = LinkedBlockingQueue<String>()
        val stream = engine.streams().open("s1")
        val listening = stream.listen(object : StreamListener {
            override fun onEvents(events: List<Event>) = events.forEach { told.put(it.payload) }

            override fun onEnd(reason: EndReason) = told.put(reason.name)
        })
        engine.streams().send("s1", "m1")
        assertEquals("m1", told.poll(10, TimeUnit.SECONDS))
        listening.cancel()
        engine.streams().send("s1", "m2")
        assertEquals("m2", withTimeout(10.seconds) { stream.next() }?.payload)
        assertNull(told.poll())
    }

    @Test
    fun `nothing that waits holds the thread that calls`() = test { engine ->
        val stream = engine.streams().open("s1")
        // One thread: were `next` to block it, nobody would send.
        val single = Dispatchers.Default.limitedParallelism(1)
        val payload = coroutineScopeOf {
            val reading = async(single) { stream.next()?.payload }
            launch(single) { engine.streams().send("s1", "m1") }
            withTimeout(10.seconds) { reading.await() }
        }
        assertEquals("m1", payload)
    }

    @Test
    fun `errors say what failed, on what, and what to do`() = test { engine ->
        val refused = assertThrows(SessionsException.InvalidInput::class.java) {
            runBlocking { engine.streams().send("no spaces", "m") }
        }
        assertEquals("invalid_input", refused.code)
        assertEquals("session id", refused.operation)
        assertTrue("0x20" in refused.reason || "visible ASCII" in refused.reason) { refused.reason }
        assertEquals(false, refused.retryable)
        val unset = assertThrows(SessionsException.NotFound::class.java) { runBlocking { engine.info().logLevel("s1") } }
        assertEquals("Log Level not found for session s1", unset.reason)
        val config = assertThrows(SessionsException.Config::class.java) {
            runBlocking { Engine.connect("memory://", """{"retentoin":{}}""") }
        }
        assertTrue("retentoin" in config.reason)
    }

    @Test
    fun `after a shutdown calls fail with closed, and shutting down twice is fine`() = test { engine ->
        val stream = engine.streams().open("s1")
        engine.shutdown(Duration.ofSeconds(1))
        engine.shutdown(Duration.ofSeconds(1))
        assertEquals(EndReason.SHUTDOWN, stream.ended())
        assertThrows(SessionsException.Closed::class.java) { runBlocking { engine.streams().has("s1") } }
    }

    @Test
    fun `a stream that is destroyed gives its session back`() = test { engine ->
        repeat(1_000) { engine.streams().open("s$it").destroy() }
        assertEquals(0UL, engine.stats().streams)
        assertEquals(false, engine.streams().has("s1"))
    }

    @Test
    fun `a subscription's notifications are a flow`() = test { engine ->
        val subscriptions = engine.subscriptions()
        val filter = SubscriptionFilter(toolsListChanged = true)
        val subscription = subscriptions.create(RequestId.Number(1), "o", filter)!!
        assertNull(subscriptions.create(RequestId.Number(1), "o", filter))
        subscriptions.create(RequestId.Text("1"), "o", filter)!!.destroy()
        subscription.acknowledge()
        subscriptions.send("""{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}""")
        assertTrue("tools/list_changed" in withTimeout(10.seconds) { subscription.notifications().first() })
        assertTrue(subscriptions.end(RequestId.Number(1), "o", false))
        assertEquals(SubscriptionEnd.CLOSED, subscription.ended())
    }

    @Test
    fun `a follower is a flow that goes on after the last event collected, on another node`() = test { _ ->
        withEngine("memory://kotlin-follow") { here ->
            withEngine("memory://kotlin-follow") { there ->
                val log = here.events("s1")
                repeat(3) { log.append("x", "m$it") }
                val first = there.events("s1").follow("x")
                assertEquals(listOf("m0", "m1"), first.events().take(2).map { it.payload }.toList())
                first.stop()
                val second = log.follow("x")
                assertEquals(false, second.gap())
                log.append("x", "m3")
                log.end("x")
                assertEquals(listOf("m2", "m3"), second.events().map { it.payload }.toList())
                assertEquals(EndReason.CLOSED, second.endReason())
            }
        }
    }

    @Test
    fun `closings are a flow that completes at the shutdown`() = test { engine ->
        val closings = engine.registry().closings()
        val session = engine.registry().create()
        engine.registry().end(session, "bye")
        engine.shutdown()
        assertEquals(listOf(session to "bye"), closings.sessions().map { it.session to it.reason }.toList())
    }

    @Test
    @ResourceLock("log")
    fun `the engine's log reaches the host`() = runBlocking {
        val lines = LinkedBlockingQueue<String>()
        val sink = object : LogSink {
            override fun log(severity: Severity, target: String, message: String) = lines.put("$severity $target $message")
        }
        assertTrue(setLogSink(Severity.DEBUG, sink))
        // A node that lost its hub has something to say.
        withEngine("memory://", """{"lease":{"ttlMs":200,"renewMs":50}}""") { engine ->
            engine.setOutage(true)
            val line = lines.poll(10, TimeUnit.SECONDS)
            assertTrue("mcp_sessions" in line) { line }
            engine.setOutage(false)
            withTimeout(10.seconds) { while (!engine.health().ready) delay(5.milliseconds) }
        }
        assertTrue(setLogSink(Severity.DEBUG, null))
    }

    @Test
    fun `what the engine counts and measures reaches the host`() = runBlocking {
        val told = ConcurrentHashMap<String, String>()
        val sink = object : MetricsSink {
            override fun count(name: String, by: ULong) {
                told.merge(name, "$by") { a, b -> "${a.toULong() + b.toULong()}" }
            }

            override fun gauge(name: String, value: Double) {
                told[name] = "$value"
            }

            override fun operation(operation: String, took: Duration, error: String?) {
                told[operation] = error ?: "ok"
            }
        }
        val engine = Engine.connect("memory://", null, sink)
        engine.streams().open("s1")
        repeat(3) { engine.streams().send("s1", "m$it") }
        engine.streams().send("nobody", "m")
        engine.shutdown()
        val counted = mapOf(
            "mcp_sessions_accepted_total" to "3", "mcp_sessions_dropped_total" to "1",
            "mcp_sessions_opened_total" to "1", "mcp_sessions_streams" to "0.0", "streams.open" to "ok",
        )
        assertEquals(counted, told.filterKeys(counted::containsKey))
        engine.destroy()
    }

    @Test
    fun `a wait that is cancelled by its handle loses no event`() = test { engine ->
        val stream = engine.streams().open("s1")
        val until = Cancellation()
        coroutineScopeOf {
            val reading = async(start = CoroutineStart.UNDISPATCHED) { stream.nextBatch(8u, until) }
            until.cancel()
            assertEquals(emptyList<Event>(), withTimeout(10.seconds) { reading.await() })
        }
        assertNull(stream.next(until))
        engine.streams().send("s1", "m1")
        assertEquals("m1", withTimeout(10.seconds) { stream.next() }?.payload)
        assertNull(stream.endReason())
    }

    private suspend fun <T> coroutineScopeOf(block: suspend kotlinx.coroutines.CoroutineScope.() -> T): T =
        kotlinx.coroutines.coroutineScope(block)

    private fun test(body: suspend (Engine) -> Unit) = runBlocking {
        withTimeout(60.seconds) { withEngine("memory://", null, body) }
    }
}
