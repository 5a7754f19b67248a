// What is Swift's own: sequences, cancelled tasks, listeners, errors, logs and metrics, and what is left behind.
import XCTest
@testable import McpSessions

final class EngineTests: XCTestCase {
    func testAStreamIsASequenceInOrderUntilItEnds() async throws {
        try await withEngine("memory://") { engine in
            let stream = try await engine.streams().open(session: "s1")
            let sent = (0..<1_000).map { "m\($0)" }
            for payload in sent { _ = try await engine.streams().send(session: "s1", payload: payload) }
            _ = try await engine.streams().end(session: "s1")
            var read: [String] = []
            for await event in stream.events { read.append(event.payload) }
            XCTAssertEqual(read, sent)
            XCTAssertEqual(stream.endReason(), .closed)
        }
    }

    func testALoopThatStopsResumesOnAnotherNode() async throws {
        try await withEngine("memory://swift-resume") { here in
            try await withEngine("memory://swift-resume") { there in
                let stream = try await here.streams().open(session: "s1")
                for n in 0..<10 { _ = try await there.streams().send(session: "s1", payload: "m\(n)") }
                var cursor: String?
                for await event in stream.events where event.payload == "m2" {
                    cursor = event.cursor
                    break
                }
                let resumed = try await there.streams().open(session: "s1", options: OpenOptions(after: cursor))
                XCTAssertFalse(resumed.gap())
                var read: [String] = []
                for await event in resumed.events {
                    read.append(event.payload)
                    if read.count == 7 { break }
                }
                XCTAssertEqual(read, (3..<10).map { "m\($0)" })
                let end = await stream.ended()
                XCTAssertEqual(end, .replaced)
            }
        }
    }

    func testAFollowerGoesOnAfterTheLastEventRead() async throws {
        try await withEngine("memory://swift-follow") { here in
            try await withEngine("memory://swift-follow") { there in
                let log = try here.events(scope: "s1")
                for n in 0..<3 { _ = try await log.append(stream: "x", payload: "m\(n)") }
                let first = try await there.events(scope: "s1").follow(stream: "x")
                for await event in first.events where event.payload == "m1" { break }
                await first.stop()
                let second = try await log.follow(stream: "x")
                XCTAssertFalse(second.gap())
                _ = try await log.end(stream: "x")
                var read: [String] = []
                for await event in second.events { read.append(event.payload) }
                XCTAssertEqual(read, ["m2"])
                XCTAssertEqual(second.endReason(), .closed)
            }
        }
    }

    func testATaskThatIsCancelledLeavesItsLoopAndLosesNothing() async throws {
        try await withEngine("memory://") { engine in
            let stream = try await engine.streams().open(session: "s1")
            let reading = Task { () -> Int in
                var count = 0
                for await _ in stream.events { count += 1 }
                return count
            }
            reading.cancel()
            let read = await reading.value
            XCTAssertEqual(read, 0)
            _ = try await engine.streams().send(session: "s1", payload: "m1")
            let next = await stream.next()
            XCTAssertEqual(next?.payload, "m1")
        }
    }

    func testAListenerIsToldInOrderAndThenOfTheEnd() async throws {
        try await withEngine("memory://") { engine in
            let listener = Told()
            let stream = try await engine.streams().open(session: "s1")
            _ = stream.listen(listener: listener)
            for n in 0..<100 { _ = try await engine.streams().send(session: "s1", payload: "m\(n)") }
            _ = try await engine.streams().end(session: "s1")
            let wanted = (0..<100).map { "m\($0)" } + ["closed"]
            try await eventually {
                if listener.all.count < wanted.count { throw Failed("\(listener.all.count) were told") }
            }
            XCTAssertEqual(listener.all, wanted)
        }
    }

    func testErrorsSayWhatFailedAndWhatToDo() async throws {
        try await withEngine("memory://") { engine in
            do {
                _ = try await engine.streams().send(session: "no spaces", payload: "m")
                XCTFail("it was accepted")
            } catch let error as SessionsError {
                XCTAssertEqual(error.code, "invalid_input")
                XCTAssertEqual(error.operation, "session id")
                XCTAssertFalse(error.reason.isEmpty)
                XCTAssertFalse(error.retryable)
            }
        }
    }

    func testAHandleThatNobodyKeepsIsGivenBack() async throws {
        try await withEngine("memory://") { engine in
            for n in 0..<1_000 { _ = try await engine.streams().open(session: "s\(n)") }
            XCTAssertEqual(engine.stats().streams, 0)
            let isHeld = try await engine.streams().has(session: "s1")
            XCTAssertFalse(isHeld)
        }
    }

    func testSubscriptionsAndClosingsAreSequences() async throws {
        try await withEngine("memory://") { engine in
            let filter = SubscriptionFilter(toolsListChanged: true)
            let made = try engine.subscriptions().create(id: .number(value: 1), origin: "o", filter: filter)
            let subscription = try XCTUnwrap(made)
            subscription.acknowledge()
            let change = #"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#
            try await engine.subscriptions().send(notification: change)
            for await notification in subscription.notifications {
                XCTAssertTrue(notification.contains("tools/list_changed"))
                break
            }
            let closings = engine.registry().closings()
            let id = try await engine.registry().create()
            _ = try await engine.registry().end(session: id, reason: "done")
            for await closing in closings.sessions {
                XCTAssertEqual(closing, Closing(session: id, reason: "done"))
                break
            }
        }
    }

    func testWhatIsCountedReachesTheHost() async throws {
        let counts = Counts()
        let engine = try await Engine.connect(url: "memory://", metrics: counts)
        _ = try await engine.streams().open(session: "s1")
        _ = try await engine.streams().send(session: "s1", payload: "m")
        try await engine.shutdown(deadline: 5)
        XCTAssertEqual(counts.value("mcp_sessions_accepted_total"), 1)
        XCTAssertEqual(counts.value("mcp_sessions_opened_total"), 1)
    }
}

/// What a listener was told.
private final class Told: StreamListener, @unchecked Sendable {
    private let lock = NSLock()
    private var told: [String] = []

    var all: [String] {
        lock.lock()
        defer { lock.unlock() }
        return told
    }

    func onEvents(events: [Event]) {
        lock.lock()
        defer { lock.unlock() }
        told += events.map(\.payload)
    }

    func onEnd(reason: EndReason) {
        lock.lock()
        defer { lock.unlock() }
        told.append("\(reason)")
    }
}

private final class Counts: MetricsSink, @unchecked Sendable {
    private let lock = NSLock()
    private var counts: [String: UInt64] = [:]

    func value(_ name: String) -> UInt64? {
        lock.lock()
        defer { lock.unlock() }
        return counts[name]
    }

    func count(name: String, by: UInt64) {
        lock.lock()
        defer { lock.unlock() }
        counts[name, default: 0] += by
    }

    func gauge(name: String, value: Double) {}

    func operation(operation: String, took: TimeInterval, error: String?) {}
}
