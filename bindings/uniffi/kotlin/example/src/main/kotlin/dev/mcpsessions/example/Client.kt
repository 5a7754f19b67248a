// A client of the 2025-11-25 era, by hand: what a demo cuts must be in its own hands.
package dev.mcpsessions.example

import java.io.IOException
import java.io.InputStream
import java.io.UncheckedIOException
import java.net.URI
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpResponse
import java.net.http.HttpResponse.BodyHandlers
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive

private const val PATIENCE_SECONDS = 20L

class Client {
    private val http = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build()
    private var requests = 0

    lateinit var session: String
        private set

    fun initialize(url: String) {
        val hello = """{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"demo","version":"1.0.0"}}"""
        val answer = post(url, request("initialize", hello))
        session = answer.headers().firstValue("Mcp-Session-Id").orElseThrow()
        check("serverInfo" in answer.body()) { answer.body() }
        check(post(url, """{"jsonrpc":"2.0","method":"notifications/initialized"}""").statusCode() == 202)
    }

    /** The text of a tool's result. */
    fun call(url: String, tool: String, arguments: String = "{}"): String {
        val answer = post(url, request("tools/call", """{"name":"$tool","arguments":$arguments}"""))
        check(answer.statusCode() == 200) { "$tool: ${answer.statusCode()} ${answer.body()}" }
        val content = Json.parseToJsonElement(answer.body()).jsonObject.getValue("result").jsonObject.getValue("content")
        return content.jsonArray.single().jsonObject.getValue("text").jsonPrimitive.content
    }

    fun delete(url: String): Int = http.send(to(url).DELETE().build(), BodyHandlers.discarding()).statusCode()

    fun status(url: String): Int = post(url, request("ping", "{}")).statusCode()

    fun stream(url: String, after: String? = null): Stream {
        val get = to(url).GET().header("Accept", "text/event-stream")
        if (after != null) get.header("Last-Event-ID", after)
        val answer = http.send(get.build(), BodyHandlers.ofInputStream())
        check(answer.statusCode() == 200) { "GET: ${answer.statusCode()}" }
        return Stream(answer.body())
    }

    private fun request(method: String, params: String) =
        """{"jsonrpc":"2.0","id":${++requests},"method":"$method","params":$params}"""

    private fun post(url: String, body: String): HttpResponse<String> {
        val post = to(url).header("Content-Type", "application/json").header("Accept", "application/json, text/event-stream")
        return http.send(post.POST(HttpRequest.BodyPublishers.ofString(body)).build(), BodyHandlers.ofString())
    }

    private fun to(url: String) = HttpRequest.newBuilder(URI(url)).apply {
        if (::session.isInitialized) header("Mcp-Session-Id", session).header("Mcp-Protocol-Version", "2025-11-25")
    }
}

/** A GET that stays open. */
class Stream(private val body: InputStream) {
    private val messages = LinkedBlockingQueue<JsonObject>()

    /** What to resume after. */
    @Volatile
    lateinit var lastEventId: String
        private set

    init {
        thread(isDaemon = true) {
            try {
                read()
            } catch (gone: IOException) {
                // It was cut, or its server is gone.
            } catch (gone: UncheckedIOException) {
                // The same.
            }
        }
    }

    private fun read() {
        var id = ""
        var isMessage = false
        body.bufferedReader().forEachLine { line ->
            when {
                line.startsWith("id: ") -> id = line.drop(4)
                line.startsWith("event: ") -> isMessage = line == "event: message"
                line.startsWith("data: ") && isMessage -> messages.put(Json.parseToJsonElement(line.drop(6)).jsonObject)
                line.isEmpty() -> lastEventId = id
            }
        }
    }

    /** The `data` of the next log message. */
    fun next(): String {
        val message = messages.poll(PATIENCE_SECONDS, TimeUnit.SECONDS) ?: error("waited in vain for a message")
        return message.getValue("params").jsonObject.getValue("data").jsonPrimitive.content
    }

    /** Nothing is there just now. */
    fun isEmpty(): Boolean = messages.isEmpty()

    /** Closes the connection without a word. */
    fun cut() = body.close()
}
