import EngineProtocol
import Foundation
import MessagePack
import Testing

/// A message captured from a real vLLM process.
struct Capture: Decodable, Sendable, CustomTestStringConvertible {
    var version: String
    var peer: String
    var direction: String
    var socket: String
    var kind: String
    var scenario: String
    var frames: [String]
    var decoded: [JSON]

    var testDescription: String { "\(version) \(peer) \(kind): \(scenario)" }
    var family: ProtocolFamily { ProtocolFamily(vllmVersion: version)! }
    var bytes: [[UInt8]] { frames.map(hex) }

    /// Kinds are suffixed with the engine's rank where a scenario has several engines.
    var baseKind: String { kind.split(separator: "-").first.map(String.init) ?? kind }

    static let all: [Capture] = load()

    static func of(_ kinds: String...) -> [Capture] { all.filter { kinds.contains($0.baseKind) } }

    private static func load() -> [Capture] {
        struct Index: Decodable {
            struct File: Decodable {
                var file: String
                var captures: Int
            }
            var files: [File]
        }
        do {
            let folder = Bundle.module.resourceURL!.appendingPathComponent("Fixtures")
            let decoder = JSONDecoder()
            let index = try decoder.decode(
                Index.self, from: Data(contentsOf: folder.appendingPathComponent("index.json")))
            return try index.files.flatMap { file -> [Capture] in
                let text = try Data(contentsOf: folder.appendingPathComponent(file.file))
                let captures = try text.split(separator: UInt8(ascii: "\n")).map {
                    try decoder.decode(Capture.self, from: $0)
                }
                precondition(captures.count == file.captures, "\(file.file) is incomplete")
                return captures
            }
        } catch {
            fatalError("fixtures: \(error)")
        }
    }
}

enum JSON: Decodable, Sendable, Equatable {
    case null
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
    case array([JSON])
    case object([String: JSON])

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int.self) {
            self = .int(value)
        } else if let value = try? container.decode(Double.self) {
            self = .double(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSON].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSON].self))
        }
    }

    subscript(index: Int) -> JSON {
        guard case .array(let values) = self, values.indices.contains(index) else { return .null }
        return values[index]
    }
    subscript(key: String) -> JSON {
        guard case .object(let pairs) = self else { return .null }
        return pairs[key] ?? .null
    }
    var int: Int? { if case .int(let value) = self { value } else { nil } }
    var string: String? { if case .string(let value) = self { value } else { nil } }
    var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    var array: [JSON]? { if case .array(let values) = self { values } else { nil } }
    var object: [String: JSON]? { if case .object(let values) = self { values } else { nil } }
    var double: Double? {
        switch self {
        case .double(let value): value
        case .int(let value): Double(value)
        default: nil
        }
    }
    var isNull: Bool { self == .null }
}

extension JSON {
    /// Whether `value` is what the recorded view describes.
    func describes(_ value: MessagePackValue) -> Bool {
        switch value {
        case .nil: return self == .null
        case .bool(let flag): return self == .bool(flag)
        case .int(let number): return self == .int(number)
        case .unsigned: return false
        case .double(let number): return double == number
        case .string(let text): return self == .string(text)
        case .binary(let bytes): return self == .object(["$raw": .int(bytes.count), "$hex": .string(hexText(bytes))])
        case .ext(let type, let bytes):
            return self["$ext"].int == Int(type) && self["$len"].int == bytes.count
                && self["$hex"].string == hexText(bytes.prefix(64))
        case .array(let values):
            guard let expected = array, expected.count == values.count else { return false }
            return zip(expected, values).allSatisfy { $0.describes($1) }
        case .map(let pairs):
            if let listed = self["$map"].array {
                return listed.count == pairs.count
                    && zip(listed, pairs).allSatisfy { $0[0].describes($1.key) && $0[1].describes($1.value) }
            }
            guard let expected = object, expected.count == pairs.count else { return false }
            return pairs.allSatisfy { pair in
                guard case .string(let key) = pair.key, let view = expected[key] else { return false }
                return view.describes(pair.value)
            }
        }
    }
}

final class ArrayFrames: FrameSource {
    private let buffers: [UnsafeMutableRawBufferPointer]

    init(_ frames: [[UInt8]]) {
        buffers = frames.map { frame in
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: frame.count, alignment: 8)
            buffer.copyBytes(from: frame)
            return buffer
        }
    }
    deinit { for buffer in buffers { buffer.deallocate() } }
    var count: Int { buffers.count }
    subscript(index: Int) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(buffers[index]) }
}

func hex(_ text: String) -> [UInt8] {
    func digit(_ byte: UInt8) -> UInt8 { byte <= 0x39 ? byte - 0x30 : byte - 0x57 }
    let digits = Array(text.utf8)
    return stride(from: 0, to: digits.count - 1, by: 2).map { digit(digits[$0]) << 4 | digit(digits[$0 + 1]) }
}

func hexText(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

extension [UInt8] {
    func read<R>(_ body: (inout MessagePackReader) throws(MessagePackError) -> R) throws -> R {
        try MessagePackReader.read(self, body)
    }
    func withBuffer<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R { try withUnsafeBytes(body) }
}

func parse(_ text: String) throws -> JSON { try JSONDecoder().decode(JSON.self, from: Data(text.utf8)) }
