// The conformance scenarios on the Swift API, on the backend of MCP_SESSIONS_TEST_URL (default: the embedded one).
import XCTest
@testable import McpSessions

final class ConformanceTests: XCTestCase {
    /// Enough at a time where most of a scenario is waiting.
    private let atOnce = 8

    func testScenarios() async throws {
        let backend = try await Backend.ofEnvironment()
        var left: [(name: String, scenario: Scenario)] = []
        var leftOut = 0
        for (file, scenarios) in try scenarioFiles() {
            for written in scenarios {
                let scenario = try Scenario(written)
                guard try backend.can(scenario.requires) else { continue }
                // Tasks of Swift begin in no order of their own: what is sent before the first is awaited has none.
                let isPipelined = scenario.has { $0["pipelined"] == .bool(true) }
                let isCut = scenario.has { $0["do"] == .string("outage") } && !backend.canBeCutOff
                if isPipelined || isCut { leftOut += 1 } else { left.append(("\(file)::\(scenario.name)", scenario)) }
            }
        }
        let count = left.count
        XCTAssertGreaterThan(count, 100, "there are \(count) scenarios")
        let failures = await withTaskGroup(of: String?.self) { group in
            var (failures, waiting) = ([String](), left[...])
            for _ in 0..<atOnce {
                if let next = waiting.popFirst() { group.addTask { await self.problem(next.name, next.scenario, backend) } }
            }
            for await failure in group {
                if let failure { failures.append(failure) }
                if let next = waiting.popFirst() { group.addTask { await self.problem(next.name, next.scenario, backend) } }
            }
            return failures
        }
        for failure in failures { XCTFail(failure) }
        print("scenarios: \(count - failures.count) passed, \(failures.count) failed, \(leftOut) left out")
    }

    /// What went wrong in a scenario, if anything.
    private func problem(_ name: String, _ scenario: Scenario, _ backend: Backend) async -> String? {
        do {
            let place = name.replacingOccurrences(of: "::", with: "-").replacingOccurrences(of: " ", with: "-")
            try await World(scenario, backend.place(place)).play()
            return nil
        } catch {
            return "\(name): \(error)"
        }
    }

    func testTheRunnerKnowsEveryStepOfTheSchema() async throws {
        for step in try stepsOfSchema().subtracting(["repeat", "parallel"]) {
            let told = try await failure(of: #"{"do":"\#(step)"}"#, "known-\(step)")
            XCTAssertFalse(told?.contains("does not know \(step)") ?? false, step)
        }
    }

    func testWrongScenariosFail() async throws {
        for (name, (steps, wanted)) in wrong {
            let told = try await failure(of: steps, "wrong-\(name)")
            XCTAssertTrue(told?.contains(wanted) ?? false, "\(name): \(told ?? "it passed")")
        }
    }

    private func failure(of steps: String, _ name: String) async throws -> String? {
        let written = try Json.parse(#"{"name":"x","title":"X.","guarantees":["G1"],"steps":[\#(steps)]}"#)
        let place = Place(base: "memory://", name: name.replacingOccurrences(of: " ", with: "-"), manualClock: true)
        do {
            try await World(Scenario(written), place).play()
            return nil
        } catch let failed as Failed {
            return "\(failed)"
        }
    }
}

private let open = #"{"do":"open","session":"s1","expect":{"gap":false}}"#
private let send = #"{"do":"send","to":"s1","payload":"m1","expect":{"accepted":1}}"#

/// What a runner must not let pass: steps, and what it says of them.
private let wrong: [String: (String, String)] = [
    "an unknown step": (#"{"do":"fly"}"#, "does not know fly"),
    "a field that is ignored": (#"{"do":"kill","node":"a","why":"x"}"#, "why"),
    "another payload": (#"\#(open),\#(send),{"do":"read","stream":"s1","expect":["m2"]}"#, #"expected "m2", got "m1""#),
    "an event left unread": ("\(open),\(send)", "unread"),
    "an event that was read, and more": (#"\#(open),\#(send),{"do":"idle","stream":"s1"}"#, "not idle"),
    "another receipt": (#"\#(open),{"do":"send","to":"s1","payload":"m","expect":{"dropped":1}}"#, "receipt"),
    "an unexpected success": (#"{"do":"has","session":"s1","expect":{"error":"timeout"}}"#, "expected error timeout"),
    "another error": (#"{"do":"open","session":"s 1","expect":{"error":"timeout"}}"#, "expected error timeout"),
    "an unexpected error": (#"{"do":"open","session":"s 1","expect":{"gap":false}}"#, "got error invalid_input"),
    "an end that nobody expects": (#"\#(open),{"do":"close","session":"s1","expect":true}"#, "no step expects it"),
    "another end":
        (#"\#(open),{"do":"close","session":"s1","expect":true},{"do":"ended","stream":"s1","expect":"gap"}"#, "end: expected"),
    "a name twice": ("\(open),\(open)", "is taken"),
]
