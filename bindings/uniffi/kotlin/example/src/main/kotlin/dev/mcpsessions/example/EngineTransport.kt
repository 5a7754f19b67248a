// Between a session of the SDK's server and the engine: answers go back where the question came from, all else to
// the session's stream, whichever node holds it.
package dev.mcpsessions.example

import dev.mcpsessions.Engine
import io.modelcontextprotocol.kotlin.sdk.shared.AbstractTransport
import io.modelcontextprotocol.kotlin.sdk.shared.TransportSendOptions
import io.modelcontextprotocol.kotlin.sdk.types.JSONRPCError
import io.modelcontextprotocol.kotlin.sdk.types.JSONRPCMessage
import io.modelcontextprotocol.kotlin.sdk.types.JSONRPCRequest
import io.modelcontextprotocol.kotlin.sdk.types.JSONRPCResponse
import io.modelcontextprotocol.kotlin.sdk.types.McpJson
import io.modelcontextprotocol.kotlin.sdk.types.RequestId
import java.util.concurrent.ConcurrentHashMap
import kotlinx.coroutines.CompletableDeferred

class EngineTransport(private val engine: Engine, private val session: String) : AbstractTransport() {
    private val asked = ConcurrentHashMap<RequestId, CompletableDeferred<JSONRPCMessage>>()

    override suspend fun start() = Unit

    override suspend fun send(message: JSONRPCMessage, options: TransportSendOptions?) {
        val answered = when (message) {
            is JSONRPCResponse -> message.id
            is JSONRPCError -> message.id
            else -> null
        }
        if (answered != null) asked.remove(answered)?.complete(message)
        // Accepted is kept: a client that is away gets it when it comes back.
        else engine.streams().use { it.send(session, "event: message\ndata: ${McpJson.encodeToString(message)}\n\n") }
    }

    /** What the server answers; nothing for what is no request. */
    suspend fun handle(message: JSONRPCMessage): JSONRPCMessage? {
        if (message !is JSONRPCRequest) {
            _onMessage(message)
            return null
        }
        val answer = CompletableDeferred<JSONRPCMessage>()
        asked[message.id] = answer
        try {
            _onMessage(message)
            return answer.await()
        } finally {
            asked.remove(message.id)
        }
    }

    override suspend fun close() = invokeOnCloseCallback()
}
