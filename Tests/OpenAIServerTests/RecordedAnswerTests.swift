import Foundation
import JSONBytes
import NIOEmbedded
import NIOPosix
import OpenAIServer
import Testing

/// One request and what vLLM's Python frontend answered.
struct RecordedAnswer: Sendable, CustomTestStringConvertible {
    let id: String
    let path: String
    let headers: [(String, String)]
    let request: String
    let status: Int
    let body: JSONValue

    var testDescription: String { id }

    static let all: [RecordedAnswer] = {
        let url = Bundle.module.resourceURL!.appendingPathComponent("Fixtures/answers.json")
        let bytes = [UInt8](try! Data(contentsOf: url))
        return try! JSONValue.parse(bytes).arrayValue!.map { entry in
            RecordedAnswer(
                id: entry["id"]!.stringValue!, path: entry["path"]!.stringValue!,
                headers: entry["headers"]!.objectValue!.pairs.map { ($0.key, $0.value.stringValue!) },
                request: entry["request"]!.stringValue!, status: entry["status"]!.numberValue!.intValue!,
                body: entry["body"]!)
        }
    }()
}

/// The generation routes on an embedded channel, with the recorded model's tokenizer and an engine that does as told.
final class GenerationServer {
    let engine: ObedientEngine
    let wire: WireConnection

    init(
        engine: ObedientEngine = ObedientEngine(), configure: @escaping (inout ServerConfiguration) -> Void = { _ in }
    ) throws {
        self.engine = engine
        let model = Bundle.module.resourceURL!.appendingPathComponent("Fixtures/tiny").path
        var failure: (any Error)?
        wire = try WireConnection(
            configure: {
                $0.modelTag = model
                $0.toolCallParser = "hermes"
                configure(&$0)
            }, connection: engine,
            routes: { router, context in
                do {
                    try GenerationAPI(configuration: context.configuration, pool: .singleton)
                        .register(in: &router, server: context)
                } catch {
                    failure = error
                }
            })
        if let failure { throw failure }
    }

    deinit { wire.close() }

    /// Sends a request and lets the engine run until nothing is left to do.
    func post(_ path: String, _ body: String, headers: [(String, String)] = [("Content-Type", "application/json")])
        throws
        -> WireResponse
    {
        var head = "POST \(path) HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n"
        for (name, value) in headers { head += "\(name): \(value)\r\n" }
        try wire.send(head + "\r\n" + body)
        while engine.step() { wire.loop.run() }
        return try #require(WireResponse.parse(try wire.receive()).first, "no complete response")
    }
}

/// A request that vLLM's Python frontend refused, recorded by `tools/interop/differential.py`.
struct RecordedRefusal: Sendable, CustomTestStringConvertible {
    let path: String
    let request: String
    let error: [JSONValue?]

    var testDescription: String { "\(path) \(request.prefix(200))" }

    static let all: [RecordedRefusal] = {
        let url = Bundle.module.resourceURL!.appendingPathComponent("Fixtures/refusals.json")
        return try! JSONValue.parse([UInt8](try! Data(contentsOf: url))).arrayValue!.map { entry in
            RecordedRefusal(
                path: entry["path"]!.stringValue!, request: entry["request"]!.stringValue!,
                error: [entry["status"], entry["type"], entry["param"], entry["code"]])
        }
    }()
}

