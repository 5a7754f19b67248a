// What the steps of the session registry and of the event log do.
import Foundation
import McpSessions

extension World {
    /// A session's life. False for a step of another kind.
    func registryStep(_ name: String, _ step: Watched) async throws -> Bool {
        let registry = try self.engine(step).registry()
        switch name {
        case "registry.create": try await create(registry, step)
        case "registry.get":
            let (session, owner) = (try named(try step.text("session")), try step.textOrNil("owner"))
            let trusted = try step.isTrue("trusted")
            try await checkRecord(step.must("expect")) {
                trusted
                    ? try await registry.getTrusted(session: session)
                    : try await registry.get(session: session, owner: owner)
            }
        case "registry.peek":
            let (session, expect) = (try named(try step.text("session")), try step.must("expect"))
            let peek = { try await self.checkRecord(expect) { try await registry.peek(session: session) } }
            if try step.isTrue("eventually") { try await eventually(peek) } else { try await peek() }
        case "registry.getByOwner":
            let owner = try step.text("owner")
            try await checkRecord(step.must("expect")) { try await registry.getByOwner(owner: owner) }
        case "registry.has":
            let session = try named(try step.text("session"))
            try await checkUntil(try step.isTrue("eventually"), step.must("expect")) {
                try await attempt { .bool(try await registry.has(session: session)) }
            }
        case "registry.begin":
            let (session, alias) = (try named(try step.text("session")), try step.text("as"))
            let begun = try await attempt {
                self.requests[alias] = try await registry.beginRequest(session: session)
                return .null
            }
            try done(begun, step["expect"])
        case "registry.end":
            let alias = try step.text("request")
            guard let request = requests.removeValue(forKey: alias) else { throw Failed("there is no request \(alias)") }
            try await request.finish()
        case "registry.drop":
            let alias = try step.text("request")
            if requests.removeValue(forKey: alias) == nil { throw Failed("there is no request \(alias)") }
        case "registry.adopt":
            let session = try named(try step.text("session"))
            try check(try await attempt { .bool(try await registry.adopt(session: session)) }, step.must("expect"))
        case "registry.close":
            let (session, reason) = (try named(try step.text("session")), try step.text("reason"))
            try check(
                try await attempt { .bool(try await registry.end(session: session, reason: reason)) },
                step.must("expect")
            )
        case "registry.closeByOwner":
            let (owner, reason) = (try step.text("owner"), try step.text("reason"))
            try check(
                try await attempt { .count(try await registry.endByOwner(owner: owner, reason: reason)) },
                step.must("expect")
            )
        case "registry.list": try await list(registry, step)
        case "registry.stats":
            let expect = try step.must("expect")
            let check = { try await self.checkStats(registry, expect) }
            if try step.isTrue("eventually") { try await eventually(check) } else { try await check() }
        case "registry.sweep":
            try check(try await attempt { .count(try await registry.sweepStale()) }, step.must("expect"))
        case "registry.follow":
            closings[try step.text("as")] = registry.closings()
        case "registry.closings": try await readClosings(step)
        case "registry.closingsEnd":
            let followed = try self.followed(step)
            if let more = try await within("the closings go on", { await followed.next(until: $0) }) {
                throw Failed("unread \(more)")
            }
        case "registry.drain":
            let left = await registry.drain(deadline: try self.deadline(step))
            try same("requests left", .count(left), step.must("expect"))
        case "registry.shutdown":
            let deadline = try self.deadline(step)
            let report = try await attempt {
                let report = try await registry.shutdown(deadline: deadline)
                return .object(["closed": .count(report.closed), "requestsLeft": .count(report.requestsLeft)])
            }
            try check(report, step.must("expect"))
        default:
            return false
        }
        return true
    }

    private func deadline(_ step: Watched) throws -> TimeInterval {
        TimeInterval(try step.whole("deadlineMs")) / 1e3
    }

    private func followed(_ step: Watched) throws -> Closings {
        let name = try step.text("of")
        guard let followed = closings[name] else { throw Failed("nothing follows as \(name)") }
        return followed
    }

    private func create(_ registry: SessionRegistry, _ step: Watched) async throws {
        let pad = try step["pad"].map { try $0.whole() }
        let written = step["metadata"]
        let metadata = pad == nil ? written : try padded(written ?? .object([:]), pad)
        let (owner, session, alias) = (try step.textOrNil("owner"), try step.textOrNil("session"), try step.textOrNil("as"))
        let created = try await attempt {
            if let session {
                try await registry.register(session: session, owner: owner, metadata: metadata?.written)
                return .null
            }
            guard let alias else { throw Failed("a created session needs a name: \"as\"") }
            let id = try await registry.create(owner: owner, metadata: metadata?.written)
            // At least 128 bits in base64url, and never the same again.
            if id.count < 22 { throw Failed("\(id) is too short to be unguessable") }
            if !self.ids.insert(id).inserted { throw Failed("\(id) was made twice") }
            self.cursors[alias] = id
            return .null
        }
        try done(created, step["expect"])
    }

