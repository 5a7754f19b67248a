// One node: the official SDK's server over Ktor, with every session in the engine, so that any node can serve it.
package dev.mcpsessions.example

import dev.mcpsessions.Engine
import dev.mcpsessions.InfoPatch
import dev.mcpsessions.OpenOptions
import dev.mcpsessions.SessionsException
import dev.mcpsessions.events
import dev.mcpsessions.withEngine
import io.ktor.http.ContentType
import io.ktor.http.HttpStatusCode
import io.ktor.server.application.install
import io.ktor.server.cio.CIO
import io.ktor.server.engine.embeddedServer
import io.ktor.server.http.HttpRequestLifecycle
import io.ktor.server.request.receiveText
import io.ktor.server.response.header
import io.ktor.server.response.respond
import io.ktor.server.response.respondText
import io.ktor.server.response.respondTextWriter
import io.ktor.server.routing.RoutingContext
import io.ktor.server.routing.delete
import io.ktor.server.routing.get
import io.ktor.server.routing.post
import io.ktor.server.routing.route
import io.ktor.server.routing.routing
import io.modelcontextprotocol.kotlin.sdk.server.Server
import io.modelcontextprotocol.kotlin.sdk.server.ServerOptions
import io.modelcontextprotocol.kotlin.sdk.types.CallToolResult
import io.modelcontextprotocol.kotlin.sdk.types.EmptyJsonObject
import io.modelcontextprotocol.kotlin.sdk.types.Implementation
import io.modelcontextprotocol.kotlin.sdk.types.JSONRPCMessage
import io.modelcontextprotocol.kotlin.sdk.types.JSONRPCNotification
import io.modelcontextprotocol.kotlin.sdk.types.JSONRPCRequest
import io.modelcontextprotocol.kotlin.sdk.types.LoggingLevel
import io.modelcontextprotocol.kotlin.sdk.types.LoggingMessageNotification
import io.modelcontextprotocol.kotlin.sdk.types.LoggingMessageNotificationParams
import io.modelcontextprotocol.kotlin.sdk.types.McpJson
import io.modelcontextprotocol.kotlin.sdk.types.ServerCapabilities
import io.modelcontextprotocol.kotlin.sdk.types.TextContent
import java.util.concurrent.ConcurrentHashMap
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.withContext

private const val SESSION = "Mcp-Session-Id"
private const val ADDRESS = "127.0.0.1"

class Node(private val engine: Engine) {
    private val sessions = ConcurrentHashMap<String, CompletableDeferred<EngineTransport>>()

    private val server = Server(
        Implementation("notes", "1.0.0"),
        ServerOptions(ServerCapabilities(tools = ServerCapabilities.Tools(), logging = EmptyJsonObject)),
    ) {
        addTool("whoami", "Which node answers") { result(engine.nodeId()) }
        addTool("announce", "Says something to the client, wherever its stream is") { request ->
            val data = request.arguments?.get("text") ?: return@addTool result("what?")
            sendLoggingMessage(LoggingMessageNotification(LoggingMessageNotificationParams(LoggingLevel.Info, data)))
            result("said")
        }
    }

    private val http = embeddedServer(CIO, host = ADDRESS, port = 0) {
        // A client that goes away ends its GET.
        install(HttpRequestLifecycle) { cancelCallOnClose = true }
        routing {
            route("/mcp") {
                post { post() }
                get { stream() }
                delete { end() }
            }
        }
    }

    /** Listens on a free port; its URL. */
    suspend fun start(): String {
        http.start(wait = false)
        return "http://$ADDRESS:${http.engine.resolvedConnectors().first().port}/mcp"
    }

    suspend fun stop() {
        http.stopSuspend(gracePeriodMillis = 0, timeoutMillis = 1_000)
        server.close()
    }

    private suspend fun RoutingContext.post() {
        val message = McpJson.decodeFromString<JSONRPCMessage>(call.receiveText())
        val session = if (message is JSONRPCRequest && message.method == "initialize") begin(message) else known() ?: return
        val answer = transportOf(session).handle(message)
        call.response.header(SESSION, session)
        if (answer == null) call.respond(HttpStatusCode.Accepted)
        else call.respondText(McpJson.encodeToString(answer), ContentType.Application.Json)
    }

    /** A session that every node knows from here on, with what its client said. */
    private suspend fun begin(initialize: JSONRPCRequest): String {
        val session = engine.registry().use { it.create() }
        engine.info().use { it.put(session, InfoPatch(initializeParams = initialize.params.toString())) }
        sessions[session] = CompletableDeferred(connect(session))
        return session
    }

    /** The session of a request, or a 404 on every node once it has ended. */
    private suspend fun RoutingContext.known(): String? {
        val session = call.request.headers[SESSION]
        val record = try {
            session?.let { id -> engine.registry().use { it.get(id) } }
        } catch (refused: SessionsException.InvalidInput) {
            null
        }
        if (record == null) call.respond(HttpStatusCode.NotFound)
        return record?.id
    }

    private suspend fun transportOf(session: String): EngineTransport {
        val mine = CompletableDeferred<EngineTransport>()
        val known = sessions.putIfAbsent(session, mine)
        if (known != null) return known.await()
        try {
            mine.complete(resumed(session))
        } catch (failed: Throwable) {
            sessions.remove(session, mine)
            mine.completeExceptionally(failed)
        }
        return mine.await()
    }

    private suspend fun connect(session: String) = EngineTransport(engine, session).also { server.createSession(it) }

    /** A session that began on another node: this one's server hears what the client said there. */
    private suspend fun resumed(session: String): EngineTransport {
        val params = engine.info().use { it.initializeParams(session) }
        val transport = connect(session)
        transport.handle(JSONRPCRequest(method = "initialize", params = McpJson.parseToJsonElement(params)))
        transport.handle(JSONRPCNotification("notifications/initialized"))
        return transport
    }

    /** The session's stream, from where the client left off. */
    private suspend fun RoutingContext.stream() {
        val session = known() ?: return
        val after = call.request.headers["Last-Event-ID"]
        val stream = try {
            engine.streams().use { it.open(session, OpenOptions(after)) }
        } catch (refused: SessionsException.InvalidInput) {
            return call.respondText(refused.reason, status = HttpStatusCode.BadRequest)
        }
        try {
            call.response.header(SESSION, session)
            call.respondTextWriter(ContentType.Text.EventStream) {
                // A cursor at once: a client that is cut off before the first event can resume, too.
                write("event: cursor\nid: ${stream.cursor()}\ndata: ${if (stream.gap()) "gap" else ""}\n\n")
                flush()
                stream.events().collect { event ->
                    write("id: ${event.cursor}\n${event.payload}")
                    flush()
                }
            }
        } finally {
            withContext(NonCancellable) { stream.stop() }
            stream.destroy()
        }
    }

    private suspend fun RoutingContext.end() {
        val session = known() ?: return
        engine.registry().use { it.end(session, "client") }
        sessions.remove(session)?.await()?.close()
        call.respond(HttpStatusCode.OK)
    }
}

private fun result(text: String) = CallToolResult(listOf(TextContent(text)))

/** A node in a process of its own, until that is killed; prints its URL. */
suspend fun serve(backend: String): Nothing = withEngine(backend) { engine ->
    println(Node(engine).start())
    awaitCancellation()
}
