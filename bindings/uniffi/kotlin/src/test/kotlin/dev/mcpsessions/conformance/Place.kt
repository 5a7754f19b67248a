// Where scenarios run: the backend of MCP_SESSIONS_TEST_URL, a fresh hub or prefix for each.
package dev.mcpsessions.conformance

import dev.mcpsessions.withEngine

/** The backend under test. */
class Backend private constructor(private val base: String, private val capabilities: Set<String>) {
    val manualClock = "manualClock" in capabilities

    /** Whether it can do all of this. */
    fun can(required: List<String>): Boolean {
        (required - KNOWN).firstOrNull()?.let { throw Failed("$it is no capability") }
        return capabilities.containsAll(required)
    }

    /** A place nobody else uses. */
    fun place(name: String) = Place(base, "$name-${ProcessHandle.current().pid()}", manualClock)

    companion object {
        private val KNOWN = setOf("immediate", "mergedOrder", "processes", "manualClock", "pipelined")

        /** The backend at a URL, if it answers. */
        suspend fun at(base: String): Backend = withEngine(urlOf(base, "probe")) { engine ->
            val health = engine.health()
            if (!health.ready) throw Failed("the backend under test is not ready: ${health.problem}")
            Backend(base, engine.capabilities().toSet())
        }
    }
}

/** Where one scenario runs. */
class Place(private val base: String, private val name: String, val manualClock: Boolean) {
    val url = urlOf(base, name)

    /** Another deployment, which knows nothing of the scenario. */
    val foreignUrl = urlOf(base, "$name-foreign")

    /** Where its server listens, if it has one. */
    val port: Int? = Regex("""^\w+://[^/?]*:(\d+)""").find(base)?.let { it.groupValues[1].toInt() }

    /** Its URL by way of another port. */
    fun urlThrough(other: Int) = url.replaceFirst(":$port", ":$other")
}

private fun urlOf(base: String, name: String): String {
    val (address, query) = base.substringBefore('?') to base.substringAfter('?', "")
    if (address.startsWith("memory://")) return "$address$name?${query.ifEmpty { "clock=manual" }}"
    val before = if (query.isEmpty()) "" else "$query&"
    return if (address.startsWith("postgres")) "$address?${before}schema=${schemaOf(name)}" else "$address?${before}prefix=$name:"
}

/** A name of at most 63 bytes that is as unique. */
private fun schemaOf(name: String): String = "${name.take(40)}-%08x".format(name.hashCode())
