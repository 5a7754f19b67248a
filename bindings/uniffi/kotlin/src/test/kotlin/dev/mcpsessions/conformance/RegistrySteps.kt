// What the steps of the session registry do.
package dev.mcpsessions.conformance

import dev.mcpsessions.Closings
import dev.mcpsessions.RequestGuard
import dev.mcpsessions.SessionFilter
import dev.mcpsessions.SessionRecord
import dev.mcpsessions.SessionRegistry
import dev.mcpsessions.SessionState
import java.time.Duration as JavaDuration
import java.util.concurrent.ConcurrentHashMap
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.long
import kotlinx.serialization.json.put

/** What the steps of a scenario hold of its registry. */
class RegistryHeld {
    val requests = ConcurrentHashMap<String, RequestGuard>()
    val closings = ConcurrentHashMap<String, Closings>()

    /** Every id that was made; none twice. */
    val made: MutableSet<String> = ConcurrentHashMap.newKeySet()

    /** Every closing was read. */
    fun checkLeftovers() {
        for ((name, one) in closings) one.tryNext()?.let { throw Failed("closings $name: unread $it") }
    }

    fun destroy() {
        requests.values.forEach { it.destroy() }
        closings.values.forEach { it.destroy() }
    }
}

private fun World.registry(step: Watched): SessionRegistry = engine(step.textOrNull("node")).registry()

/** A session by its id, or as `$name` by the name it was created under. */
private fun World.sessionOf(step: Watched): String = named(step.text("session"))

private fun deadlineOf(step: Watched) = JavaDuration.ofMillis((step.must("deadlineMs") as JsonPrimitive).long)

fun registrySteps(): Map<String, Step> = mapOf(
    "registry.create" to ::create,
    "registry.get" to { world, step ->
        val registry = world.registry(step)
        val session = world.sessionOf(step)
        val owner = step.textOrNull("owner")
        val trusted = isTrue(step["trusted"])
        checkRecord(world, step.must("expect")) { if (trusted) registry.getTrusted(session) else registry.get(session, owner) }
    },
    "registry.peek" to { world, step ->
        val registry = world.registry(step)
        val session = world.sessionOf(step)
        val expect = step.must("expect")
        val peek = suspend { checkRecord(world, expect) { registry.peek(session) } }
        if (isTrue(step["eventually"])) eventually(peek) else peek()
    },
    "registry.getByOwner" to { world, step ->
        val registry = world.registry(step)
        val owner = step.text("owner")
        checkRecord(world, step.must("expect")) { registry.getByOwner(owner) }
    },
    "registry.has" to { world, step ->
        val registry = world.registry(step)
        val session = world.sessionOf(step)
        checkUntil(isTrue(step["eventually"]), { attempt { JsonPrimitive(registry.has(session)) } }, step.must("expect"))
    },
    "registry.begin" to { world, step ->
        val registry = world.registry(step)
        val session = world.sessionOf(step)
        val name = step.text("as")
        val begun = attempt {
            world.registryHeld.requests[name] = registry.beginRequest(session)
            JsonNull
        }
        done(begun, step["expect"])
    },
    "registry.end" to { world, step -> requestOf(world, step).finish() },
    "registry.drop" to { world, step -> requestOf(world, step).destroy() },
    "registry.adopt" to { world, step ->
        val registry = world.registry(step)
        val session = world.sessionOf(step)
        check(attempt { JsonPrimitive(registry.adopt(session)) }, step.must("expect"))
    },
    "registry.close" to { world, step ->
        val registry = world.registry(step)
        val session = world.sessionOf(step)
        val reason = step.text("reason")
        check(attempt { JsonPrimitive(registry.end(session, reason)) }, step.must("expect"))
    },
    "registry.closeByOwner" to { world, step ->
        val registry = world.registry(step)
        val (owner, reason) = step.text("owner") to step.text("reason")
        check(attempt { JsonPrimitive(registry.endByOwner(owner, reason).toLong()) }, step.must("expect"))
    },
    "registry.list" to ::list,
    "registry.stats" to { world, step ->
        val registry = world.registry(step)
        val expect = step.must("expect").jsonObject
        val check = suspend { checkStats(world, registry, expect) }
        if (isTrue(step["eventually"])) eventually(check) else check()
    },
    "registry.sweep" to { world, step ->
        val registry = world.registry(step)
        check(attempt { JsonPrimitive(registry.sweepStale().toLong()) }, step.must("expect"))
    },
    "registry.follow" to { world, step ->
        world.registryHeld.closings[step.text("as")] = world.registry(step).closings()
    },
    "registry.closings" to ::readClosings,
    "registry.closingsEnd" to { world, step ->
        val closings = followed(world, step)
        within("the closings go on") { closings.next() }?.let { throw Failed("unread $it") }
    },
    "registry.drain" to { world, step ->
        val left = world.registry(step).drain(deadlineOf(step))
        same("requests left", JsonPrimitive(left.toLong()), step.must("expect"))
    },
    "registry.shutdown" to { world, step ->
        val registry = world.registry(step)
        val deadline = deadlineOf(step)
        val report = attempt {
            val report = registry.shutdown(deadline)
            buildJsonObject {
                put("closed", report.closed.toLong())
                put("requestsLeft", report.requestsLeft.toLong())
            }
        }
        check(report, step.must("expect"))
    },
)

private fun requestOf(world: World, step: Watched): RequestGuard {
    val name = step.text("request")
    return world.registryHeld.requests.remove(name) ?: throw Failed("there is no request $name")
}

private fun followed(world: World, step: Watched): Closings {
    val name = step.text("of")
    return world.registryHeld.closings[name] ?: throw Failed("nothing follows as $name")
}

