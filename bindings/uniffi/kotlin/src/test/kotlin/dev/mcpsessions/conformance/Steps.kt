// What each step does; `tests/conformance/README.md` says it in words.
package dev.mcpsessions.conformance

import dev.mcpsessions.Conflict
import dev.mcpsessions.Engine
import dev.mcpsessions.InfoManager
import dev.mcpsessions.InfoPatch
import dev.mcpsessions.LogLevel
import dev.mcpsessions.OpenOptions
import dev.mcpsessions.RequestId
import dev.mcpsessions.SessionInfo
import dev.mcpsessions.SessionsException
import dev.mcpsessions.StreamManager
import dev.mcpsessions.SubscriptionFilter
import dev.mcpsessions.code
import java.time.Duration as JavaDuration
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.long
import kotlinx.serialization.json.put

typealias Step = suspend (World, Watched) -> Unit

/** Every step, by its name. */
val STEPS: Map<String, Step> = nodeSteps() + streamSteps() + infoSteps() + subscriptionSteps() + registrySteps() + eventSteps()

private val NOTHING: JsonElement = JsonNull

private fun World.streams(step: Watched): StreamManager = engine(step.textOrNull("node")).streams()

private fun World.info(step: Watched): InfoManager = engine(step.textOrNull("node")).info()

private fun isTrue(written: JsonElement?) = written != null && (written as JsonPrimitive).boolean

// --- nodes: they come, go and die, and time passes

private fun nodeSteps(): Map<String, Step> = mapOf(
    "start" to { world, step ->
        world.start(step.text("node"), step["options"]?.jsonObject, step.textOrNull("url"), step["expect"])
    },
    "shutdown" to { world, step ->
        val deadline = step["deadlineMs"]?.let { JavaDuration.ofMillis((it as JsonPrimitive).long) }
        val engine = world.engine(step.textOrNull("node"))
        done(attempt { engine.shutdown(deadline); NOTHING }, step["expect"])
    },
    "kill" to { world, step ->
        val killed = world.liveNode(step.text("node"))
        killed.engine.abandon()
        killed.alive = false
    },
    "outage" to { world, step ->
        val node = step.text("node")
        world.proxies[node]?.cut() ?: world.engine(node).setOutage(true)
    },
    "restore" to { world, step ->
        val node = step.text("node")
        world.proxies[node]?.restore() ?: world.engine(node).setOutage(false)
        eventually { if (!world.engine(node).health().ready) throw Failed("node $node is not ready again") }
    },
    "advance" to { world, step ->
        val ms = numberOf(step.written, "ms").also { step["ms"] }.milliseconds
        if (!world.place.manualClock) {
            delay(ms)
        } else {
            val node = world.nodes.values.find { it.alive } ?: throw Failed("there is no node to move time with")
            node.engine.advanceClock(JavaDuration.ofMillis(ms.inWholeMilliseconds))
        }
    },
    "health" to { world, step ->
        val ready = world.engine(step.textOrNull("node")).health().ready
        same("result", buildJsonObject { put("ready", ready) }, step.must("expect"))
    },
    "stats" to { world, step ->
        val stats = statsOf(world.engine(step.textOrNull("node")))
        for ((name, count) in step.must("expect").jsonObject) {
            same(name, JsonPrimitive(stats[name] ?: throw Failed("$name is not counted")), count)
        }
    },
)

private fun statsOf(engine: Engine): Map<String, Long> = with(engine.stats()) {
    mapOf(
        "streams" to streams, "subscriptions" to subscriptions, "accepted" to accepted, "dropped" to dropped,
        "duplicates" to duplicates, "opened" to opened, "gaps" to gaps, "replaced" to replaced,
        "overflows" to overflows, "fenced" to fenced, "repairs" to repairs,
        "subscriptionOverflows" to subscriptionOverflows,
    ).mapValues { it.value.toLong() }
}

// --- streams: they open, get events and end

