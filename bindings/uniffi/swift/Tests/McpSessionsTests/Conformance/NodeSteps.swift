// What the steps of nodes and streams do; `tests/conformance/README.md` says it in words.
import Foundation
import McpSessions

extension World {
    /// Nodes come, go and die, and time passes. False for a step of another kind.
    func nodeStep(_ name: String, _ step: Watched) async throws -> Bool {
        switch name {
        case "start":
            try await start(step.text("node"), try step["options"]?.fields(), try step.textOrNil("url"), step["expect"])
        case "shutdown":
            let deadline = try step["deadlineMs"].map { TimeInterval(try $0.whole()) / 1e3 }
            let engine = try self.engine(step)
            try done(try await attempt { try await engine.shutdown(deadline: deadline); return .null }, step["expect"])
        case "kill":
            let killed = try liveNode(try step.text("node"))
            killed.engine.abandon()
            killed.alive = false
        case "outage":
            try liveNode(try step.text("node")).engine.setOutage(on: true)
        case "restore":
            let engine = try liveNode(try step.text("node")).engine
            try engine.setOutage(on: false)
            try await eventually { if await !engine.health().ready { throw Failed("the node is not ready again") } }
        case "advance":
            let seconds = TimeInterval(try step.whole("ms")) / 1e3
            if !place.manualClock {
                try await Task.sleep(nanoseconds: UInt64(seconds * 1e9))
            } else {
                guard let node = nodes.values.first(where: \.alive) else { throw Failed("no node can move time") }
                try await node.engine.advanceClock(by: seconds)
            }
        case "health":
            let asked = try self.engine(step)
            let health = await asked.health()
            try same("result", .object(["ready": .bool(health.ready)]), step.must("expect"))
        case "stats":
            let stats = statsOf(try self.engine(step))
            for (name, count) in try step.must("expect").fields() {
                guard let counted = stats[name] else { throw Failed("\(name) is not counted") }
                try same(name, .count(counted), count)
            }
        default:
            return false
        }
        return true
    }

    /// Streams open, get events and end. False for a step of another kind.
    func streamStep(_ name: String, _ step: Watched) async throws -> Bool {
        switch name {
        case "open": try await open(step)
        case "send": try await send(step)
        case "read":
            let held = try stream(step)
            try await readWhat(held, step.must("expect"))
            if let save = try step.textOrNil("save") { cursors[save] = held.stream.cursor() }
        case "idle": try await idle(step)
        case "silent":
            let held = try stream(step)
            try held.nothingUnread()
            try same("end", held.end, nil)
        case "ended":
            let held = try stream(step)
            try await held.checkEnd(step.must("expect"))
            if let event = try await held.nextOrEnd() { throw Failed("gave \(shown(event.payload)) after its end") }
        case "survivor": try await survivor(step)
        case "release":
            let held = try stream(step)
            await held.stream.stop()
            held.endExpected = true
        case "drop":
            let name = try step.text("stream")
            let node = try stream(named: name).node
            try await drop(of: node, isOver: try stream(named: name).end != nil, { $0.stats().streams }) {
                self.streams[name] = nil
            }
        case "forgeries": try await forgeries(step)
        case "has":
            let (session, streams) = (try step.text("session"), try self.engine(step).streams())
            try await checkUntil(try step.isTrue("eventually"), step.must("expect")) {
                try await attempt { .bool(try await streams.has(session: session)) }
            }
        case "known", "close", "forget":
            let (session, streams) = (try step.text("session"), try self.engine(step).streams())
            let got = try await attempt {
                switch name {
                case "known": return .bool(try await streams.known(session: session))
                case "close": return .bool(try await streams.end(session: session))
                default: return .bool(try await streams.forget(session: session))
                }
            }
            try check(got, step.must("expect"))
        default:
            return false
        }
        return true
    }

    /// Lets go of what a step reads without a word (the last reference goes), and waits until it was given back.
    func drop(of name: String, isOver: Bool, _ count: (Engine) -> UInt64, _ letGo: () -> Void) async throws {
        guard let node = nodes[name], node.alive, !isOver else { return letGo() }
        let before = count(node.engine)
        letGo()
        try await eventually { if count(node.engine) >= before { throw Failed("it was not given back") } }
    }

    private func open(_ step: Watched) async throws {
        let session = try step.text("session")
        let name = try step.textOrNil("as") ?? session
        try takeName(name)
        let conflict: Conflict? = try step.textOrNil("conflict").map { $0 == "reject" ? .reject : .replace }
        let after = step["after"]
        let options = OpenOptions(after: try await cursorOf(after), conflict: conflict)
        let node = try nameOf(step)
        let manager = try self.engine(step).streams()
        let opened = try await attempt {
            let stream = try await manager.open(session: session, options: options)
            self.streams[name] = Held(node: node, stream: stream)
            return .object(["gap": .bool(stream.gap())])
        }
        let save = try step.textOrNil("save")
        try check(opened, step.must("expect"))
        if opened.error == nil, let save { cursors[save] = try stream(named: name).stream.cursor() }
    }

    private func send(_ step: Watched) async throws {
        let manager = try self.engine(step).streams()
        let to = try step.must("to")
        let key = try step.textOrNil("key")
        let expect = try step.must("expect")
        for payload in try texts(step.must("payload")) {
            let receipt = try await attempt {
                if to["all"] != nil { return jsonOf(try await manager.broadcast(payload: payload, idempotencyKey: key)) }
                if isText(to) {
                    return jsonOf(try await manager.send(session: text(to), payload: payload, idempotencyKey: key))
                }
                return jsonOf(try await manager.sendToEach(sessions: texts(to), payload: payload, idempotencyKey: key))
            }
            try checkSend(receipt, expect)
        }
    }

