// What the steps of info and of subscriptions do.
import McpSessions

extension World {
    /// What clients said. False for a step of another kind.
    func infoStep(_ name: String, _ step: Watched) async throws -> Bool {
        let info = try self.engine(step).info()
        switch name {
        case "info.set":
            let pad = try step["pad"].map { try $0.whole() }
            let value = try padded(step.must("value"), pad)
            let (session, field) = (try step.text("session"), try step.text("field"))
            let put = try await attempt {
                try await info.put(session: session, patch: patchOf(.object([field: value])))
                return .null
            }
            try done(put, step["expect"])
        case "info.get":
            let (session, field) = (try step.text("session"), try step.text("field"))
            try await checkUntil(try step.isTrue("eventually"), step.must("expect")) {
                try await attempt { .object(["value": try await fieldOf(info, session, field)]) }
            }
        case "info.put":
            let (session, patch) = (try step.text("session"), try step.must("patch"))
            let put = try await attempt {
                try await info.put(session: session, patch: patchOf(patch))
                return .null
            }
            try done(put, step["expect"])
        case "info.record":
            let session = try step.text("session")
            let got = try await attempt {
                .object(["value": try await info.get(session: session).map { try recordOf($0) } ?? .null])
            }
            try check(got, step.must("expect"))
        case "info.addSubscription", "info.removeSubscription":
            let (session, uri) = (try step.text("session"), try step.text("uri"))
            let changed = try await attempt {
                name == "info.addSubscription"
                    ? .bool(try await info.addSubscription(session: session, uri: uri))
                    : .bool(try await info.removeSubscription(session: session, uri: uri))
            }
            try done(changed, step["expect"])
        case "info.getSubscriptions":
            let uri = try step.text("uri")
            try checkSet(
                try await attempt { .list(try await info.subscribers(uri: uri).map(Json.string)) },
                step.must("expect")
            )
        case "info.getSessionSubscriptions":
            let session = try step.text("session")
            try checkSet(
                try await attempt { .list(try await info.subscriptions(session: session).map(Json.string)) },
                step.must("expect")
            )
        case "info.delete":
            let session = try step.text("session")
            try check(try await attempt { .bool(try await info.delete(session: session)) }, step.must("expect"))
        default:
            return false
        }
        return true
    }

    /// Subscriptions of the modern era. False for a step of another kind.
    func subscriptionStep(_ name: String, _ step: Watched) async throws -> Bool {
        switch name {
        case "subscription.listen":
            let alias = try step.text("as")
            try takeName(alias)
            let filters = try step.must("filters")
            let node = try nameOf(step)
            let manager = try self.engine(step).subscriptions()
            let (id, origin) = (try idOf(step.must("id")), try step.text("origin"))
            let created = try await attempt {
                let made = try manager.create(id: id, origin: origin, filter: filterOf(filters))
                self.subscriptions[alias] = try made.map { try Listening(node: node, subscription: $0, filters: filters) }
                return .bool(made != nil)
            }
            try check(created, step.must("expect"))
        case "subscription.acknowledge":
            try subscription(step).subscription.acknowledge()
        case "subscription.waiting":
            if let early = try subscription(step).now() { throw Failed("got \(early) before the acknowledgement") }
        case "subscription.notify":
            let pad = try step["pad"].map { try $0.whole() }
            let manager = try self.engine(step).subscriptions()
            let expect = step["expect"]
            for one in try notifications(step.must("notification")) {
                let padding = pad.map { Json.string(String(repeating: "x", count: $0)) }
                let whole = try padding.map { try withParam(one, "pad", $0) } ?? one
                try done(try await attempt { try await manager.send(notification: whole.written); return .null }, expect)
            }
        case "subscription.read":
            try await subscription(step).readExactly(try step.must("expect").items())
        case "subscription.idle":
            let listening = try subscription(step)
            let manager = try liveNode(try step.textOrNil("node") ?? listening.node).engine.subscriptions()
            // Where nothing can be sent that it must get, that nothing is there has to do.
            guard let sent = listening.fence else { try listening.nothingUnread(); break }
            let mark = newFence()
            let marked = try withParam(sent, "fence", .string(mark))
            try await manager.send(notification: marked.written)
            try same("notification", try listening.plain(try await listening.next(mark)), marked)
        case "subscription.ended":
            let listening = try subscription(step)
            try await listening.checkEnd(step.must("expect"))
            if let late = try await listening.nextOrEnd() { throw Failed("gave \(shown(late)) after its end") }
        case "subscription.drop":
            let alias = try step.text("subscription")
            // No variable may keep the subscription.
            let (node, isOver) = (try subscription(step).node, try subscription(step).end != nil)
            try await drop(of: node, isOver: isOver, { $0.stats().subscriptions }) { self.subscriptions[alias] = nil }
        case "subscription.close":
            let manager = try self.engine(step).subscriptions()
            let cancelled = try isCancelled(step)
            let closed = manager.end(id: try idOf(step.must("id")), origin: try step.text("origin"), cancelled: cancelled)
            try same("closed", .bool(closed), step.must("expect"))
        case "subscription.closeAll":
            let closed = try self.engine(step).subscriptions()
                .endAll(origin: try step.textOrNil("origin"), cancelled: try isCancelled(step))
            try same("closed", .count(closed), step.must("expect"))
        default:
            return false
        }
        return true
    }
}