private fun streamSteps(): Map<String, Step> = mapOf(
    "open" to ::open,
    "send" to ::send,
    "read" to { world, step ->
        val held = world.stream(step.text("stream"))
        readWhat(world, held, step.must("expect"))
        step.textOrNull("save")?.let { world.cursors[it] = held.stream.cursor() }
    },
    "idle" to ::idle,
    "silent" to { world, step ->
        val held = world.stream(step.text("stream"))
        held.nothingUnread()
        same("end", held.end(), null)
    },
    "ended" to { world, step ->
        val held = world.stream(step.text("stream"))
        held.checkEnd(step.must("expect"))
        held.nothingUnread()
        held.nextOrEnd()?.let { throw Failed("gave ${shown(held.plain(it))} after its end") }
    },
    "survivor" to ::survivor,
    "release" to { world, step ->
        val held = world.stream(step.text("stream"))
        held.stream.stop()
        held.endExpected = true
    },
    "drop" to { world, step ->
        val held = world.streams.remove(step.text("stream")) ?: throw Failed("there is no such stream")
        drop(world, held) { it.stats().streams }
    },
    "forgeries" to ::forgeries,
    "has" to { world, step ->
        val session = step.text("session")
        val streams = world.streams(step)
        checkUntil(isTrue(step["eventually"]), { attempt { JsonPrimitive(streams.has(session)) } }, step.must("expect"))
    },
    "known" to asked { streams, session -> streams.known(session) },
    "close" to asked { streams, session -> streams.end(session) },
    "forget" to asked { streams, session -> streams.forget(session) },
)

private fun asked(ask: suspend (StreamManager, String) -> Boolean): Step = { world, step ->
    val session = step.text("session")
    val streams = world.streams(step)
    check(attempt { JsonPrimitive(ask(streams, session)) }, step.must("expect"))
}

/** Lets go of what it reads without a word, and waits until it was given back. */
private suspend fun drop(world: World, held: Reader<*>, count: (Engine) -> ULong) {
    val node = world.nodes[held.node]?.takeIf { it.alive && held.end() == null }
    val before = node?.let { count(it.engine) }
    held.destroy()
    if (before != null) eventually { if (count(node.engine) >= before) throw Failed("it was not given back") }
}

private suspend fun open(world: World, step: Watched) {
    val session = step.text("session")
    val name = step.textOrNull("as") ?: session
    world.takeName(name)
    val conflict = step.textOrNull("conflict")?.let { Conflict.valueOf(it.uppercase()) }
    val options = OpenOptions(step["after"]?.let { cursorOf(world, it) }, conflict)
    val streams = world.streams(step)
    val opened = attempt {
        val stream = streams.open(session, options)
        world.streams[name] = Held(world.nameOf(step.textOrNull("node")), stream)
        buildJsonObject { put("gap", stream.gap()) }
    }
    val save = step.textOrNull("save")
    check(opened, step.must("expect"))
    if (opened.error == null && save != null) world.cursors[save] = world.stream(name).stream.cursor()
}

private suspend fun send(world: World, step: Watched) {
    val streams = world.streams(step)
    val to = step.must("to")
    val key = step.textOrNull("key")
    val sendOne: suspend (String) -> Outcome = { payload ->
        attempt {
            receiptOf(
                when {
                    to is JsonObject && "all" in to -> streams.broadcast(payload, key)
                    isText(to) -> streams.send(text(to), payload, key)
                    else -> streams.sendToEach(texts(to), payload, key)
                },
            )
        }
    }
    val payloads = texts(step.must("payload"))
    val expect = step.must("expect")
    if (isTrue(step["pipelined"])) {
        // Undispatched up to their first suspension: they are issued in this order.
        val receipts = coroutineScope {
            payloads.map { async(start = kotlinx.coroutines.CoroutineStart.UNDISPATCHED) { sendOne(it) } }.awaitAll()
        }
        receipts.forEach { checkSend(it, expect) }
    } else {
        payloads.forEach { checkSend(sendOne(it), expect) }
    }
}

private suspend fun readWhat(world: World, held: Held, expect: JsonElement) {
    if (expect is JsonArray) return held.readExactly(expect)
    expect as JsonObject
    val known = setOf("interleaved", "headOf", "tailOf", "atLeast", "atMost", "restOf", "after", "sameAs")
    onlyFields("what is read", expect, known)
    val counts = { numberOf(expect, "atLeast")..numberOf(expect, "atMost") }
    when {
        "interleaved" in expect -> held.readInterleaved((expect.getValue("interleaved") as JsonArray).map(::texts))
        "headOf" in expect -> held.readHead(texts(expect.getValue("headOf")), counts())
        "tailOf" in expect -> held.readTail(texts(expect.getValue("tailOf")), counts())
        "sameAs" in expect -> held.readTexts(world.stream(textOf(expect, "sameAs")).read.toList())
        else -> {
            val before = world.stream(textOf(expect, "after")).read
            val everything = texts(expect.getValue("restOf"))
            if (everything.take(before.size) != before) throw Failed("the other stream read something else")
            held.readTexts(everything.drop(before.size))
        }
    }
}