    private func readWhat(_ held: Held, _ expect: Json) async throws {
        if case let .list(wanted) = expect { return try await held.readExactly(wanted) }
        let known: Set = ["interleaved", "headOf", "tailOf", "atLeast", "atMost", "restOf", "after", "sameAs"]
        try onlyFields("what is read", expect, known)
        let counts = { try numberOf(expect, "atLeast")...numberOf(expect, "atMost") }
        if let sequences = expect["interleaved"] {
            try await held.readInterleaved(sequences.items().map { try texts($0) })
        } else if let list = expect["headOf"] {
            try await held.readHead(texts(list), counts())
        } else if let list = expect["tailOf"] {
            try await held.readTail(texts(list), counts())
        } else if expect["sameAs"] != nil {
            try await held.readTexts(try stream(named: textOf(expect, "sameAs")).read)
        } else {
            let before = try stream(named: textOf(expect, "after")).read
            let everything = try texts(field(expect, "restOf"))
            if Array(everything.prefix(before.count)) != before { throw Failed("the other stream read something else") }
            try await held.readTexts(Array(everything.dropFirst(before.count)))
        }
    }

    /// Sends a fence after everything that was accepted: it must be the next thing the stream gives.
    private func idle(_ step: Watched) async throws {
        let held = try stream(step)
        let payload = newFence()
        let manager = try liveNode(try step.textOrNil("node") ?? held.node).engine.streams()
        let isBroadcast = try step.textOrNil("fence") == "broadcast"
        let sent = try await attempt {
            isBroadcast
                ? jsonOf(try await manager.broadcast(payload: payload))
                : jsonOf(try await manager.send(session: held.stream.session(), payload: payload))
        }
        try checkSend(sent, .object(["accepted": .number(1)]))
        let event = try await held.next(payload)
        if event.payload != payload { throw Failed("not idle: gave \(shown(event.payload))") }
    }

    private func survivor(_ step: Watched) async throws {
        let name = try step.text("as")
        try takeName(name)
        let everyone = try strings(step.must("among")).map { try stream(named: $0) }
        try await eventually {
            if everyone.filter({ $0.end == nil }).count > 1 { throw Failed("several are live") }
        }
        try await catchUp()
        let live = everyone.filter { $0.end == nil }
        guard live.count == 1 else { throw Failed("\(live.count) are live") }
        let expect = try step.must("expect")
        for held in everyone where held !== live[0] { try await held.checkEnd(expect) }
        streams[name] = live[0]
    }

    /// Every edit of a cursor is refused, or a gap that shows nothing but the session's own events.
    private func forgeries(_ step: Watched) async throws {
        let session = try step.text("session")
        let allowed = try texts(step.must("allowed"))
        let manager = try self.engine(step).streams()
        for forged in editsOf(try saved(try step.text("cursor"))) {
            do {
                let stream = try await manager.open(session: session, options: OpenOptions(after: forged))
                if !stream.gap() { throw Failed("\(shown(forged)) was taken for a cursor") }
                while let event = stream.tryNext() {
                    if !allowed.contains(event.payload) { throw Failed("\(shown(forged)) gave \(shown(event.payload))") }
                }
                await stream.stop()
            } catch let error as SessionsError {
                if error.code != "invalid_input" { throw Failed("\(shown(forged)): \(error)") }
            }
        }
    }

    /// The cursor an open resumes after: a saved one, one that was tampered with, or any text.
    func cursorOf(_ after: Json?) async throws -> String? {
        guard let after else { return nil }
        if isText(after) { return try named(text(after)) }
        try onlyFields("the cursor", after, ["truncate", "by", "flip", "byte", "extend", "with", "foreign"])
        if after["truncate"] != nil {
            return String(try saved(textOf(after, "truncate")).dropLast(try numberOf(after, "by")))
        }
        if after["flip"] != nil { return flipped(try saved(textOf(after, "flip")), try numberOf(after, "byte")) }
        if after["extend"] != nil { return try saved(textOf(after, "extend")) + textOf(after, "with") }
        return try await foreignCursor(textOf(after, "foreign"))
    }

    /// A cursor for the session of that name from another deployment, three events in.
    private func foreignCursor(_ session: String) async throws -> String {
        try await withEngine(place.foreignUrl) { engine in
            let stream = try await engine.streams().open(session: session)
            for n in 0..<3 {
                _ = try await engine.streams().send(session: session, payload: "foreign-\(n)")
                _ = try await within("the other deployment gives nothing") { await stream.next(until: $0) }
            }
            return stream.cursor()
        }
    }
}

private func statsOf(_ engine: Engine) -> [String: UInt64] {
    let stats = engine.stats()
    return [
        "streams": stats.streams, "subscriptions": stats.subscriptions, "accepted": stats.accepted,
        "dropped": stats.dropped, "duplicates": stats.duplicates, "opened": stats.opened, "gaps": stats.gaps,
        "replaced": stats.replaced, "overflows": stats.overflows, "fenced": stats.fenced,
        "repairs": stats.repairs, "subscriptionOverflows": stats.subscriptionOverflows,
    ]
}

private let cursorAlphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")

func editsOf(_ cursor: String) -> [String] {
    let places = 0..<cursor.count
    return places.map { flipped(cursor, $0) }
        + places.map { String(cursor.prefix($0)) }
        + ["A", "AAAA", "=", " ", "\n"].map { cursor + $0 }
}

private func flipped(_ cursor: String, _ at: Int) -> String {
    var letters = Array(cursor)
    guard at < letters.count else { return cursor }
    let here = cursorAlphabet.firstIndex(of: letters[at]) ?? 0
    letters[at] = cursorAlphabet[(here + 1) % cursorAlphabet.count]
    return String(letters)
}
