// Compares what came with what was expected; every difference is told in words.
package dev.mcpsessions.conformance

import dev.mcpsessions.Receipt
import dev.mcpsessions.SessionsException
import dev.mcpsessions.code
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlin.time.TimeSource
import kotlinx.coroutines.TimeoutCancellationException
import kotlinx.coroutines.delay
import kotlinx.coroutines.withTimeout
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.add
import kotlinx.serialization.json.booleanOrNull
import kotlinx.serialization.json.buildJsonArray
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.double
import kotlinx.serialization.json.put

/** How long anything expected may take to happen. */
val PATIENCE = 10.seconds

/** A result that is not the expected one. */
class Failed(message: String) : AssertionError(message)

/** What a call came to: a value, or an error of the engine's. */
class Outcome(val value: JsonElement = JsonNull, val error: SessionsException? = null)

/** Runs a call. An error that is not the engine's own is nobody's expectation. */
suspend fun attempt(work: suspend () -> JsonElement): Outcome =
    try {
        Outcome(work())
    } catch (error: SessionsException) {
        Outcome(error = error)
    }

fun shown(value: JsonElement, most: Int = 200): String = shown(value.toString(), most)

fun shown(text: String, most: Int = 200): String =
    if (text.length <= most) text else "${text.take(most)}… (${text.length} characters)"

/** As JSON is: 1 is 1.0, and not "1". */
fun equal(one: JsonElement, other: JsonElement): Boolean = when {
    one is JsonObject && other is JsonObject ->
        one.keys == other.keys && one.all { (name, value) -> equal(value, other.getValue(name)) }
    one is JsonArray && other is JsonArray -> one.size == other.size && one.zip(other).all { (a, b) -> equal(a, b) }
    one is JsonPrimitive && other is JsonPrimitive -> when {
        one is JsonNull || other is JsonNull || one.isString || other.isString -> one == other
        one.booleanOrNull != null || other.booleanOrNull != null -> one.content == other.content
        else -> one.double == other.double
    }
    else -> false
}

fun same(what: String, got: JsonElement, wanted: JsonElement) {
    if (!equal(got, wanted)) throw Failed("$what: expected ${shown(wanted, 400)}, got ${shown(got, 400)}")
}

fun same(what: String, got: String?, wanted: String?) = same(what, JsonPrimitive(got), JsonPrimitive(wanted))

/** A value, or the error that is expected in its place. */
fun check(got: Outcome, wanted: JsonElement) {
    when {
        isFailure(wanted) -> checkFailure(got, wanted as JsonObject)
        got.error != null -> throw Failed("expected ${shown(wanted)}, got error ${told(got.error)}")
        else -> same("result", got.value, wanted)
    }
}

/** A step without a result, which succeeds unless it expects an error. */
fun done(got: Outcome, wanted: JsonElement?) {
    if (wanted != null) checkFailure(got, wanted as JsonObject)
    else got.error?.let { throw Failed("unexpected error ${told(it)}") }
}

fun checkSend(got: Outcome, wanted: JsonElement) {
    if (isFailure(wanted)) return checkFailure(got, wanted as JsonObject)
    got.error?.let { throw Failed("unexpected error ${told(it)}") }
    val anyOf = (wanted as JsonObject)["anyOf"] ?: return same("receipt", got.value, wholeReceipt(wanted))
    if ((anyOf as JsonArray).none { equal(got.value, wholeReceipt(it as JsonObject)) }) {
        throw Failed("expected any of ${shown(anyOf)}, got ${shown(got.value)}")
    }
}

fun receiptOf(receipt: Receipt): JsonObject = buildJsonObject {
    put("accepted", receipt.accepted.toLong())
    put("dropped", receipt.dropped.toLong())
    put("duplicates", receipt.duplicates.toLong())
}

private val NO_RECEIPT = mapOf("accepted" to JsonPrimitive(0), "dropped" to JsonPrimitive(0), "duplicates" to JsonPrimitive(0))

private fun wholeReceipt(written: JsonObject) = JsonObject(NO_RECEIPT + written)

