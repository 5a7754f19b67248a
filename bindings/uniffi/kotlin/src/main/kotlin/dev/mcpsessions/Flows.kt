// What Kotlin users expect beside the generated classes: flows, and an engine for the length of a block.
package dev.mcpsessions

import java.time.Duration
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.withContext

/** The most events that cross the border in one call. */
private const val BATCH = 256u

/** The stable code of an error, the same in every language: `invalid_input`, `timeout`, … */
val SessionsException.code: String
    get() = errorCode(this)

/**
 * The events of this stream, in order; completes when it has ended and what was queued is collected.
 *
 * Events are taken in batches: a collector that stops in the middle resumes with the [Event.cursor] of the
 * last event it has seen. The stream itself stays open; [EventStream.stop] gives it back.
 *
 * ```
 * engine.streams().open("session-1").events().collect { println(it.payload) }
 * ```
 */
fun EventStream.events(): Flow<Event> = flow {
    while (true) {
        val events = nextBatch(BATCH)
        if (events.isEmpty()) return@flow
        for (event in events) emit(event)
    }
}

/** The notifications of this subscription, as JSON, in order; completes when it has ended. */
fun Subscription.notifications(): Flow<String> = oneByOne { next() }

/**
 * The events of this tail, in order; completes when it has ended. The tail itself stays as it is;
 * [EventTail.stop] ends it, and the next one that follows its stream begins after the last event collected.
 *
 * ```
 * engine.events("session-1").follow("_GET_stream").events().collect { println(it.payload) }
 * ```
 */
fun EventTail.events(): Flow<LoggedEvent> = oneByOne { next() }

/** The closings of this node's sessions, in order; completes when the engine is shut down. */
fun Closings.sessions(): Flow<Closing> = oneByOne { next() }

/** Nothing is taken before the collector is done with the one before. */
private fun <T : Any> oneByOne(take: suspend () -> T?): Flow<T> = flow {
    while (true) emit(take() ?: return@flow)
}

/**
 * Connects, runs [block] with the engine, and shuts it down however the block ends.
 *
 * @param options JSON, the same in every language
 * @throws SessionsException as [Engine.connect] and [Engine.shutdown] do
 */
suspend fun <T> withEngine(url: String, options: String? = null, block: suspend (Engine) -> T): T {
    val engine = Engine.connect(url, options)
    try {
        return block(engine)
    } finally {
        withContext(NonCancellable) { engine.shutdown(Duration.ofSeconds(5)) }
        engine.destroy()
    }
}
