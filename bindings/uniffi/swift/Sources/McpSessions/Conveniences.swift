// An engine for the length of a closure, and what every error has.

extension SessionsError {
    /// The stable code, the same in every language: `invalid_input`, `timeout`, …
    public var code: String {
        errorCode(error: self)
    }

    /// The operation that failed, such as `streams.send`.
    public var operation: String {
        facts.operation
    }

    /// What is wrong, and what to do.
    public var reason: String {
        facts.reason
    }

    /// Whether the same call can succeed later.
    public var retryable: Bool {
        facts.retryable
    }

    /// Whether it may have happened although it failed: retry with the same idempotency key.
    public var outcomeUnknown: Bool {
        facts.outcomeUnknown
    }

    private typealias Facts = (operation: String, reason: String, retryable: Bool, outcomeUnknown: Bool)

    private var facts: Facts {
        switch self {
        case let .InvalidInput(operation, reason, retryable, outcomeUnknown),
             let .NotFound(operation, reason, retryable, outcomeUnknown),
             let .Conflict(operation, reason, retryable, outcomeUnknown),
             let .TooLarge(operation, reason, retryable, outcomeUnknown),
             let .Unauthorized(operation, reason, retryable, outcomeUnknown),
             let .Unavailable(operation, reason, retryable, outcomeUnknown),
             let .Timeout(operation, reason, retryable, outcomeUnknown),
             let .Closed(operation, reason, retryable, outcomeUnknown),
             let .Corrupt(operation, reason, retryable, outcomeUnknown),
             let .Config(operation, reason, retryable, outcomeUnknown):
            return (operation, reason, retryable, outcomeUnknown)
        }
    }
}

/// Connects, runs `body` with the engine, and shuts it down however the body ends.
///
/// - Parameters:
///   - url: `memory://name`, `cloudflare://host/path?token=…`, and what the build has beside them.
///   - options: JSON, the same in every language.
///   - body: What the engine is for.
/// - Throws: ``SessionsError`` as ``Engine/connect(url:options:metrics:)`` does, and what the body throws.
public func withEngine<T>(
    _ url: String,
    options: String? = nil,
    _ body: (Engine) async throws -> T
) async throws -> T {
    let engine = try await Engine.connect(url: url, options: options)
    do {
        let result = try await body(engine)
        try await engine.shutdown(deadline: 5)
        return result
    } catch {
        // Shutting down twice is fine; what failed first is what is told.
        try? await engine.shutdown(deadline: 5)
        throw error
    }
}
