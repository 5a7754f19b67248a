// Runs one scenario: its nodes, its streams, what it saved, and what each step must give.
import Foundation
import McpSessions

/// A step that notes which of its fields were looked at.
final class Watched {
    let written: Json
    private var used: Set = ["do"]

    init(_ written: Json) {
        self.written = written
    }

    func name() throws -> String {
        try textOf(written, "do")
    }

    subscript(name: String) -> Json? {
        used.insert(name)
        return written[name]
    }

    func must(_ name: String) throws -> Json {
        used.insert(name)
        return try field(written, name)
    }

    func text(_ name: String) throws -> String {
        used.insert(name)
        return try textOf(written, name)
    }

    func textOrNil(_ name: String) throws -> String? {
        try self[name].map { try McpSessionsTests.text($0) }
    }

    func whole(_ name: String) throws -> Int {
        try must(name).whole()
    }

    func isTrue(_ name: String) throws -> Bool {
        try self[name]?.flag() ?? false
    }

    /// A field that a step's code never looked at would be an expectation that nobody checks.
    func checkUsed() throws {
        try onlyFields("step \(shown(written)) that the runner ignores", written, used)
    }
}

final class Node {
    let engine: Engine
    var alive = true

    init(_ engine: Engine) {
        self.engine = engine
    }
}

/// The nodes, streams and names of one scenario. Branches that run at once take turns in it.
actor World {
    let scenario: Scenario
    let place: Place
    var nodes: [String: Node] = [:]
    var streams: [String: Held] = [:]
    var subscriptions: [String: Listening] = [:]
    var cursors: [String: String] = [:]
    var requests: [String: RequestGuard] = [:]
    var closings: [String: Closings] = [:]
    var tails: [String: EventTail] = [:]
    /// Every id that was made or given; none twice.
    var ids: Set<String> = []
    private var names: Set<String> = []
    private var fences = 0

    init(_ scenario: Scenario, _ place: Place) {
        self.scenario = scenario
        self.place = place
    }

    func play() async throws {
        defer { for node in nodes.values where node.alive { node.engine.abandon() } }
        for node in scenario.nodes { try await start(node, nil, nil, nil) }
        try await run(scenario.steps)
        try await checkTheEnd()
        try await shutDown()
    }

    func start(_ name: String, _ options: [String: Json]?, _ url: String?, _ expect: Json?) async throws {
        if nodes[name] != nil { throw Failed("there is a node \(name) already") }
        let all = Json.object(scenario.options.merging(options ?? [:]) { _, own in own }).written
        let address = url ?? place.url
        let started = try await attempt {
            self.nodes[name] = Node(try await Engine.connect(url: address, options: all))
            return .null
        }
        try done(started, expect)
    }

    /// The name of a step's node: the first one, if it names none.
    func nameOf(_ step: Watched) throws -> String {
        guard let name = try step.textOrNil("node") ?? scenario.nodes.first else { throw Failed("the step names no node") }
        return name
    }

    func liveNode(_ name: String) throws -> Node {
        guard let node = nodes[name], node.alive else { throw Failed("there is no live node \(name)") }
        return node
    }

    func engine(_ step: Watched) throws -> Engine {
        try liveNode(try nameOf(step)).engine
    }

    func stream(_ step: Watched) throws -> Held {
        try stream(named: try step.text("stream"))
    }

    func stream(named name: String) throws -> Held {
        guard let held = streams[name] else { throw Failed("there is no stream \(name)") }
        return held
    }

    func subscription(_ step: Watched) throws -> Listening {
        let name = try step.text("subscription")
        guard let listening = subscriptions[name] else { throw Failed("there is no subscription \(name)") }
        return listening
    }

    func takeName(_ name: String) throws {
        if !names.insert(name).inserted { throw Failed("the name \(name) is taken: give another with \"as\"") }
    }

    /// The cursor that was saved as `$name`.
    func saved(_ reference: String) throws -> String {
        let name = reference.hasPrefix("$") ? String(reference.dropFirst()) : reference
        guard let cursor = cursors[name] else { throw Failed("no cursor was saved as \(name)") }
        return cursor
    }

    /// A text, or what was saved under this name.
    func named(_ written: String) throws -> String {
        written.hasPrefix("$") ? try saved(written) : written
    }

    /// What a node calls itself.
    func nodeId(_ name: String) throws -> String {
        guard let node = nodes[name] else { throw Failed("there is no node \(name)") }
        return node.engine.nodeId()
    }

    /// A payload that no scenario reads.
    func newFence() -> String {
        fences += 1
        return "\(fence)\(fences)"
    }

    private func run(_ steps: [Located]) async throws {
        for one in steps {
            if let step = one.step {
                try await runStep(one.at, step)
            } else {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for branch in one.branches { group.addTask { try await self.run(branch) } }
                    try await group.waitForAll()
                }
            }
        }
    }

    private func runStep(_ at: String, _ written: Json) async throws {
        let step = Watched(written)
        do {
            let name = try step.name()
            let known: Bool
            switch name.split(separator: ".").first {
            case "info": known = try await infoStep(name, step)
            case "subscription": known = try await subscriptionStep(name, step)
            case "registry": known = try await registryStep(name, step)
            case "events": known = try await eventsStep(name, step)
            default:
                let isOfNodes = try await nodeStep(name, step)
                known = isOfNodes ? true : try await streamStep(name, step)
            }
            if !known { throw Failed("the runner does not know \(name)") }
            try step.checkUsed()
        } catch let failed as Failed {
            throw Failed("step \(at) \(shown(written, 160)): \(failed)")
        }
    }

    /// Nothing unexpected may be left over: no event, no end.
    private func checkTheEnd() async throws {
        try await catchUp()
        for (name, held) in streams where nodes[held.node]?.alive == true {
            try atTheEnd("stream \(name)") { try held.checkLeftovers() }
        }
        for (name, listening) in subscriptions where nodes[listening.node]?.alive == true {
            try atTheEnd("subscription \(name)") { try listening.checkLeftovers() }
        }
        for (name, one) in closings {
            if let closing = one.tryNext() { throw Failed("at the end, closings \(name): unread \(closing)") }
        }
        for (name, tail) in tails {
            if let event = tail.tryNext() { throw Failed("at the end, tail \(name): unread \(event)") }
            if let end = tail.endReason() { throw Failed("at the end, tail \(name): it ended (\(end)), and no step expects it") }
        }
    }

    /// What was accepted before is here: a notification is, once it was sent.
    func catchUp() async throws {
        for node in nodes.values {
            let engine = node.engine
            if !node.alive || engine.isClosed() || engine.capabilities().contains("immediate") { continue }
            try await engine.subscriptions().send(notification: #"{"jsonrpc":"2.0","method":"notifications/fence"}"#)
        }
    }

    /// Every node that is left leaves in order, and holds nothing afterwards (G11).
    private func shutDown() async throws {
        for (name, node) in nodes where node.alive {
            node.alive = false
            try await node.engine.shutdown(deadline: 10)
            let stats = node.engine.stats()
            if stats.streams + stats.subscriptions > 0 {
                throw Failed("at the end, node \(name): \(stats.streams) streams, \(stats.subscriptions) subscriptions")
            }
        }
    }
}

private func atTheEnd(_ what: String, _ check: () throws -> Void) throws {
    do {
        try check()
    } catch let failed as Failed {
        throw Failed("at the end, \(what): \(failed)")
    }
}
