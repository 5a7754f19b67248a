// Streams and subscriptions in a scenario's hands, and how they are read.
package dev.mcpsessions.conformance

import dev.mcpsessions.Event
import dev.mcpsessions.EventKind
import dev.mcpsessions.EventStream
import dev.mcpsessions.Subscription
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.add
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonObject

/** What fences begin with; reads pass over them. */
const val FENCE = "\u0001fence-"

/** What is read one by one. */
abstract class Reader<T : Any>(val node: String, private val what: String) {
    /** A step has looked at its end. */
    var endExpected = false

    protected abstract suspend fun take(): T?

    protected abstract fun takeNow(): T?

    protected abstract fun mark(item: T): String?

    abstract fun plain(item: T): JsonElement

    abstract fun end(): String?

    protected abstract suspend fun ended(): String

    abstract fun destroy()

    /** The next item that is not a fence (but for the one waited for), or nothing at the end. */
    suspend fun nextOrEnd(fence: String? = null): T? {
        while (true) {
            val item = within("waited in vain for the $what's next item") { take() }
            if (item == null || !isOtherFence(item, fence)) return item
        }
    }

    suspend fun next(fence: String? = null): T =
        nextOrEnd(fence) ?: throw Failed("the $what has ended (${end() ?: "no reason"})")

    /** What is there now, if anything. */
    fun now(): T? {
        while (true) {
            val item = takeNow() ?: return null
            if (!isOtherFence(item, null)) return item
        }
    }

    fun nothingUnread() {
        now()?.let { throw Failed("unread ${shown(plain(it))}") }
    }

    suspend fun checkEnd(reason: JsonElement) {
        same("end", JsonPrimitive(within("the $what did not end") { ended() }), reason)
        same("end at once", JsonPrimitive(end()), reason)
        endExpected = true
    }

    /** Nothing unexpected is left over: nothing unread, no end. */
    fun checkLeftovers() {
        nothingUnread()
        val end = end()
        if (end != null && end != "replaced" && !endExpected) throw Failed("it ended ($end), and no step expects it")
    }

    private fun isOtherFence(item: T, wanted: String?): Boolean {
        val mark = mark(item) ?: return false
        return mark.startsWith(FENCE) && mark != wanted
    }
}

/** A stream that the scenario opened. */
class Held(node: String, val stream: EventStream) : Reader<Event>(node, "stream") {
    /** The payloads read so far, fences left out. */
    val read = mutableListOf<String>()

    override suspend fun take() = stream.next()

    override fun takeNow() = stream.tryNext()

    override fun mark(item: Event) = item.payload

    override fun plain(item: Event) = buildJsonObject {
        put("payload", item.payload)
        put("kind", kindOf(item))
    }

    override fun end() = stream.endReason()?.name?.lowercase()

    override suspend fun ended() = stream.ended().name.lowercase()

    override fun destroy() = stream.destroy()

    suspend fun readExactly(wanted: JsonArray) {
        for (one in wanted) {
            if (one is JsonObject && "kind" in one) {
                onlyFields("an event", one, setOf("payload", "kind"))
                val event = nextEvent()
                same("event", event.payload, textOf(one, "payload"))
                same("kind", kindOf(event), textOf(one, "kind"))
            } else {
                readTexts(texts(one))
            }
        }
    }

    suspend fun readTexts(wanted: List<String>) = wanted.forEach { same("event", nextEvent().payload, it) }

    suspend fun readInterleaved(sequences: List<List<String>>) {
        val left = sequences.map { ArrayDeque(it) }
        while (left.any { it.isNotEmpty() }) {
            val payload = nextEvent().payload
            val taken = left.find { it.firstOrNull() == payload }
                ?: throw Failed("${shown(payload)} is not next in any of the sequences")
            taken.removeFirst()
        }
    }

    /** Reads to the end of the stream. */
    suspend fun readHead(wanted: List<String>, counts: IntRange) {
        within("the stream did not end") { stream.ended() }
        var taken = 0
        while (true) {
            val event = nextOrEnd() ?: break
            read += event.payload
            same("event", event.payload, wanted.getOrElse(taken) { "nothing more" })
            taken += 1
        }
        checkCount(taken, counts)
    }

    /** Reads until the last of [wanted]: what came must be the end of it, whole. */
    suspend fun readTail(wanted: List<String>, counts: IntRange) {
        if (wanted.isEmpty()) throw Failed("the list is empty")
        val got = mutableListOf<String>()
        while (got.lastOrNull() != wanted.last()) {
            if (got.size > wanted.size) throw Failed("more came than there is")
            got += nextEvent().payload
        }
        val texts = { list: List<String> -> JsonArray(list.map { JsonPrimitive(it) }) }
        same("the end of the list", texts(got), texts(wanted.takeLast(got.size)))
        checkCount(got.size, counts)
    }

    private suspend fun nextEvent(): Event {
        val event = next()
        same("the cursor after the event", stream.cursor(), event.cursor)
        read += event.payload
        return event
    }

    private fun kindOf(event: Event) = if (event.kind == EventKind.BROADCAST) "broadcast" else "directed"
}

/** A subscription that the scenario made. */
class Listening(node: String, val subscription: Subscription, filters: JsonObject) :
    Reader<String>(node, "subscription") {
    /** A notification that it lets through. */
    val fence: JsonObject? = fenceFor(filters)

    override suspend fun take() = subscription.next()

    override fun takeNow() = subscription.tryNext()

    override fun mark(item: String) =
        ((plain(item).jsonObject["params"] as? JsonObject)?.get("fence") as? JsonPrimitive)?.content

    override fun plain(item: String) = Json.parseToJsonElement(item)

    override fun end() = subscription.endReason()?.name?.lowercase()

    override suspend fun ended() = subscription.ended().name.lowercase()

    override fun destroy() = subscription.destroy()

    suspend fun readExactly(wanted: JsonArray) {
        for (one in wanted.flatMap(::notifications)) same("notification", plain(next()), one)
    }
}

private fun fenceFor(filters: JsonObject): JsonObject? {
    val kinds = mapOf(
        "toolsListChanged" to "tools/list_changed",
        "promptsListChanged" to "prompts/list_changed",
        "resourcesListChanged" to "resources/list_changed",
    )
    for ((name, kind) in kinds) if (filters[name] == JsonPrimitive(true)) return fence(kind, null)
    val uri = filters["resourceSubscriptions"]?.let { texts(it) }?.firstOrNull() ?: return null
    return fence("resources/updated", uri)
}

private fun fence(kind: String, uri: String?) = buildJsonObject {
    put("jsonrpc", "2.0")
    put("method", "notifications/$kind")
    putJsonObject("params") { if (uri != null) put("uri", uri) }
}

private fun checkCount(count: Int, counts: IntRange) {
    if (count !in counts) throw Failed("read $count events, expected ${counts.first} to ${counts.last}")
}
