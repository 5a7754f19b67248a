// What the steps of the event log do.
package dev.mcpsessions.conformance

import dev.mcpsessions.EventLog
import dev.mcpsessions.EventTail
import dev.mcpsessions.Replay
import dev.mcpsessions.SessionsException
import dev.mcpsessions.code
import java.util.concurrent.ConcurrentHashMap
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put

private const val MAX_ID_LENGTH = 512

/** What the steps of a scenario hold of event logs. */
class EventsHeld {
    val tails = ConcurrentHashMap<String, EventTail>()

    /** Every id that was given for an append; none twice. */
    val ids: MutableSet<String> = ConcurrentHashMap.newKeySet()

    /** Nothing is left unread, and no tail ended unnoticed. */
    fun checkLeftovers() {
        for ((name, tail) in tails) {
            tail.tryNext()?.let { throw Failed("tail $name: unread $it") }
            tail.endReason()?.let { throw Failed("tail $name: it ended ($it), and no step expects it") }
        }
    }

    fun destroy() = tails.values.forEach { it.destroy() }
}

private fun World.log(step: Watched): EventLog = engine(step.textOrNull("node")).events(named(step.text("scope")))

private fun tailOf(world: World, name: String): EventTail =
    world.eventsHeld.tails[name] ?: throw Failed("there is no tail $name")

/** A tail under the name of its step. */
private suspend fun held(world: World, step: Watched, open: suspend () -> EventTail) {
    val name = step.text("as")
    world.takeName(name)
    val opened = attempt {
        val tail = open()
        world.eventsHeld.tails[name] = tail
        buildJsonObject { put("gap", tail.gap()) }
    }
    check(opened, step.must("expect"))
}

fun eventSteps(): Map<String, Step> = mapOf(
    "events.append" to { world, step ->
        val log = world.log(step)
        val stream = step.text("stream")
        val save = step.textOrNull("save")
        val expect = step["expect"]
        for (payload in texts(step.must("payload"))) {
            done(attempt { kept(world, log.append(stream, payload), save) }, expect)
        }
    },
    "events.prime" to { world, step -> kept(world, world.log(step).prime(step.text("stream")), step.text("save")) },
    "events.end" to { world, step -> kept(world, world.log(step).end(step.text("stream")), null) },
    "events.streamOf" to { world, step ->
        val log = world.log(step)
        val id = cursorOf(world, step.must("id"))
        check(attempt { buildJsonObject { put("value", log.streamOf(id)) } }, step.must("expect"))
    },
    "events.replay" to { world, step ->
        val log = world.log(step)
        val after = cursorOf(world, step.must("after"))
        checkReplay(step.must("expect")) { log.replay(after) }
    },
    "events.read" to { world, step ->
        val log = world.log(step)
        val stream = step.text("stream")
        checkReplay(step.must("expect")) { log.read(stream) }
    },
    "events.tail" to { world, step ->
        val log = world.log(step)
        val after = cursorOf(world, step.must("after"))
        held(world, step) { log.tail(after) }
    },
    "events.follow" to { world, step ->
        val log = world.log(step)
        val stream = step.text("stream")
        held(world, step) { log.follow(stream) }
    },
    "events.next" to { world, step ->
        val tail = tailOf(world, step.text("tail"))
        val save = step.textOrNull("save")
        for (wanted in texts(step.must("expect"))) {
            val event = within("waited in vain for an event") { tail.next() } ?: throw Failed("the tail has ended")
            same("event", event.payload, wanted)
            if (save != null) world.cursors[save] = event.id
        }
    },
    "events.ended" to { world, step ->
        val name = step.text("tail")
        val tail = tailOf(world, name)
        within("the tail goes on") { tail.next() }?.let { throw Failed("unread $it") }
        world.eventsHeld.tails.remove(name)
        same("end", tail.endReason()?.name?.lowercase(), step.text("expect"))
    },
    "events.close" to { world, step ->
        val name = step.text("tail")
        tailOf(world, name).stop()
        world.eventsHeld.tails.remove(name)
    },
    "events.forget" to { world, step ->
        val log = world.log(step)
        val stream = step.text("stream")
        check(attempt { JsonPrimitive(log.forget(stream)) }, step.must("expect"))
    },
    "events.forgetAll" to { world, step ->
        val log = world.log(step)
        check(attempt { JsonPrimitive(log.forgetAll().toLong()) }, step.must("expect"))
    },
    "events.forgeries" to { world, step ->
        val log = world.log(step)
        for (forged in editsOf(world.saved(step.text("id")))) {
            try {
                throw Failed("${shown(forged)} was taken for an event id: ${log.replay(forged)}")
            } catch (error: SessionsException) {
                if (error.code != "invalid_input") throw Failed("${shown(forged)}: $error")
            }
        }
    },
)

/** Ids are URL-safe, short enough and never the same again. */
private fun kept(world: World, id: String, save: String?): JsonElement {
    if (!Regex("[A-Za-z0-9_-]{1,$MAX_ID_LENGTH}").matches(id)) throw Failed("$id is no event id")
    if (!world.eventsHeld.ids.add(id)) throw Failed("$id was given twice")
    if (save != null) world.cursors[save] = id
    return JsonNull
}

private suspend fun checkReplay(expect: JsonElement, read: suspend () -> Replay) {
    var replay: Replay? = null
    val got = attempt {
        replay = read()
        JsonPrimitive(replay.toString())
    }
    if (got.error != null || "error" in (expect as JsonObject)) return check(got, expect)
    val read = replay ?: throw Failed("there is no replay")
    onlyFields("a replay", expect, setOf("events", "gap", "ended", "stream"))
    val payloads = { list: List<String> -> JsonArray(list.map { JsonPrimitive(it) }) }
    same("events", payloads(read.events.map { it.payload }), payloads(texts(expect.getValue("events"))))
    same("gap", JsonPrimitive(read.gap), expect.getValue("gap"))
    same("ended", JsonPrimitive(read.ended), expect["ended"] ?: JsonPrimitive(false))
    expect["stream"]?.let { same("stream", read.stream, text(it)) }
}