/** Sends a fence after everything that was accepted: it must be the next thing the stream gives. */
private suspend fun idle(world: World, step: Watched) {
    val held = world.stream(step.text("stream"))
    val payload = world.newFence()
    val streams = world.engine(step.textOrNull("node") ?: held.node).streams()
    val isBroadcast = step.textOrNull("fence") == "broadcast"
    val sent = attempt {
        receiptOf(if (isBroadcast) streams.broadcast(payload) else streams.send(held.stream.session(), payload))
    }
    checkSend(sent, buildJsonObject { put("accepted", 1) })
    val event = held.next(payload)
    if (event.payload != payload) throw Failed("not idle: gave ${shown(event.payload)}")
}

private suspend fun survivor(world: World, step: Watched) {
    val name = step.text("as")
    world.takeName(name)
    val everyone = strings(step.must("among")).map { world.stream(it) }
    val live = { everyone.filter { it.end() == null } }
    eventually { if (live().size > 1) throw Failed("several are live") }
    world.catchUp()
    val left = live().singleOrNull() ?: throw Failed("none is live")
    for (held in everyone - left) held.checkEnd(step.must("expect"))
    world.streams[name] = left
}

/** Every edit of a cursor is refused, or a gap that shows nothing but the session's own events. */
private suspend fun forgeries(world: World, step: Watched) {
    val session = step.text("session")
    val allowed = texts(step.must("allowed"))
    val streams = world.streams(step)
    for (forged in editsOf(world.saved(step.text("cursor")))) {
        val stream = try {
            streams.open(session, OpenOptions(forged))
        } catch (error: SessionsException) {
            if (error.code == "invalid_input") continue
            throw Failed("${shown(forged)}: $error")
        }
        if (!stream.gap()) throw Failed("${shown(forged)} was taken for a cursor")
        generateSequence { stream.tryNext() }.forEach {
            if (it.payload !in allowed) throw Failed("${shown(forged)} gave ${shown(it.payload)}")
        }
        stream.stop()
        stream.destroy()
    }
}

private const val CURSOR_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

fun editsOf(cursor: String): List<String> =
    cursor.indices.map { flipped(cursor, it) } +
        cursor.indices.map { cursor.take(it) } +
        listOf("A", "AAAA", "=", " ", "\n").map { cursor + it }

private fun flipped(cursor: String, at: Int): String {
    if (at >= cursor.length) return cursor
    val other = CURSOR_ALPHABET[(CURSOR_ALPHABET.indexOf(cursor[at]).coerceAtLeast(0) + 1) % CURSOR_ALPHABET.length]
    return cursor.replaceRange(at, at + 1, "$other")
}

/** The cursor an open resumes after: a saved one, one that was tampered with, or any text. */
suspend fun cursorOf(world: World, after: JsonElement): String {
    if (isText(after)) return text(after).let { if (it.startsWith("$")) world.saved(it) else it }
    after as JsonObject
    onlyFields("the cursor", after, setOf("truncate", "by", "flip", "byte", "extend", "with", "foreign"))
    return when {
        "truncate" in after -> world.saved(textOf(after, "truncate")).dropLast(numberOf(after, "by"))
        "flip" in after -> flipped(world.saved(textOf(after, "flip")), numberOf(after, "byte"))
        "extend" in after -> world.saved(textOf(after, "extend")) + textOf(after, "with")
        else -> foreignCursor(world.place.foreignUrl, textOf(after, "foreign"))
    }
}

/** A cursor for the session of that name from another deployment, three events in. */
private suspend fun foreignCursor(url: String, session: String): String {
    val engine = Engine.connect(url)
    val streams = engine.streams()
    val stream = streams.open(session)
    repeat(3) {
        streams.send(session, "foreign-$it")
        stream.next()
    }
    val cursor = stream.cursor()
    engine.shutdown()
    stream.destroy()
    engine.destroy()
    return cursor
}

// --- what clients said

