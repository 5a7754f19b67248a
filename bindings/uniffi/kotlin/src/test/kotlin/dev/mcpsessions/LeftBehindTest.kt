// What is left of handles that nobody keeps: nothing, whether they are destroyed or forgotten, read or waited for.
package dev.mcpsessions

import com.sun.jna.Library
import com.sun.jna.Native
import com.sun.jna.Structure
import dev.mcpsessions.conformance.Failed
import dev.mcpsessions.conformance.RedisServer
import dev.mcpsessions.conformance.eventually
import java.lang.ref.WeakReference
import java.net.Socket
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.parallel.Isolated

private const val ROUNDS = 2_000
private const val WINDOWS = 12

/** One leaked stream a round would be twice that. */
private const val LEVEL = 1 shl 20

/** Of a hundred. */
private const val FEW = 5
private const val TURNS = 10
private const val PAUSES = 100
private val PAUSE = 20.milliseconds

@Isolated("it counts what the whole process holds")
class LeftBehindTest {
    @Test
    fun `what is forgotten is given back by the collector`() = runBlocking {
        withEngine("memory://") { engine ->
            for (n in 1..100) openAndForget(engine, n)
            // A frame that is not used up yet may keep the last ones.
            collected("streams") { engine.stats().streams.toInt() }
            collected("subscriptions") { engine.stats().subscriptions.toInt() }
        }
    }

    private suspend fun openAndForget(engine: Engine, n: Int) {
        engine.streams().open("s$n")
        engine.subscriptions().create(RequestId.Number(n.toLong()), "o", SubscriptionFilter(toolsListChanged = true))
    }

    @Test
    fun `a cancelled call leaves nothing behind`() = runBlocking {
        withEngine("memory://") { engine ->
            engine.streams().open("s1").use { stream ->
                val before = uniffiContinuationHandleMap.size
                repeat(1_000) {
                    coroutineScope { async(start = CoroutineStart.UNDISPATCHED) { stream.next() }.cancelAndJoin() }
                }
                eventually { if (uniffiContinuationHandleMap.size > before) throw Failed("calls are waiting") }
            }
        }
    }

    @Test
    fun `a listener is let go of once its stream has ended`() = runBlocking {
        withEngine("memory://") { engine ->
            val listener = listenUntilTheEnd(engine)
            // One is fewer than a few: what is asked is whether it is there at all.
            collected("listeners") { if (listener.get() == null) 0 else FEW }
        }
    }

    private suspend fun listenUntilTheEnd(engine: Engine): WeakReference<StreamListener> {
        val listener = object : StreamListener {
            override fun onEvents(events: List<Event>) = Unit

            override fun onEnd(reason: EndReason) = Unit
        }
        engine.streams().open("s1").use { stream ->
            stream.listen(listener).destroy()
            engine.streams().end("s1")
            stream.ended()
        }
        return WeakReference(listener)
    }

    @Test
    fun `an engine that is dropped without a shutdown closes its connections`() = runBlocking {
        val port = RedisServer.start().url.substringAfterLast(':').toInt()
        repeat(5) { n ->
            val engine = Engine.connect("redis://127.0.0.1:$port")
            engine.streams().use { it.open("s$n").destroy() }
            assertTrue(connectionsOf(port) > 1)
            engine.destroy()
        }
        // One is that of the question.
        eventually { connectionsOf(port).let { if (it > 1) throw Failed("$it connections are open") } }
    }

    private fun connectionsOf(port: Int): Int = Socket("127.0.0.1", port).use { socket ->
        socket.getOutputStream().write("CLIENT LIST\r\n".toByteArray())
        val said = socket.getInputStream()
        val length = generateSequence { said.read().toChar() }.takeWhile { it != '\n' }.joinToString("").trim().drop(1).toInt()
        said.readNBytes(length).decodeToString().lines().count { it.startsWith("id=") }
    }

    @Test
    fun `native memory does not grow with what came and went`() = runBlocking {
        withEngine("memory://", """{"retention":{"events":8},"registry":{"tombstoneMs":1}}""") { engine ->
            // The JVM takes from the same heap until it has compiled all this; a leak would never level out.
            val grown = generateSequence { }.take(WINDOWS).map {
                val before = allocated()
                runBlocking { repeat(ROUNDS) { comeAndGo(engine) } }
                allocated() - before
            }
            assertTrue(grown.any { it < LEVEL }) { "more than $LEVEL bytes are left in each of $WINDOWS windows of $ROUNDS rounds" }
            assertEquals(0UL, engine.stats().streams)
        }
    }

    private suspend fun comeAndGo(engine: Engine) {
        engine.streams().use { streams ->
            streams.open("s1").use { stream ->
                streams.send("s1", "x".repeat(512))
                assertEquals(512, stream.next()?.payload?.length)
            }
            streams.forget("s1")
        }
    }

    /** Bytes that the C heap has given out, in all arenas; the JVM's own are in it, and level out. */
    private fun allocated(): Long {
        System.gc()
        val info = CLibrary.LIB.mallinfo2()
        return info.uordblks + info.hblkhd
    }

    /** What the collector found is given back by other threads, which it must let run: it is not asked again at once. */
    private suspend fun collected(what: String, held: () -> Int) {
        repeat(TURNS) {
            System.gc()
            repeat(PAUSES) {
                if (held() < FEW) return
                delay(PAUSE)
            }
        }
        throw Failed("${held()} $what are held")
    }
}

@Suppress("unused", "FunctionName")
interface CLibrary : Library {
    @Structure.FieldOrder(
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )
    open class Info : Structure(), Structure.ByValue {
        @JvmField var arena = 0L
        @JvmField var ordblks = 0L
        @JvmField var smblks = 0L
        @JvmField var hblks = 0L
        @JvmField var hblkhd = 0L
        @JvmField var usmblks = 0L
        @JvmField var fsmblks = 0L
        @JvmField var uordblks = 0L
        @JvmField var fordblks = 0L
        @JvmField var keepcost = 0L
    }

    fun mallinfo2(): Info

    companion object {
        val LIB: CLibrary = Native.load("c", CLibrary::class.java)
    }
}
