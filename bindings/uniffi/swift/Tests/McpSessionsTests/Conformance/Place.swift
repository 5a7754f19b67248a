// Where scenarios run: the backend of MCP_SESSIONS_TEST_URL, a fresh hub, prefix or schema for each.
import Foundation
import McpSessions

/// The backend under test.
struct Backend: Sendable {
    private static let known: Set = ["immediate", "mergedOrder", "processes", "manualClock", "pipelined"]

    private let base: String
    private let capabilities: Set<String>

    /// The backend of the environment, if it answers.
    static func ofEnvironment() async throws -> Backend {
        let base = ProcessInfo.processInfo.environment["MCP_SESSIONS_TEST_URL"] ?? "memory://"
        return try await withEngine(urlOf(base, "probe")) { engine in
            let health = await engine.health()
            if !health.ready { throw Failed("the backend under test is not ready: \(health.problem ?? "")") }
            return Backend(base: base, capabilities: Set(engine.capabilities()))
        }
    }

    var manualClock: Bool {
        capabilities.contains("manualClock")
    }

    /// Whether nodes can be cut off from it: only the embedded hub takes itself away; no proxy is written in Swift.
    var canBeCutOff: Bool {
        base.hasPrefix("memory:")
    }

    /// Whether it can do all of this.
    func can(_ required: [String]) throws -> Bool {
        if let unknown = required.first(where: { !Backend.known.contains($0) }) {
            throw Failed("\(unknown) is no capability")
        }
        return capabilities.isSuperset(of: required)
    }

    /// A place nobody else uses.
    func place(_ name: String) -> Place {
        Place(base: base, name: "\(name)-\(ProcessInfo.processInfo.processIdentifier)", manualClock: manualClock)
    }
}

/// Where one scenario runs.
struct Place: Sendable {
    let base: String
    let name: String
    let manualClock: Bool

    var url: String {
        urlOf(base, name)
    }

    /// Another deployment, which knows nothing of the scenario.
    var foreignUrl: String {
        urlOf(base, "\(name)-foreign")
    }
}

private func urlOf(_ base: String, _ name: String) -> String {
    let parts = base.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    let (address, query) = (parts[0], parts.count > 1 ? parts[1] : "")
    if address.hasPrefix("memory://") { return "\(address)\(name)?\(query.isEmpty ? "clock=manual" : query)" }
    let before = query.isEmpty ? "" : "\(query)&"
    guard address.hasPrefix("postgres") else { return "\(address)?\(before)prefix=\(name):" }
    return "\(address)?\(before)schema=\(name.prefix(40))-\(checksum(name))"
}

/// What makes a name that was cut as unique as it was (FNV-1a).
private func checksum(_ name: String) -> String {
    String(name.utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }, radix: 16)
}
