import Chat
import Foundation
import JSONBytes
import Testing

enum Fixture {
    static func cases(_ name: String) throws -> [JSONValue] {
        let folder = try #require(Bundle.module.resourceURL)
        let text = try String(contentsOf: folder.appendingPathComponent("Fixtures/\(name)"), encoding: .utf8)
        return try #require(try JSONValue.parse(text).arrayValue)
    }
}

/// The events of a stream put together.
struct Collected: Equatable {
    var reasoning = ""
    var content = ""
    var calls: [Call] = []
    struct Call: Equatable {
        var name: String
        var arguments: String
    }

    private var reasoningBytes: [UInt8] = []
    private var contentBytes: [UInt8] = []
    private var arguments: [[UInt8]] = []

    /// Feeds the pieces one after the other, copying the events before the next piece as a server would.
    init(_ pieces: [ArraySlice<UInt8>], _ parser: (any OutputParser)?) {
        var events: [OutputEvent] = []
        for piece in pieces {
            events.removeAll(keepingCapacity: true)
            if let parser {
                piece.withUnsafeBufferPointer { parser.append($0, events: &events) }
            } else {
                contentBytes += piece
            }
            take(events)
        }
        events.removeAll()
        parser?.finish(events: &events)
        take(events)
        reasoning = String(decoding: reasoningBytes, as: UTF8.self)
        content = String(decoding: contentBytes, as: UTF8.self)
        for index in calls.indices { calls[index].arguments = String(decoding: arguments[index], as: UTF8.self) }
    }

    private mutating func take(_ events: [OutputEvent]) {
        for event in events {
            switch event {
            case .content(let bytes): contentBytes.append(contentsOf: bytes)
            case .reasoning(let bytes): reasoningBytes.append(contentsOf: bytes)
            case .toolCallStart(let index, let id, let name):
                #expect(index == calls.count)
                #expect(id.hasPrefix("chatcmpl-tool-") && id.count == 46)
                calls.append(Call(name: name, arguments: ""))
                arguments.append([])
            case .toolCallArguments(let index, let fragment):
                #expect(index == calls.count - 1)
                arguments[index].append(contentsOf: fragment)
            }
        }
    }
}
