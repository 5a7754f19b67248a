// Compares what came with what was expected; every difference is told in words.
import Foundation
import McpSessions

/// How long anything expected may take to happen, in seconds.
let patience: TimeInterval = 10

/// A result that is not the expected one.
struct Failed: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// What a call came to: a value, or an error of the engine's.
struct Outcome {
    var value: Json = .null
    var error: SessionsError?
}

/// Runs a call. An error that is not the engine's own is nobody's expectation.
func attempt(_ work: () async throws -> Json) async throws -> Outcome {
    do {
        return Outcome(value: try await work())
    } catch let error as SessionsError {
        return Outcome(error: error)
    }
}

func shown(_ value: Json, _ most: Int = 200) -> String {
    shown(value.written, most)
}

func shown(_ text: String, _ most: Int = 200) -> String {
    text.count <= most ? text : "\(text.prefix(most))… (\(text.count) characters)"
}

func same(_ what: String, _ got: Json, _ wanted: Json) throws {
    if got != wanted { throw Failed("\(what): expected \(shown(wanted, 400)), got \(shown(got, 400))") }
}

func same(_ what: String, _ got: String?, _ wanted: String?) throws {
    try same(what, got.map(Json.string) ?? .null, wanted.map(Json.string) ?? .null)
}

/// A value, or the error that is expected in its place.
func check(_ got: Outcome, _ wanted: Json) throws {
    if isFailure(wanted) { return try checkFailure(got, wanted) }
    if let error = got.error { throw Failed("expected \(shown(wanted)), got error \(told(error))") }
    try same("result", got.value, wanted)
}

/// A step without a result, which succeeds unless it expects an error.
func done(_ got: Outcome, _ wanted: Json?) throws {
    if let wanted { return try checkFailure(got, wanted) }
    if let error = got.error { throw Failed("unexpected error \(told(error))") }
}

func checkSend(_ got: Outcome, _ wanted: Json) throws {
    if isFailure(wanted) { return try checkFailure(got, wanted) }
    if let error = got.error { throw Failed("unexpected error \(told(error))") }
    guard let anyOf = wanted["anyOf"] else { return try same("receipt", got.value, wholeReceipt(wanted)) }
    if try !anyOf.items().contains(where: { try wholeReceipt($0) == got.value }) {
        throw Failed("expected any of \(shown(anyOf)), got \(shown(got.value))")
    }
}

func jsonOf(_ receipt: Receipt) -> Json {
    .object([
        "accepted": .count(receipt.accepted),
        "dropped": .count(receipt.dropped),
        "duplicates": .count(receipt.duplicates),
    ])
}

private func wholeReceipt(_ written: Json) throws -> Json {
    let nothing: [String: Json] = ["accepted": .number(0), "dropped": .number(0), "duplicates": .number(0)]
    return .object(nothing.merging(try written.fields()) { _, named in named })
}

/// Compares lists whose order means nothing, duplicates included.
func checkSet(_ got: Outcome, _ wanted: Json) throws {
    if isFailure(wanted) || got.error != nil { return try check(got, wanted) }
    let sorted = { (list: [String]) in Json.list(list.sorted().map(Json.string)) }
    try same("result", sorted(try strings(got.value)), sorted(try texts(wanted)))
}

/// Checks once, or, where others only have to get there, until it holds.
func checkUntil(_ until: Bool, _ wanted: Json, _ get: () async throws -> Outcome) async throws {
    if until {
        try await eventually { try check(try await get(), wanted) }
    } else {
        try check(try await get(), wanted)
    }
}

/// For what nobody tells: tries until `test` does not fail.
func eventually(_ test: () async throws -> Void) async throws {
    let until = Date().addingTimeInterval(patience)
    while true {
        do {
            return try await test()
        } catch let failed as Failed {
            if Date() > until { throw failed }
        }
        try await Task.sleep(nanoseconds: 5_000_000)
    }
}

/// What `work` comes to, which the handle ends after the time that anything expected may take.
func within<T: Sendable>(_ problem: String, _ work: (Cancellation) async -> T?) async throws -> T? {
    let until = Cancellation()
    let timer = Task {
        try await Task.sleep(nanoseconds: UInt64(patience * 1e9))
        until.cancel()
    }
    defer { timer.cancel() }
    let result = await work(until)
    if result == nil, until.isCancelled() { throw Failed(problem) }
    return result
}

private func isFailure(_ wanted: Json) -> Bool {
    wanted["error"] != nil
}

private func checkFailure(_ got: Outcome, _ wanted: Json) throws {
    try onlyFields("the expected error", wanted, ["error", "message", "messageLacks", "retryable", "outcomeUnknown"])
    let code = try textOf(wanted, "error")
    guard let error = got.error else { throw Failed("expected error \(code), but it gave \(shown(got.value))") }
    if error.code != code { throw Failed("expected error \(code), got error \(told(error))") }
    if error.operation.isEmpty { throw Failed("the error names no operation") }
    if let message = wanted["message"] { try same("message", .string(error.reason), message) }
    if let retryable = wanted["retryable"] { try same("retryable", .bool(error.retryable), retryable) }
    if let unknown = wanted["outcomeUnknown"] { try same("outcomeUnknown", .bool(error.outcomeUnknown), unknown) }
    if wanted["messageLacks"] != nil, "\(error)".contains(try textOf(wanted, "messageLacks")) {
        throw Failed("the message says too much: \(error)")
    }
}

private func told(_ error: SessionsError) -> String {
    "\(error.code): \(error.reason)"
}

/// Fails on fields that nobody would check.
func onlyFields(_ what: String, _ written: Json, _ known: Set<String>) throws {
    let unknown = Set(try written.fields().keys).subtracting(known)
    if !unknown.isEmpty { throw Failed("unknown fields of \(what): \(unknown.sorted())") }
}