func padded(_ value: Json, _ pad: Int?) throws -> Json {
    guard let pad else { return value }
    var fields = try value.fields()
    fields["pad"] = .string(String(repeating: "x", count: pad))
    return .object(fields)
}

private func patchOf(_ written: Json) throws -> InfoPatch {
    let known: Set = ["clientInfo", "clientCapabilities", "logLevel", "protocolVersion", "initializeParams"]
    try onlyFields("info", written, known)
    return InfoPatch(
        clientInfo: written["clientInfo"]?.written,
        clientCapabilities: written["clientCapabilities"]?.written,
        logLevel: try written["logLevel"].map { try levelOf(text($0)) },
        protocolVersion: try written["protocolVersion"].map { try text($0) },
        initializeParams: written["initializeParams"]?.written
    )
}

private let levels: [LogLevel] = [.debug, .info, .notice, .warning, .error, .critical, .alert, .emergency]

/// Swift has no other levels: what is none is refused before it reaches the engine.
private func levelOf(_ name: String) throws -> LogLevel {
    if let level = levels.first(where: { "\($0)" == name }) { return level }
    throw SessionsError.InvalidInput(
        operation: "log level", reason: "a log level is one of \(levels)", retryable: false, outcomeUnknown: false
    )
}

private func fieldOf(_ info: InfoManager, _ session: String, _ field: String) async throws -> Json {
    switch field {
    case "clientInfo": return try Json.parse(try await info.clientInfo(session: session))
    case "clientCapabilities": return try Json.parse(try await info.clientCapabilities(session: session))
    case "logLevel": return .string("\(try await info.logLevel(session: session))")
    case "protocolVersion": return .string(try await info.protocolVersion(session: session))
    case "initializeParams": return try Json.parse(try await info.initializeParams(session: session))
    default: throw Failed("the runner does not know the field \(field)")
    }
}

private func recordOf(_ info: SessionInfo) throws -> Json {
    var fields: [String: Json] = [:]
    fields["clientInfo"] = try info.clientInfo.map { try Json.parse($0) }
    fields["clientCapabilities"] = try info.clientCapabilities.map { try Json.parse($0) }
    fields["logLevel"] = info.logLevel.map { .string("\($0)") }
    fields["protocolVersion"] = info.protocolVersion.map(Json.string)
    fields["initializeParams"] = try info.initializeParams.map { try Json.parse($0) }
    return .object(fields)
}

private func isCancelled(_ step: Watched) throws -> Bool {
    switch try step.textOrNil("reason") {
    case nil, "cancelled": return true
    case "closed": return false
    case let reason?: throw Failed("the runner does not know the reason \(reason)")
    }
}

private func idOf(_ written: Json) throws -> RequestId {
    if case let .string(text) = written { return .text(value: text) }
    return .number(value: Int64(try written.whole()))
}

private func filterOf(_ written: Json) throws -> SubscriptionFilter {
    let known: Set = ["toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions"]
    try onlyFields("a filter", written, known)
    return SubscriptionFilter(
        toolsListChanged: try written["toolsListChanged"]?.flag() ?? false,
        promptsListChanged: try written["promptsListChanged"]?.flag() ?? false,
        resourcesListChanged: try written["resourcesListChanged"]?.flag() ?? false,
        resourceSubscriptions: try written["resourceSubscriptions"].map { try texts($0) } ?? []
    )
}
