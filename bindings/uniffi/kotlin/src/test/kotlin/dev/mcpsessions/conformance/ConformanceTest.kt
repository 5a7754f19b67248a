// The conformance scenarios on the Kotlin API, on the backend of MCP_SESSIONS_TEST_URL: each is a test of its own.
package dev.mcpsessions.conformance

import java.io.File
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.jsonObject
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory

private val FOLDER = File(System.getProperty("scenarios"))
private val BACKEND by lazy {
    val base = System.getenv("MCP_SESSIONS_TEST_URL") ?: "memory://"
    val url = when (base) {
        "redis://" -> RedisServer.start().url
        "postgresql://" -> PostgresServer.start().url
        else -> base
    }
    runBlocking { Backend.at(url) }
}

class ConformanceTest {
    @TestFactory
    fun scenarios(): List<DynamicTest> {
        val all = files(FOLDER).flatMap { (file, scenarios) -> scenarios.map { file to Scenario(it.jsonObject) } }
        val able = all.filter { (_, scenario) -> BACKEND.can(scenario.requires) }
        assertTrue(able.size > 100) { "there are ${able.size} scenarios" }
        return able.map { (file, scenario) ->
            dynamicTest("$file::${scenario.name}") { runBlocking { play(scenario, "$file-${scenario.name}") } }
        }
    }

    @Test
    fun `the runner knows every step of the schema and no other`() {
        assertEquals(stepsOfSchema(FOLDER), STEPS.keys + setOf("repeat", "parallel"))
    }

    @TestFactory
    fun `wrong scenarios fail`(): List<DynamicTest> = WRONG.map { (name, wrong) ->
        dynamicTest(name) {
            val failed = assertThrows(Failed::class.java) { runBlocking { play(parse(wrong.first), "wrong-$name") } }
            assertTrue(wrong.second in failed.message.orEmpty()) { "it failed with ${failed.message}" }
        }
    }

    private suspend fun play(scenario: Scenario, name: String) = World(scenario, BACKEND.place(name.replace(' ', '-'))).run()

    private fun parse(steps: String) =
        Scenario(Json.parseToJsonElement("""{"name":"x","title":"X.","guarantees":["G1"],"steps":[$steps]}""").jsonObject)
}

private const val OPEN = """{"do":"open","session":"s1","expect":{"gap":false}}"""
private const val SEND = """{"do":"send","to":"s1","payload":"m1","expect":{"accepted":1}}"""

/** What a runner must not let pass: steps, and what it says of them. */
private val WRONG = mapOf(
    "an unknown step" to ("""{"do":"fly"}""" to "does not know fly"),
    "a field that is ignored" to ("""{"do":"kill","node":"a","why":"x"}""" to "why"),
    "another payload" to ("""$OPEN,$SEND,{"do":"read","stream":"s1","expect":["m2"]}""" to "expected \"m2\", got \"m1\""),
    "an event left unread" to ("$OPEN,$SEND" to "unread"),
    "an event that was read, and more" to ("""$OPEN,$SEND,{"do":"idle","stream":"s1"}""" to "not idle"),
    "another receipt" to ("""$OPEN,{"do":"send","to":"s1","payload":"m","expect":{"dropped":1}}""" to "receipt"),
    "an unexpected success" to ("""{"do":"has","session":"s1","expect":{"error":"timeout"}}""" to "expected error timeout"),
    "another error" to ("""{"do":"open","session":"s 1","expect":{"error":"timeout"}}""" to "expected error timeout"),
    "an unexpected error" to ("""{"do":"open","session":"s 1","expect":{"gap":false}}""" to "got error invalid_input"),
    "an end that nobody expects" to ("""$OPEN,{"do":"close","session":"s1","expect":true}""" to "no step expects it"),
    "another end" to
        ("""$OPEN,{"do":"close","session":"s1","expect":true},{"do":"ended","stream":"s1","expect":"gap"}""" to "end: expected"),
    "a name twice" to ("$OPEN,$OPEN" to "is taken"),
)
