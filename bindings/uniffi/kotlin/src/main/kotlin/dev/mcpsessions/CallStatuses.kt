// Where calls across the border say how they went: used again and again, since JNA keeps account of each one that it
// makes until the collector has found it, which costs more than the call.
package dev.mcpsessions

private val kept = ThreadLocal.withInitial { ArrayDeque<UniffiRustCallStatus>() }

/** One that says success. */
internal fun takeCallStatus(): UniffiRustCallStatus = kept.get().removeLastOrNull() ?: UniffiRustCallStatus()

/** Keeps one that still does. A call from within a call has another, so there are as many as calls are deep. */
internal fun keepCallStatus(status: UniffiRustCallStatus) = kept.get().addLast(status)
