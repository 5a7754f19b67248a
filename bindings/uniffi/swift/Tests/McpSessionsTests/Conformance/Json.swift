// JSON as scenarios are written in: 1 is 1.0, and not "1".
import Foundation

enum Json: Equatable, Sendable, Decodable {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case list([Json])
    case object([String: Json])

    init(from decoder: Decoder) throws {
        let value = try decoder.singleValueContainer()
        if value.decodeNil() {
            self = .null
        } else if let it = try? value.decode(Bool.self) {
            self = .bool(it)
        } else if let it = try? value.decode(Double.self) {
            self = .number(it)
        } else if let it = try? value.decode(String.self) {
            self = .string(it)
        } else if let it = try? value.decode([Json].self) {
            self = .list(it)
        } else {
            self = .object(try value.decode([String: Json].self))
        }
    }

    static func parse(_ text: String) throws -> Json {
        try JSONDecoder().decode(Json.self, from: Data(text.utf8))
    }

    static func count(_ number: UInt64) -> Json {
        .number(Double(number))
    }

    subscript(name: String) -> Json? {
        if case let .object(fields) = self { return fields[name] }
        return nil
    }

    func fields() throws -> [String: Json] {
        guard case let .object(fields) = self else { throw Failed("\(shown(self)) is no object") }
        return fields
    }

    func items() throws -> [Json] {
        guard case let .list(items) = self else { throw Failed("\(shown(self)) is no list") }
        return items
    }

    func whole() throws -> Int {
        guard case let .number(number) = self, let whole = Int(exactly: number) else {
            throw Failed("\(shown(self)) is no whole number")
        }
        return whole
    }

    func flag() throws -> Bool {
        guard case let .bool(flag) = self else { throw Failed("\(shown(self)) is neither true nor false") }
        return flag
    }

    /// As JSON; whole numbers without a point, so that options read them.
    var written: String {
        switch self {
        case .null: return "null"
        case let .bool(flag): return "\(flag)"
        case let .number(number): return Int64(exactly: number).map { "\($0)" } ?? "\(number)"
        case let .string(text): return quoted(text)
        case let .list(items): return "[\(items.map(\.written).joined(separator: ","))]"
        case let .object(fields):
            let pairs = fields.sorted { $0.key < $1.key }.map { "\(quoted($0.key)):\($0.value.written)" }
            return "{\(pairs.joined(separator: ","))}"
        }
    }
}

private func quoted(_ text: String) -> String {
    var out = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": out += "\\\""
        case "\\": out += "\\\\"
        case let control where control.value < 0x20:
            let digits = String(control.value, radix: 16)
            out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        default: out.unicodeScalars.append(scalar)
        }
    }
    return out + "\""
}
