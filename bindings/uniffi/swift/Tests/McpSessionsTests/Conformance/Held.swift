// Streams and subscriptions in a scenario's hands, and how they are read.
import Foundation
import McpSessions

/// What fences begin with; reads pass over them.
let fence = "\u{1}fence-"

/// What is read one by one.
protocol Reader: AnyObject {
    associatedtype Item: Sendable

    var node: String { get }
    var what: String { get }
    /// A step has looked at its end.
    var endExpected: Bool { get set }
    var end: String? { get }

    func take(_ until: Cancellation) async -> Item?
    func takeNow() -> Item?
    func mark(_ item: Item) throws -> String?
    func plain(_ item: Item) throws -> Json
}

extension Reader {
    /// The next item that is not a fence (but for the one waited for), or nothing at the end.
    func nextOrEnd(_ wanted: String? = nil) async throws -> Item? {
        while true {
            let item = try await within("waited in vain for the \(what)'s next item") { await self.take($0) }
            guard let item, try isOtherFence(item, wanted) else { return item }
        }
    }

    func next(_ wanted: String? = nil) async throws -> Item {
        guard let item = try await nextOrEnd(wanted) else {
            throw Failed("the \(what) has ended (\(end ?? "no reason"))")
        }
        return item
    }

    /// What is there now, if anything.
    func now() throws -> Item? {
        while let item = takeNow() {
            if try !isOtherFence(item, nil) { return item }
        }
        return nil
    }

    func nothingUnread() throws {
        if let item = try now() { throw Failed("unread \(shown(try plain(item)))") }
    }

    func checkEnd(_ reason: Json) async throws {
        try await eventually { if self.end == nil { throw Failed("the \(self.what) did not end") } }
        try same("end", end.map(Json.string) ?? .null, reason)
        endExpected = true
    }

    /// Nothing unexpected is left over: nothing unread, no end.
    func checkLeftovers() throws {
        try nothingUnread()
        if let end, end != "replaced", !endExpected { throw Failed("it ended (\(end)), and no step expects it") }
    }

    private func isOtherFence(_ item: Item, _ wanted: String?) throws -> Bool {
        guard let mark = try mark(item), mark.hasPrefix(fence) else { return false }
        return mark != wanted
    }
}

/// A stream that the scenario opened.
final class Held: Reader {
    let node: String
    let what = "stream"
    let stream: EventStream
    var endExpected = false
    /// The payloads read so far, fences left out.
    private(set) var read: [String] = []

    init(node: String, stream: EventStream) {
        self.node = node
        self.stream = stream
    }

    var end: String? {
        stream.endReason().map { "\($0)" }
    }

    func take(_ until: Cancellation) async -> Event? {
        await stream.next(until: until)
    }

    func takeNow() -> Event? {
        stream.tryNext()
    }

    func mark(_ item: Event) -> String? {
        item.payload
    }

    func plain(_ item: Event) -> Json {
        .object(["payload": .string(item.payload), "kind": .string("\(item.kind)")])
    }

    func readExactly(_ wanted: [Json]) async throws {
        for one in wanted {
            if one["kind"] != nil {
                try onlyFields("an event", one, ["payload", "kind"])
                let event = try await nextEvent()
                try same("event", event.payload, textOf(one, "payload"))
                try same("kind", "\(event.kind)", textOf(one, "kind"))
            } else {
                try await readTexts(texts(one))
            }
        }
    }

    func readTexts(_ wanted: [String]) async throws {
        for one in wanted { try same("event", try await nextEvent().payload, one) }
    }

    func readInterleaved(_ sequences: [[String]]) async throws {
        var left = sequences.map { $0[...] }
        while left.contains(where: { !$0.isEmpty }) {
            let payload = try await nextEvent().payload
            guard let taken = left.firstIndex(where: { $0.first == payload }) else {
                throw Failed("\(shown(payload)) is not next in any of the sequences")
            }
            left[taken].removeFirst()
        }
    }

    /// Reads to the end of the stream.
    func readHead(_ wanted: [String], _ counts: ClosedRange<Int>) async throws {
        try await eventually { if self.end == nil { throw Failed("the stream did not end") } }
        var taken = 0
        while let event = try await nextOrEnd() {
            read.append(event.payload)
            try same("event", event.payload, taken < wanted.count ? wanted[taken] : "nothing more")
            taken += 1
        }
        try checkCount(taken, counts)
    }

    /// Reads until the last of `wanted`: what came must be the end of it, whole.
    func readTail(_ wanted: [String], _ counts: ClosedRange<Int>) async throws {
        if wanted.isEmpty { throw Failed("the list is empty") }
        var got: [String] = []
        while got.last != wanted.last {
            if got.count > wanted.count { throw Failed("more came than there is") }
            got.append(try await nextEvent().payload)
        }
        let all = { (list: [String]) in Json.list(list.map(Json.string)) }
        try same("the end of the list", all(got), all(Array(wanted.suffix(got.count))))
        try checkCount(got.count, counts)
    }

    private func nextEvent() async throws -> Event {
        let event = try await next()
        try same("the cursor after the event", stream.cursor(), event.cursor)
        read.append(event.payload)
        return event
    }
}

private func checkCount(_ count: Int, _ counts: ClosedRange<Int>) throws {
    if !counts.contains(count) { throw Failed("read \(count) events, expected \(counts)") }
}

/// A subscription that the scenario made.
final class Listening: Reader {
    let node: String
    let what = "subscription"
    let subscription: Subscription
    var endExpected = false
    /// A notification that it lets through.
    let fence: Json?

    init(node: String, subscription: Subscription, filters: Json) throws {
        self.node = node
        self.subscription = subscription
        fence = try fenceFor(filters)
    }

    var end: String? {
        subscription.endReason().map { "\($0)" }
    }

    func take(_ until: Cancellation) async -> String? {
        await subscription.next(until: until)
    }

    func takeNow() -> String? {
        subscription.tryNext()
    }

    func mark(_ item: String) throws -> String? {
        try plain(item)["params"]?["fence"].map { try text($0) }
    }

    func plain(_ item: String) throws -> Json {
        try Json.parse(item)
    }

    func readExactly(_ wanted: [Json]) async throws {
        for one in try wanted.flatMap({ try notifications($0) }) {
            try same("notification", try plain(try await next()), one)
        }
    }
}

private func fenceFor(_ filters: Json) throws -> Json? {
    let kinds = [
        ("toolsListChanged", "tools/list_changed"),
        ("promptsListChanged", "prompts/list_changed"),
        ("resourcesListChanged", "resources/list_changed"),
    ]
    for (name, kind) in kinds where filters[name] == .bool(true) { return notification(kind, [:]) }
    guard let uri = try filters["resourceSubscriptions"].flatMap({ try texts($0).first }) else { return nil }
    return notification("resources/updated", ["uri": .string(uri)])
}

private func notification(_ kind: String, _ params: [String: Json]) -> Json {
    .object(["jsonrpc": .string("2.0"), "method": .string("notifications/\(kind)"), "params": .object(params)])
}