    /// All pages, in no order; what is accessed meanwhile could come twice, and nothing is.
    private func list(_ registry: SessionRegistry, _ step: Watched) async throws {
        let states: [SessionState] = [.active, .stale, .closing, .closed]
        let state = try step.textOrNil("state").flatMap { name in states.first { "\($0)" == name } }
        let node = try step.textOrNil("of").map { try nodeId($0) }
        let filter = SessionFilter(owner: try step.textOrNil("owner"), node: node, state: state)
        let limit = UInt32(try step["limit"].map { try $0.whole() } ?? 100)
        let first = try step.textOrNil("after")
        let expect = try step.must("expect")
        let listed = try await attempt {
            var (ids, after) = ([String](), first)
            repeat {
                let page = try await registry.list(filter: filter, after: after, limit: limit)
                ids += page.sessions.map(\.id)
                after = page.next
            } while after != nil
            return .list(ids.map(Json.string))
        }
        if expect["error"] != nil { return try checkSet(listed, expect) }
        try checkSet(listed, .list(try texts(expect).map { .string(try named($0)) }))
    }

    private func checkStats(_ registry: SessionRegistry, _ expect: Json) async throws {
        try onlyFields("the registry's stats", expect, ["total", "active", "stale", "closing", "byNode"])
        let stats = try await registry.stats()
        let numbers = ["total": stats.total, "active": stats.active, "stale": stats.stale, "closing": stats.closing]
        for (name, number) in numbers {
            if let wanted = expect[name] { try same(name, .count(number), wanted) }
        }
        guard let byNode = try expect["byNode"]?.fields() else { return }
        var wanted: [String: Json] = [:]
        for (name, count) in byNode { wanted[try nodeId(name)] = count }
        try same("byNode", .object(stats.byNode.mapValues(Json.count)), .object(wanted))
    }

    private func readClosings(_ step: Watched) async throws {
        let followed = try self.followed(step)
        var (wanted, got) = ([String](), [String]())
        for one in try step.must("expect").items() {
            try onlyFields("a closing", one, ["session", "reason"])
            wanted.append("\(try named(textOf(one, "session"))) \(try textOf(one, "reason"))")
            guard let closing = try await within("waited in vain for a closing", { await followed.next(until: $0) }) else {
                throw Failed("the closings ended")
            }
            got.append("\(closing.session) \(closing.reason)")
        }
        try same("closings", .list(got.sorted().map(Json.string)), .list(wanted.sorted().map(Json.string)))
    }

    private func checkRecord(_ expect: Json, _ get: () async throws -> SessionRecord?) async throws {
        var record: SessionRecord?
        let got = try await attempt {
            record = try await get()
            return record.map { .string("\($0)") } ?? .null
        }
        if got.error != nil || expect == .null || expect["error"] != nil { return try check(got, expect) }
        guard let record else { throw Failed("there is no such session") }
        for (field, wanted) in try expect.fields() { try compare(record, field, wanted) }
    }

    /// What is not named is not looked at.
    private func compare(_ record: SessionRecord, _ field: String, _ wanted: Json) throws {
        let idleMs = Int(record.nowMs) - Int(record.lastAccessMs)
        let ageMs = Int(record.nowMs) - Int(record.createdMs)
        let parsed = { (json: String?) in try json.map { try Json.parse($0) } ?? .null }
        switch field {
        case "session": try same(field, record.id, try named(text(wanted)))
        case "state": try same(field, "\(record.state)", text(wanted))
        case "node": try same(field, record.node, try nodeId(text(wanted)))
        case "owned": try same(field, .bool(record.owner != nil), wanted)
        case "activeRequests": try same(field, .count(record.activeRequests), wanted)
        case "reason": try same(field, record.reason ?? "", text(wanted))
        case "metadata": try same(field, parsed(record.metadata), wanted)
        case "clientInfo": try same(field, parsed(record.info?.clientInfo), wanted)
        case "protocolVersion": try same(field, record.info?.protocolVersion ?? "", text(wanted))
        case "idleAtLeastMs": if try idleMs < wanted.whole() { throw Failed("idle for \(idleMs) ms only") }
        case "idleBelowMs": if try idleMs >= wanted.whole() { throw Failed("idle for \(idleMs) ms") }
        case "ageAtLeastMs": if try ageMs < wanted.whole() { throw Failed("\(ageMs) ms old only") }
        default: throw Failed("the runner does not know a record's \(field)")
        }
    }
}

private let maxIdLength = 512