private fun infoSteps(): Map<String, Step> = mapOf(
    "info.set" to { world, step ->
        val session = step.text("session")
        val pad = step["pad"]?.let { numberOf(step.written, "pad") }
        val value = step.must("value")
        val padded = if (pad == null) value else JsonObject(value.jsonObject + ("pad" to JsonPrimitive("x".repeat(pad))))
        val field = step.text("field")
        val info = world.info(step)
        done(attempt { info.put(session, patchOf(JsonObject(mapOf(field to padded)))); NOTHING }, step["expect"])
    },
    "info.get" to { world, step ->
        val session = step.text("session")
        val field = step.text("field")
        val info = world.info(step)
        val get = suspend { attempt { JsonObject(mapOf("value" to fieldOf(info, session, field))) } }
        checkUntil(isTrue(step["eventually"]), get, step.must("expect"))
    },
    "info.put" to { world, step ->
        val session = step.text("session")
        val patch = step.must("patch").jsonObject
        val info = world.info(step)
        done(attempt { info.put(session, patchOf(patch)); NOTHING }, step["expect"])
    },
    "info.record" to { world, step ->
        val session = step.text("session")
        val info = world.info(step)
        val got = attempt { JsonObject(mapOf("value" to (info.get(session)?.let(::recordOf) ?: JsonNull))) }
        check(got, step.must("expect"))
    },
    "info.addSubscription" to { world, step ->
        val (session, uri) = step.text("session") to step.text("uri")
        val info = world.info(step)
        done(attempt { JsonPrimitive(info.addSubscription(session, uri)) }, step["expect"])
    },
    "info.removeSubscription" to { world, step ->
        val (session, uri) = step.text("session") to step.text("uri")
        val info = world.info(step)
        done(attempt { JsonPrimitive(info.removeSubscription(session, uri)) }, step["expect"])
    },
    "info.getSubscriptions" to { world, step ->
        val uri = step.text("uri")
        val info = world.info(step)
        checkSet(attempt { jsonOf(info.subscribers(uri)) }, step.must("expect"))
    },
    "info.getSessionSubscriptions" to { world, step ->
        val session = step.text("session")
        val info = world.info(step)
        checkSet(attempt { jsonOf(info.subscriptions(session)) }, step.must("expect"))
    },
    "info.delete" to { world, step ->
        val session = step.text("session")
        val info = world.info(step)
        check(attempt { JsonPrimitive(info.delete(session)) }, step.must("expect"))
    },
)

private fun jsonOf(list: List<String>) = JsonArray(list.map { JsonPrimitive(it) })

private fun patchOf(fields: JsonObject): InfoPatch {
    onlyFields("info", fields, setOf("clientInfo", "clientCapabilities", "logLevel", "protocolVersion", "initializeParams"))
    return InfoPatch(
        clientInfo = fields["clientInfo"]?.toString(),
        clientCapabilities = fields["clientCapabilities"]?.toString(),
        logLevel = fields["logLevel"]?.let { levelOf(text(it)) },
        protocolVersion = fields["protocolVersion"]?.let { text(it) },
        initializeParams = fields["initializeParams"]?.toString(),
    )
}

/** Kotlin has no other levels: what is none is refused before it reaches the engine. */
private fun levelOf(name: String): LogLevel =
    LogLevel.entries.find { it.name.lowercase() == name }
        ?: throw SessionsException.InvalidInput("log level", "a log level is one of ${LogLevel.entries}", false, false)

private suspend fun fieldOf(info: InfoManager, session: String, field: String): JsonElement = when (field) {
    "clientInfo" -> Json.parseToJsonElement(info.clientInfo(session))
    "clientCapabilities" -> Json.parseToJsonElement(info.clientCapabilities(session))
    "logLevel" -> JsonPrimitive(info.logLevel(session).name.lowercase())
    "protocolVersion" -> JsonPrimitive(info.protocolVersion(session))
    "initializeParams" -> Json.parseToJsonElement(info.initializeParams(session))
    else -> throw Failed("the runner does not know the field $field")
}

private fun recordOf(info: SessionInfo) = buildJsonObject {
    info.clientInfo?.let { put("clientInfo", Json.parseToJsonElement(it)) }
    info.clientCapabilities?.let { put("clientCapabilities", Json.parseToJsonElement(it)) }
    info.logLevel?.let { put("logLevel", it.name.lowercase()) }
    info.protocolVersion?.let { put("protocolVersion", it) }
    info.initializeParams?.let { put("initializeParams", Json.parseToJsonElement(it)) }
}