/** Compares lists whose order means nothing, duplicates included. */
fun checkSet(got: Outcome, wanted: JsonElement) {
    if (isFailure(wanted) || got.error != null) return check(got, wanted)
    val sorted = { list: List<String> -> buildJsonArray { list.sorted().forEach { add(it) } } }
    same("result", sorted((got.value as JsonArray).map { (it as JsonPrimitive).content }), sorted(texts(wanted)))
}

/** Checks once, or, where others only have to get there, until it holds. */
suspend fun checkUntil(until: Boolean, get: suspend () -> Outcome, wanted: JsonElement) {
    if (until) eventually { check(get(), wanted) } else check(get(), wanted)
}

/** For what nobody tells: tries until [test] does not fail. */
suspend fun <T> eventually(test: suspend () -> T): T {
    val begun = TimeSource.Monotonic.markNow()
    while (true) {
        try {
            return test()
        } catch (failed: Failed) {
            if (begun.elapsedNow() > PATIENCE) throw failed
        }
        delay(5.milliseconds)
    }
}

/** What [work] comes to, or a failure that says what did not happen in time. */
suspend fun <T> within(problem: String, patience: Duration = PATIENCE, work: suspend () -> T): T =
    try {
        withTimeout(patience) { work() }
    } catch (late: TimeoutCancellationException) {
        throw Failed(problem)
    }

private fun isFailure(wanted: JsonElement) = wanted is JsonObject && "error" in wanted

private fun checkFailure(got: Outcome, wanted: JsonObject) {
    onlyFields("the expected error", wanted, setOf("error", "message", "messageLacks", "retryable", "outcomeUnknown"))
    val code = textOf(wanted, "error")
    val error = got.error ?: throw Failed("expected error $code, but it gave ${shown(got.value)}")
    if (error.code != code) throw Failed("expected error $code, got error ${told(error)}")
    val facts = factsOf(error)
    if (facts.operation.isEmpty()) throw Failed("the error names no operation")
    wanted["message"]?.let { same("message", JsonPrimitive(facts.reason), it) }
    wanted["retryable"]?.let { same("retryable", JsonPrimitive(facts.retryable), it) }
    wanted["outcomeUnknown"]?.let { same("outcomeUnknown", JsonPrimitive(facts.outcomeUnknown), it) }
    if ("messageLacks" in wanted && textOf(wanted, "messageLacks") in "$error ${error.message}") {
        throw Failed("the message says too much: $error")
    }
}

class Facts(val operation: String, val reason: String, val retryable: Boolean, val outcomeUnknown: Boolean)

/** What every variant has. */
fun factsOf(error: SessionsException): Facts = when (error) {
    is SessionsException.InvalidInput -> Facts(error.operation, error.reason, error.retryable, error.outcomeUnknown)
    is SessionsException.NotFound -> Facts(error.operation, error.reason, error.retryable, error.outcomeUnknown)
    is SessionsException.Conflict -> Facts(error.operation, error.reason, error.retryable, error.outcomeUnknown)
    is SessionsException.TooLarge -> Facts(error.operation, error.reason, error.retryable, error.outcomeUnknown)
    is SessionsException.Unauthorized -> Facts(error.operation, error.reason, error.retryable, error.outcomeUnknown)
    is SessionsException.Unavailable -> Facts(error.operation, error.reason, error.retryable, error.outcomeUnknown)
    is SessionsException.Timeout -> Facts(error.operation, error.reason, error.retryable, error.outcomeUnknown)
    is SessionsException.Closed -> Facts(error.operation, error.reason, error.retryable, error.outcomeUnknown)
    is SessionsException.Corrupt -> Facts(error.operation, error.reason, error.retryable, error.outcomeUnknown)
    is SessionsException.Config -> Facts(error.operation, error.reason, error.retryable, error.outcomeUnknown)
}

private fun told(error: SessionsException) = "${error.code}: ${factsOf(error).reason}"

/** Fails on fields that nobody would check. */
fun onlyFields(what: String, written: JsonObject, known: Set<String>) {
    val unknown = written.keys - known
    if (unknown.isNotEmpty()) throw Failed("unknown fields of $what: $unknown")
}