extension World {
    /// The log under an event store. False for a step of another kind.
    func eventsStep(_ name: String, _ step: Watched) async throws -> Bool {
        switch name {
        case "events.append":
            let log = try self.log(step)
            let (stream, save, expect) = (try step.text("stream"), try step.textOrNil("save"), step["expect"])
            for payload in try texts(step.must("payload")) {
                let appended = try await attempt {
                    try self.keep(try await log.append(stream: stream, payload: payload), save)
                    return .null
                }
                try done(appended, expect)
            }
        case "events.prime":
            let log = try self.log(step)
            try keep(try await log.prime(stream: step.text("stream")), try step.text("save"))
        case "events.end":
            let log = try self.log(step)
            try keep(try await log.end(stream: step.text("stream")), nil)
        case "events.streamOf":
            let log = try self.log(step)
            let id = try await cursorOf(step.must("id")) ?? ""
            try check(try await attempt { .object(["value": .string(try log.streamOf(id: id))]) }, step.must("expect"))
        case "events.replay":
            let log = try self.log(step)
            let after = try await cursorOf(step.must("after")) ?? ""
            try await checkReplay(step.must("expect")) { try await log.replay(after: after) }
        case "events.read":
            let (log, stream) = (try self.log(step), try step.text("stream"))
            try await checkReplay(step.must("expect")) { try await log.read(stream: stream) }
        case "events.tail":
            let log = try self.log(step)
            let after = try await cursorOf(step.must("after")) ?? ""
            try await hold(step) { try await log.tail(after: after) }
        case "events.follow":
            let (log, stream) = (try self.log(step), try step.text("stream"))
            try await hold(step) { try await log.follow(stream: stream) }
        case "events.next":
            let (tail, save) = (try self.tail(step), try step.textOrNil("save"))
            for wanted in try texts(step.must("expect")) {
                guard let event = try await within("waited in vain for an event", { await tail.next(until: $0) }) else {
                    throw Failed("the tail has ended")
                }
                try same("event", event.payload, wanted)
                if let save { cursors[save] = event.id }
            }
        case "events.ended":
            let tail = try self.tail(step)
            if let more = try await within("the tail goes on", { await tail.next(until: $0) }) {
                throw Failed("unread \(more)")
            }
            tails[try step.text("tail")] = nil
            try same("end", tail.endReason().map { "\($0)" }, step.text("expect"))
        case "events.close":
            let closed = try self.tail(step)
            await closed.stop()
            tails[try step.text("tail")] = nil
        case "events.forget":
            let (log, stream) = (try self.log(step), try step.text("stream"))
            try check(try await attempt { .bool(try await log.forget(stream: stream)) }, step.must("expect"))
        case "events.forgetAll":
            let log = try self.log(step)
            try check(try await attempt { .count(try await log.forgetAll()) }, step.must("expect"))
        case "events.forgeries":
            let log = try self.log(step)
            for forged in editsOf(try saved(try step.text("id"))) {
                do {
                    throw Failed("\(shown(forged)) was taken for an event id: \(try await log.replay(after: forged))")
                } catch let error as SessionsError {
                    if error.code != "invalid_input" { throw Failed("\(shown(forged)): \(error)") }
                }
            }
        default:
            return false
        }
        return true
    }

    private func log(_ step: Watched) throws -> EventLog {
        try self.engine(step).events(scope: try named(try step.text("scope")))
    }

    private func tail(_ step: Watched) throws -> EventTail {
        let name = try step.text("tail")
        guard let tail = tails[name] else { throw Failed("there is no tail \(name)") }
        return tail
    }

    /// A tail under the name of its step.
    private func hold(_ step: Watched, _ open: () async throws -> EventTail) async throws {
        let alias = try step.text("as")
        try takeName(alias)
        let opened = try await attempt {
            let tail = try await open()
            self.tails[alias] = tail
            return .object(["gap": .bool(tail.gap())])
        }
        try check(opened, step.must("expect"))
    }

    /// Ids are URL-safe, short enough and never the same again.
    private func keep(_ id: String, _ save: String?) throws {
        let isSafe = id.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                 UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
                return true
            default:
                return false
            }
        }
        if !isSafe || id.isEmpty || id.utf8.count > maxIdLength { throw Failed("\(id) is no event id") }
        if !ids.insert(id).inserted { throw Failed("\(id) was given twice") }
        if let save { cursors[save] = id }
    }

    private func checkReplay(_ expect: Json, _ read: () async throws -> Replay) async throws {
        var replay: Replay?
        let got = try await attempt {
            replay = try await read()
            return .null
        }
        if got.error != nil || expect["error"] != nil { return try check(got, expect) }
        guard let replay else { throw Failed("there is no replay") }
        try onlyFields("a replay", expect, ["events", "gap", "ended", "stream"])
        let payloads = { (list: [String]) in Json.list(list.map(Json.string)) }
        try same("events", payloads(replay.events.map(\.payload)), payloads(try texts(field(expect, "events"))))
        try same("gap", .bool(replay.gap), field(expect, "gap"))
        try same("ended", .bool(replay.ended), expect["ended"] ?? .bool(false))
        if let stream = expect["stream"] { try same("stream", replay.stream, text(stream)) }
    }
}