private suspend fun create(world: World, step: Watched) {
    val registry = world.registry(step)
    val pad = (step["pad"] as JsonPrimitive?)?.int
    val written = step["metadata"]
    val metadata = if (pad == null) written else JsonObject(written.orNothing() + ("pad" to JsonPrimitive("x".repeat(pad))))
    val owner = step.textOrNull("owner")
    val session = step.textOrNull("session")
    val name = step.textOrNull("as")
    val created = attempt {
        if (session != null) {
            registry.register(session, owner, metadata?.toString())
        } else {
            val id = registry.create(owner, metadata?.toString())
            checkUnguessable(world, id)
            world.cursors[name ?: throw Failed("a created session needs a name: \"as\"")] = id
        }
        JsonNull
    }
    done(created, step["expect"])
}

private fun JsonElement?.orNothing(): JsonObject = this?.jsonObject ?: JsonObject(emptyMap())

/** At least 128 bits in base64url, and never the same again. */
private fun checkUnguessable(world: World, id: String) {
    if (id.length < 22) throw Failed("$id is too short to be unguessable")
    if (!world.registryHeld.made.add(id)) throw Failed("$id was made twice")
}

/** All pages, in no order; what is accessed meanwhile could come twice, and nothing is. */
private suspend fun list(world: World, step: Watched) {
    val registry = world.registry(step)
    val state = step.textOrNull("state")?.let { SessionState.valueOf(it.uppercase()) }
    val filter = SessionFilter(step.textOrNull("owner"), step.textOrNull("of")?.let(world::nodeId), state)
    val limit = (step["limit"] as JsonPrimitive?)?.int ?: 100
    var after = step.textOrNull("after")
    val expect = step.must("expect")
    val listed = attempt {
        val ids = mutableListOf<String>()
        do {
            val page = registry.list(filter, after, limit.toUInt())
            ids += page.sessions.map { it.id }
            after = page.next
        } while (after != null)
        JsonArray(ids.map { JsonPrimitive(it) })
    }
    checkSet(listed, if (expect is JsonObject && "error" in expect) expect else namedAll(world, expect))
}

private fun namedAll(world: World, written: JsonElement) =
    JsonArray(texts(written).map { JsonPrimitive(world.named(it)) })

private suspend fun checkStats(world: World, registry: SessionRegistry, expect: JsonObject) {
    onlyFields("the registry's stats", expect, setOf("total", "active", "stale", "closing", "byNode"))
    val stats = registry.stats()
    val numbers = mapOf("total" to stats.total, "active" to stats.active, "stale" to stats.stale, "closing" to stats.closing)
    for ((name, count) in numbers) expect[name]?.let { same(name, JsonPrimitive(count.toLong()), it) }
    val byNode = expect["byNode"]?.jsonObject ?: return
    val wanted = byNode.mapKeys { world.nodeId(it.key) }
    same("byNode", JsonObject(stats.byNode.mapValues { JsonPrimitive(it.value.toLong()) }), JsonObject(wanted))
}

private suspend fun readClosings(world: World, step: Watched) {
    val closings = followed(world, step)
    val wanted = (step.must("expect") as JsonArray).map { written ->
        onlyFields("a closing", written.jsonObject, setOf("session", "reason"))
        "${world.named(textOf(written.jsonObject, "session"))} ${textOf(written.jsonObject, "reason")}"
    }
    val got = List(wanted.size) {
        val closing = within("waited in vain for a closing") { closings.next() } ?: throw Failed("the closings ended")
        "${closing.session} ${closing.reason}"
    }
    same("closings", got.sorted().toString(), wanted.sorted().toString())
}

private suspend fun checkRecord(world: World, expect: JsonElement, get: suspend () -> SessionRecord?) {
    var record: SessionRecord? = null
    val got = attempt {
        record = get()
        if (record == null) JsonNull else JsonPrimitive(record.toString())
    }
    if (got.error != null || expect is JsonNull || expect is JsonObject && "error" in expect) return check(got, expect)
    compare(world, record ?: throw Failed("there is no such session"), expect.jsonObject)
}

/** What is not named is not looked at. */
private fun compare(world: World, record: SessionRecord, has: JsonObject) {
    val idleMs = (record.nowMs - record.lastAccessMs).toLong()
    val ageMs = (record.nowMs - record.createdMs).toLong()
    val info = record.info
    for ((field, wanted) in has) {
        when (field) {
            "session" -> same(field, record.id, world.named(text(wanted)))
            "state" -> same(field, record.state.name.lowercase(), text(wanted))
            "node" -> same(field, record.node, world.nodeId(text(wanted)))
            "owned" -> same(field, JsonPrimitive(record.owner != null), wanted)
            "activeRequests" -> same(field, JsonPrimitive(record.activeRequests.toLong()), wanted)
            "reason" -> same(field, record.reason.orEmpty(), text(wanted))
            "metadata" -> same(field, jsonOf(record.metadata), wanted)
            "clientInfo" -> same(field, jsonOf(info?.clientInfo), wanted)
            "protocolVersion" -> same(field, info?.protocolVersion.orEmpty(), text(wanted))
            "idleAtLeastMs" -> if (idleMs < (wanted as JsonPrimitive).long) throw Failed("idle for $idleMs ms only")
            "idleBelowMs" -> if (idleMs >= (wanted as JsonPrimitive).long) throw Failed("idle for $idleMs ms")
            "ageAtLeastMs" -> if (ageMs < (wanted as JsonPrimitive).long) throw Failed("$ageMs ms old only")
            else -> throw Failed("the runner does not know a record's $field")
        }
    }
}

private fun jsonOf(text: String?): JsonElement = text?.let(Json::parseToJsonElement) ?: JsonNull

private fun isTrue(written: JsonElement?) = written != null && (written as JsonPrimitive).boolean
