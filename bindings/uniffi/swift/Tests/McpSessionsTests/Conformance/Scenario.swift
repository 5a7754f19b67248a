// The scenario files: read strictly, with every repetition written out.
import Foundation

/// A step and where it stands, such as `2[i=17].1`; or branches that run at once.
struct Located: Sendable {
    let at: String
    var step: Json?
    var branches: [[Located]] = []
}

struct Scenario: Sendable {
    let name: String
    let requires: [String]
    let options: [String: Json]
    let nodes: [String]
    let steps: [Located]

    init(_ written: Json) throws {
        let known: Set = ["name", "title", "guarantees", "peer", "requires", "options", "nodes", "steps"]
        try onlyFields("a scenario", written, known)
        name = try textOf(written, "name")
        guard try !textOf(written, "title").isEmpty, try !strings(written["guarantees"]).isEmpty else {
            throw Failed("\(name) proves nothing")
        }
        requires = try strings(written["requires"])
        options = try written["options"]?.fields() ?? [:]
        nodes = try written["nodes"].map { try strings($0) } ?? ["a"]
        steps = try writeOut(field(written, "steps").items(), "")
        if steps.isEmpty { throw Failed("\(name) has no steps") }
    }

    /// Whether some step is of this kind, or has this field.
    func has(_ test: (Json) -> Bool) -> Bool {
        hasStep(steps, test)
    }
}

private func hasStep(_ steps: [Located], _ test: (Json) -> Bool) -> Bool {
    steps.contains { one in
        one.step.map(test) == true || one.branches.contains { hasStep($0, test) }
    }
}

private let schemaName = "scenario.schema.json"

/// Where the scenarios are: beside this package in the repository.
func scenarioFolder() -> URL {
    let asked = ProcessInfo.processInfo.environment["MCP_SESSIONS_SCENARIOS"]
    if let asked { return URL(fileURLWithPath: asked, isDirectory: true) }
    // bindings/uniffi/swift/Tests/McpSessionsTests/Conformance/Scenario.swift
    let top = (0..<7).reduce(URL(fileURLWithPath: #filePath)) { path, _ in path.deletingLastPathComponent() }
    return top.appendingPathComponent("tests/conformance", isDirectory: true)
}

/// The scenarios of every file, by the file's name.
func scenarioFiles() throws -> [(file: String, scenarios: [Json])] {
    guard let walk = FileManager.default.enumerator(at: scenarioFolder(), includingPropertiesForKeys: nil) else {
        throw Failed("there is no folder \(scenarioFolder().path)")
    }
    let files = walk.compactMap { $0 as? URL }
        .filter { $0.pathExtension == "json" && $0.lastPathComponent != schemaName }
        .sorted { $0.path < $1.path }
    return try files.map { file in
        let written = try JSONDecoder().decode([Json].self, from: Data(contentsOf: file))
        return (file.deletingPathExtension().lastPathComponent, written)
    }
}

/// The names of all steps in the schema.
func stepsOfSchema() throws -> Set<String> {
    let file = scenarioFolder().appendingPathComponent(schemaName)
    let schema = try JSONDecoder().decode(Json.self, from: Data(contentsOf: file))
    var names: Set<String> = []
    for kind in ["step", "sessionStep"] {
        let shapes = try field(field(field(schema, "$defs"), kind), "oneOf").items()
        for shape in shapes {
            let named = try field(field(shape, "properties"), "do")
            names.formUnion(try named["enum"].map { try strings($0) } ?? [textOf(named, "const")])
        }
    }
    return names
}

private func writeOut(_ steps: [Json], _ prefix: String) throws -> [Located] {
    try steps.enumerated().flatMap { n, step in try writeOutOne(step, "\(prefix)\(n + 1)") }
}

private func writeOutOne(_ step: Json, _ at: String) throws -> [Located] {
    switch try textOf(step, "do") {
    case "repeat":
        try onlyFields("repeat", step, ["do", "from", "to", "steps"])
        let turns = try numberOf(step, "from")...numberOf(step, "to")
        return try turns.flatMap { i in
            try writeOut(substituted(field(step, "steps"), i).items(), "\(at)[i=\(i)].")
        }
    case "parallel":
        try onlyFields("parallel", step, ["do", "branches"])
        let branches = try field(step, "branches").items()
        return [Located(at: at, branches: try branches.enumerated().map { n, one in
            try writeOut(one.items(), "\(at).\(n + 1).")
        })]
    default:
        return [Located(at: at, step: step)]
    }
}

/// Puts the number of a turn in place of `{i}`; a text that is nothing else becomes a number.
private func substituted(_ value: Json, _ i: Int) -> Json {
    switch value {
    case let .string(text):
        return text == "{i}" ? .number(Double(i)) : .string(text.replacingOccurrences(of: "{i}", with: "\(i)"))
    case let .list(items): return .list(items.map { substituted($0, i) })
    case let .object(fields): return .object(fields.mapValues { substituted($0, i) })
    default: return value
    }
}

func field(_ written: Json, _ name: String) throws -> Json {
    guard let value = written[name] else { throw Failed("missing field `\(name)` of \(shown(written))") }
    return value
}

func strings(_ written: Json?) throws -> [String] {
    try (written?.items() ?? []).map { try text($0) }
}

func textOf(_ written: Json, _ name: String) throws -> String {
    try text(field(written, name))
}

func numberOf(_ written: Json, _ name: String) throws -> Int {
    try field(written, name).whole()
}

/// Whether it is a text, maybe a written-out one.
func isText(_ written: Json) -> Bool {
    if case .string = written { return true }
    return written["repeat"] != nil
}

/// `"text"` or `{"repeat": "x", "times": 3}`.
func text(_ written: Json) throws -> String {
    if case let .string(text) = written { return text }
    return String(repeating: try textOf(written, "repeat"), count: try numberOf(written, "times"))
}

/// A text, `{"sequence": "m", "from": 1, "to": 9}`, or a list of both.
func texts(_ written: Json) throws -> [String] {
    if case let .list(items) = written { return try items.flatMap { try texts($0) } }
    if written["sequence"] != nil {
        let name = try textOf(written, "sequence")
        return try (numberOf(written, "from")...numberOf(written, "to")).map { "\(name)\($0)" }
    }
    return [try text(written)]
}

/// `{"each": {…}, "from": 1, "to": 9}` stands for notifications numbered in `params.n`.
func notifications(_ written: Json) throws -> [Json] {
    guard let each = written["each"] else { return [written] }
    return try (numberOf(written, "from")...numberOf(written, "to")).map { n in
        try withParam(each, "n", .number(Double(n)))
    }
}

/// A notification with one more parameter.
func withParam(_ notification: Json, _ name: String, _ value: Json) throws -> Json {
    var fields = try notification.fields()
    var params = try fields["params"]?.fields() ?? [:]
    params[name] = value
    fields["params"] = .object(params)
    return .object(fields)
}
