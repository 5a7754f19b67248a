// Runs one scenario: its nodes, its streams, what it saved, and what each step must give.
package dev.mcpsessions.conformance

import dev.mcpsessions.Engine
import java.time.Duration as JavaDuration
import java.util.concurrent.ConcurrentHashMap
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.coroutineScope
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put

class Node(val engine: Engine) {
    var alive = true
}

/** A step that notes which of its fields were looked at. */
class Watched(val written: JsonObject) {
    private val used = mutableSetOf("do")

    val name: String get() = textOf(written, "do")

    operator fun get(field: String): JsonElement? {
        used += field
        return written[field]
    }

    fun text(field: String): String = text(get(field) ?: throw Failed("missing field `$field`"))

    fun textOrNull(field: String): String? = get(field)?.let(::text)

    fun must(field: String): JsonElement = get(field) ?: throw Failed("missing field `$field`")

    /** A field that a step's code never looked at would be an expectation that nobody checks. */
    fun checkUsed() = onlyFields("step ${shown(written)} that the runner ignores", written, used)
}

/** The nodes, streams and names of one scenario. */
class World(private val scenario: Scenario, val place: Place) {
    val nodes = ConcurrentHashMap<String, Node>()
    val streams = ConcurrentHashMap<String, Held>()
    val subscriptions = ConcurrentHashMap<String, Listening>()
    val cursors = ConcurrentHashMap<String, String>()
    val proxies = ConcurrentHashMap<String, Proxy>()
    val registryHeld = RegistryHeld()
    val eventsHeld = EventsHeld()
    private val names = ConcurrentHashMap.newKeySet<String>()
    private var fences = 0
    private val cutOff = namesOf(scenario.steps, "outage")

    suspend fun run() {
        try {
            for (node in scenario.nodes) start(node, null, null, null)
            run(scenario.steps)
            checkTheEnd()
            shutDown()
        } finally {
            abandon()
        }
    }

    suspend fun start(name: String, options: JsonObject?, url: String?, expect: JsonElement?) {
        if (nodes.containsKey(name)) throw Failed("there is a node $name already")
        val all = JsonObject(scenario.options + options.orEmpty())
        val started = attempt {
            nodes[name] = Node(Engine.connect(url ?: urlOf(name), all.toString()))
            JsonNull
        }
        done(started, expect)
    }

    /** The URL for a node: its own way to the backend, if that is to be cut. */
    private fun urlOf(name: String): String {
        if (name !in cutOff || place.port == null) return place.url
        return place.urlThrough(proxies.getOrPut(name) { Proxy(place.port) }.port)
    }

    /** The name of a step's node: the first one, if it names none. */
    fun nameOf(node: String?): String = node ?: scenario.nodes.firstOrNull() ?: throw Failed("the step names no node")

    fun liveNode(name: String?): Node =
        nodes[nameOf(name)]?.takeIf { it.alive } ?: throw Failed("there is no live node ${nameOf(name)}")

    fun engine(node: String?): Engine = liveNode(node).engine

    fun stream(name: String): Held = streams[name] ?: throw Failed("there is no stream $name")

    fun subscription(name: String): Listening = subscriptions[name] ?: throw Failed("there is no subscription $name")

    fun takeName(name: String) {
        if (!names.add(name)) throw Failed("the name $name is taken: give another with \"as\"")
    }

    /** The cursor that was saved as `$name`. */
    fun saved(reference: String): String =
        cursors[reference.drop(1)] ?: throw Failed("no cursor was saved as ${reference.drop(1)}")

    /** A text, or what was saved under this name. */
    fun named(written: String): String = if (written.startsWith("$")) saved(written) else written

    /** What a node calls itself. */
    fun nodeId(name: String): String = nodes[name]?.engine?.nodeId() ?: throw Failed("there is no node $name")

    /** A payload that no scenario reads. */
    @Synchronized
    fun newFence(): String = "$FENCE${++fences}"

    suspend fun run(steps: List<Located>) {
        for (one in steps) {
            if (one.step != null) runStep(one.at, one.step)
            else coroutineScope { one.branches.map { async { run(it) } }.awaitAll() }
        }
    }

    private suspend fun runStep(at: String, written: JsonObject) {
        val step = Watched(written)
        val waits = if (step.name == "advance" && !place.manualClock) numberOf(written, "ms").milliseconds else 0.seconds
        try {
            val act = STEPS[step.name] ?: throw Failed("the runner does not know ${step.name}")
            within("did not come to an end", PATIENCE * 3 + waits) { act(this, step) }
            step.checkUsed()
        } catch (failed: Failed) {
            throw Failed("step $at ${shown(written, 160)}: ${failed.message}")
        }
    }

    /** Nothing unexpected may be left over: no event, no end. */
    private suspend fun checkTheEnd() {
        catchUp()
        val held = streams.mapKeys { "stream ${it.key}" } + subscriptions.mapKeys { "subscription ${it.key}" }
        for ((name, one) in held) {
            if (nodes[one.node]?.alive == true) atTheEnd(name) { one.checkLeftovers() }
        }
        atTheEnd("registry") { registryHeld.checkLeftovers() }
        atTheEnd("events") { eventsHeld.checkLeftovers() }
    }

    /** What was accepted before is here: a notification is, once it was sent. */
    suspend fun catchUp() {
        val fence = buildJsonObject {
            put("jsonrpc", "2.0")
            put("method", "notifications/fence")
        }
        for (node in nodes.values) {
            val waits = node.alive && !node.engine.isClosed() && "immediate" !in node.engine.capabilities()
            if (waits) node.engine.subscriptions().use { it.send(fence.toString()) }
        }
    }

    /** Every node that is left leaves in order, and holds nothing afterwards (G11). */
    private suspend fun shutDown() {
        for ((name, node) in nodes) {
            if (node.alive) atTheEnd("node $name") { leave(node.engine) }
            node.alive = false
        }
    }

    /** A scenario that failed leaves nothing running. */
    private fun abandon() {
        for (node in nodes.values) if (node.alive) node.engine.abandon()
        for (one in streams.values + subscriptions.values) one.destroy()
        registryHeld.destroy()
        eventsHeld.destroy()
        for (node in nodes.values) node.engine.destroy()
        for (proxy in proxies.values) proxy.close()
    }
}

private suspend fun leave(engine: Engine) {
    within("it did not shut down", PATIENCE * 2) { engine.shutdown(JavaDuration.ofSeconds(10)) }
    val stats = engine.stats()
    same("streams after the shutdown", JsonPrimitive(stats.streams.toLong()), JsonPrimitive(0))
    same("subscriptions after the shutdown", JsonPrimitive(stats.subscriptions.toLong()), JsonPrimitive(0))
}

private suspend fun atTheEnd(what: String, check: suspend () -> Unit) {
    try {
        check()
    } catch (failed: Failed) {
        throw Failed("at the end, $what: ${failed.message}")
    }
}

/** The nodes that steps of this kind name. */
private fun namesOf(steps: List<Located>, kind: String): Set<String> =
    steps.flatMap { one ->
        one.branches.flatMap { namesOf(it, kind) } +
            listOfNotNull(one.step?.takeIf { textOf(it, "do") == kind }?.let { textOf(it, "node") })
    }.toSet()
