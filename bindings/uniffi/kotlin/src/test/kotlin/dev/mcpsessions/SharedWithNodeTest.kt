// One session, two languages: a server on the JVM and one in Node, in processes of their own, on a real Redis.
package dev.mcpsessions

import dev.mcpsessions.conformance.RedisServer
import java.io.File
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.map
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class SharedWithNodeTest {
    @Test
    fun `what Node sends arrives here, and what was missed here is replayed there`() = shared { engine, node ->
        val stream = engine.streams().open("s1")
        repeat(3) { assertAccepted(node.send("s1", "from Node $it")) }
        val seen = stream.events().take(3).toList()
        assertEquals(List(3) { "from Node $it" }, seen.map { it.payload })

        stream.stop()
        assertAccepted(node.send("s1", "missed by Kotlin"))
        assertEquals(1UL, engine.streams().send("s1", "sent from Kotlin").accepted)
        val opened = node.ask("open", "session" to "s1", "after" to seen.last().cursor)
        assertFalse(opened.jsonObject.getValue("gap").jsonPrimitive.boolean)
        val read = node.ask("read", "session" to "s1", "count" to 2).jsonArray.map { it.jsonObject }
        assertEquals(listOf("missed by Kotlin", "sent from Kotlin"), read.map { it.text("payload") })

        // Back here, with the cursor that Node gave out: its stream is replaced, and nothing comes twice.
        val back = engine.streams().open("s1", OpenOptions(read.first().text("cursor")))
        assertFalse(back.gap())
        assertAccepted(node.send("s1", "live"))
        assertEquals(listOf("sent from Kotlin", "live"), back.events().take(2).map { it.payload }.toList())
        assertEquals(0, node.ask("read", "session" to "s1", "count" to 1).jsonArray.size)
    }

    @Test
    fun `what a client said here is read there, and its owner and its end are the same`() = shared { engine, node ->
        val id = engine.registry().create(owner = "token-of-ada")
        engine.info().put(id, InfoPatch(clientInfo = """{"name":"phone","version":"1"}""", logLevel = LogLevel.NOTICE))
        val info = node.ask("info", "session" to id).jsonObject
        assertEquals("phone", info.getValue("clientInfo").jsonObject.text("name"))
        assertEquals("notice", info.text("logLevel"))
        assertEquals(JsonPrimitive(true), node.ask("owns", "session" to id, "owner" to "token-of-ada"))
        assertEquals(JsonPrimitive(false), node.ask("owns", "session" to id, "owner" to "token-of-eve"))

        val stream = engine.streams().open(id)
        val closings = engine.registry().closings()
        assertEquals(JsonPrimitive(true), node.ask("close", "session" to id, "reason" to "done"))
        assertEquals(Closing(id, "done"), closings.next())
        assertEquals(EndReason.TERMINATED, stream.ended())
        assertNull(engine.registry().get(id, "token-of-ada"))
    }

    @Test
    fun `a change that Node tells of reaches a subscription here`() = shared { engine, node ->
        val filter = SubscriptionFilter(resourceSubscriptions = listOf("note:a"))
        val subscription = engine.subscriptions().create(RequestId.Text("1"), "o", filter)!!
        subscription.acknowledge()
        val change = """{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"note:a"}}"""
        node.ask("notify", "notification" to Json.parseToJsonElement(change))
        assertTrue("note:a" in subscription.notifications().first())
    }

    private suspend fun PeerProcess.send(session: String, payload: String) =
        ask("send", "session" to session, "payload" to payload).jsonObject

    private fun assertAccepted(receipt: JsonObject) = assertEquals(JsonPrimitive(1), receipt["accepted"])

    private fun JsonObject.text(name: String) = getValue(name).jsonPrimitive.content

    /** Both on a prefix of their own; the owner key is the deployment's. */
    private fun shared(test: suspend (Engine, PeerProcess) -> Unit) = runBlocking {
        val url = "${SERVER.url}?prefix=shared-${prefixes++}:"
        withTimeout(60.seconds) {
            withEngine(url) { engine -> PeerProcess(url).use { test(engine, it) } }
        }
    }

    private companion object {
        val SERVER by lazy { RedisServer.start() }

        @Volatile
        var prefixes = 0
    }
}

/** The engine in Node: a line of JSON for each question, and for each answer. */
private class PeerProcess(url: String) : AutoCloseable {
    private val process = ProcessBuilder("node", "src/test/node/peer.mjs", url, File(System.getProperty("node.package")).canonicalPath)
        .redirectError(ProcessBuilder.Redirect.INHERIT)
        .start()
    private val questions = process.outputWriter()
    private val answers = process.inputReader()

    fun ask(act: String, vararg fields: Pair<String, Any>): JsonElement {
        val named = fields.associate { (name, value) -> name to written(value) }
        questions.append("${JsonObject(named + ("do" to JsonPrimitive(act)))}\n").flush()
        val answer = Json.parseToJsonElement(answers.readLine() ?: error("Node is gone")).jsonObject
        return answer["value"] ?: error("Node, asked to $act: ${answer["error"]}")
    }

    private fun written(value: Any): JsonElement = when (value) {
        is JsonElement -> value
        is Number -> JsonPrimitive(value)
        else -> JsonPrimitive("$value")
    }

    override fun close() {
        questions.close()
        process.waitFor()
    }
}