// --- subscriptions of the modern era

private fun subscriptionSteps(): Map<String, Step> = mapOf(
    "subscription.listen" to { world, step ->
        val name = step.text("as")
        world.takeName(name)
        val filters = step.must("filters").jsonObject
        val subscriptions = world.engine(step.textOrNull("node")).subscriptions()
        val node = world.nameOf(step.textOrNull("node"))
        val id = idOf(step.must("id"))
        val origin = step.text("origin")
        val created = attempt {
            val subscription = subscriptions.create(id, origin, filterOf(filters))
            if (subscription != null) world.subscriptions[name] = Listening(node, subscription, filters)
            JsonPrimitive(subscription != null)
        }
        check(created, step.must("expect"))
    },
    "subscription.acknowledge" to { world, step ->
        world.subscription(step.text("subscription")).subscription.acknowledge()
    },
    "subscription.waiting" to { world, step ->
        world.subscription(step.text("subscription")).now()?.let { throw Failed("got $it before the acknowledgement") }
    },
    "subscription.notify" to { world, step ->
        val pad = step["pad"]?.let { numberOf(step.written, "pad") }
        val subscriptions = world.engine(step.textOrNull("node")).subscriptions()
        val expect = step["expect"]
        for (one in notifications(step.must("notification"))) {
            val padded = if (pad == null) one else withParam(one.jsonObject, "pad", JsonPrimitive("x".repeat(pad)))
            done(attempt { subscriptions.send(padded.toString()); NOTHING }, expect)
        }
    },
    "subscription.read" to { world, step ->
        world.subscription(step.text("subscription")).readExactly(step.must("expect") as JsonArray)
    },
    "subscription.idle" to { world, step ->
        val listening = world.subscription(step.text("subscription"))
        val subscriptions = world.engine(step.textOrNull("node") ?: listening.node).subscriptions()
        val fence = listening.fence
        // Where nothing can be sent that it must get, that nothing is there has to do.
        if (fence == null) {
            listening.nothingUnread()
        } else {
            val mark = world.newFence()
            val marked = withParam(fence, "fence", JsonPrimitive(mark))
            subscriptions.send(marked.toString())
            same("notification", listening.plain(listening.next(mark)), marked)
        }
    },
    "subscription.ended" to { world, step ->
        val listening = world.subscription(step.text("subscription"))
        listening.checkEnd(step.must("expect"))
        listening.nextOrEnd()?.let { throw Failed("gave ${shown(it)} after its end") }
    },
    "subscription.drop" to { world, step ->
        val listening = world.subscriptions.remove(step.text("subscription")) ?: throw Failed("there is no such subscription")
        drop(world, listening) { it.stats().subscriptions }
    },
    "subscription.close" to { world, step ->
        val subscriptions = world.engine(step.textOrNull("node")).subscriptions()
        val cancelled = isCancelled(step)
        val closed = subscriptions.end(idOf(step.must("id")), step.text("origin"), cancelled)
        same("closed", JsonPrimitive(closed), step.must("expect"))
    },
    "subscription.closeAll" to { world, step ->
        val subscriptions = world.engine(step.textOrNull("node")).subscriptions()
        val closed = subscriptions.endAll(step.textOrNull("origin"), isCancelled(step))
        same("closed", JsonPrimitive(closed.toLong()), step.must("expect"))
    },
)

private fun isCancelled(step: Watched): Boolean = when (val reason = step.textOrNull("reason")) {
    null, "cancelled" -> true
    "closed" -> false
    else -> throw Failed("the runner does not know the reason $reason")
}

private fun idOf(written: JsonElement): RequestId {
    val primitive = written as JsonPrimitive
    return if (primitive.isString) RequestId.Text(primitive.content) else RequestId.Number(primitive.long)
}

private fun filterOf(written: JsonObject): SubscriptionFilter {
    val known = setOf("toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions")
    onlyFields("a filter", written, known)
    return SubscriptionFilter(
        toolsListChanged = isTrue(written["toolsListChanged"]),
        promptsListChanged = isTrue(written["promptsListChanged"]),
        resourcesListChanged = isTrue(written["resourcesListChanged"]),
        resourceSubscriptions = written["resourceSubscriptions"]?.let(::texts).orEmpty(),
    )
}