@Suite struct RecordedAnswerTests {
    @Test(arguments: RecordedRefusal.all)
    func refusesAsThePythonFrontend(_ recorded: RecordedRefusal) throws {
        let server = try GenerationServer { $0.enableScaleOut = true }
        let response = try server.post(recorded.path, recorded.request)
        let error = try JSONValue.parse(response.body)["error"]
        #expect(
            [.number(response.status), error?["type"], error?["param"], error?["code"]] == recorded.error,
            "\(response.body)")
    }

    @Test(arguments: RecordedAnswer.all)
    func answersAsThePythonFrontend(_ recorded: RecordedAnswer) throws {
        let server = try GenerationServer()
        var headers = recorded.headers
        if !headers.contains(where: { $0.0.lowercased() == "content-type" }) {
            headers.append(("Content-Type", "application/json"))
        }
        let response = try server.post(recorded.path, recorded.request, headers: headers)
        #expect(response.status == recorded.status, "\(response.body.prefix(300))")
        let expected: JSONValue
        let actual: JSONValue
        if case .array(let frames) = recorded.body {
            expected = try AnswerShape.merged(frames)
            actual = try AnswerShape.merged(AnswerShape.events(response.body))
        } else {
            expected = AnswerShape.comparable(recorded.body)
            actual = AnswerShape.comparable(try JSONValue.parse(response.body))
        }
        #expect(actual == expected)
        #expect(server.engine.inFlight == 0)
    }

    @Test func theFixtureCoversEveryRoute() {
        #expect(Set(RecordedAnswer.all.map(\.path)).count == 4)
        #expect(RecordedAnswer.all.count > 100)
    }
}

/// Reduces answers to what the API promises: no ids, times or names of the server; null is absent; error texts are free.
enum AnswerShape {
    private static let masked: Set = ["id", "created", "system_fingerprint", "message_text"]

    static func comparable(_ value: JSONValue) -> JSONValue {
        switch value {
        case .object(let object):
            var reduced: [(String, JSONValue)] = []
            for (key, member) in object.pairs where !masked.contains(key) && !member.isNull {
                if key == "message", case .string = member { continue }
                let member = comparable(member)
                reduced.append((key, member))
            }
            return .object(JSONObject(reduced.sorted { $0.0 < $1.0 }))
        case .array(let elements): return .array(elements.map(comparable))
        // The Python frontend drops a character that the output ends inside; ours shows U+FFFD, as the Rust one.
        case .string(let text): return .string(text.replacingOccurrences(of: "\u{FFFD}", with: ""))
        default: return value
        }
    }

    /// The `data:` payloads of an event stream.
    static func events(_ body: String) throws -> [JSONValue] {
        try body.components(separatedBy: "\n\n").filter { !$0.isEmpty }.map { event in
            let payload = try #require(event.hasPrefix("data: ") ? String(event.dropFirst(6)) : nil, "\(event)")
            let data: JSONValue = payload == "[DONE]" ? .string(payload) : try JSONValue.parse(payload)
            return .object(JSONObject([("data", data)]))
        }
    }

    /// Per choice: all text, reasons and token ids, however the stream was cut; then usage and the end marker.
    static func merged(_ frames: [JSONValue]) throws -> JSONValue {
        var texts: [Int: String] = [:]
        var reasons: [Int: JSONValue] = [:]
        var tokens: [Int: [JSONValue]] = [:]
        var usage: JSONValue = .null
        var done = 0
        for frame in frames {
            let data = try #require(frame["data"])
            if data.stringValue == "[DONE]" {
                done += 1
                continue
            }
            if let last = data["usage"], !last.isNull { usage = comparable(last) }
            for choice in data["choices"]?.arrayValue ?? [] {
                let index = try #require(choice["index"]?.numberValue?.intValue)
                texts[index, default: ""] +=
                    choice["text"]?.stringValue ?? choice["delta"]?["content"]?.stringValue ?? ""
                if let ids = choice["token_ids"]?.arrayValue { tokens[index, default: []] += ids }
                if let reason = choice["finish_reason"], !reason.isNull {
                    #expect(reasons[index] == nil, "two ends of one choice")
                    reasons[index] = .array([reason, choice["stop_reason"] ?? .null])
                }
            }
        }
        func array<Value>(_ values: [Int: Value], _ convert: (Value) -> JSONValue) -> JSONValue {
            .array(values.sorted { $0.key < $1.key }.map { convert($0.value) })
        }
        return .object(
            JSONObject([
                ("texts", array(texts, JSONValue.string)), ("reasons", array(reasons) { $0 }),
                ("tokens", array(tokens, JSONValue.array)), ("usage", usage), ("done", .number(done)),
            ]))
    }
}
