import Foundation
import JSONBytes
import Jinja
import Testing

/// Templates rendered by Python's Jinja2 (see tools/fixtures/generate_jinja_fixtures.py) and by this interpreter.
@Suite struct GoldenTests {
    @Test func smallTemplates() throws {
        let variables = try #require(try Fixture.json("variables.json").objectValue)
        let failures = try Fixture.cases("small.json").compactMap { Self.failure($0, template: nil, variables) }
        #expect(failures.isEmpty, "\(failures.count) differ:\n\(failures.joined(separator: "\n"))")
    }

    @Test func chatTemplates() throws {
        let conversations = try #require(try Fixture.json("conversations.json").objectValue)
        var templates: [String: String] = [:]
        let cases = try Fixture.cases("chats.json")
        #expect(cases.count > 200)
        var failures: [String] = []
        for one in cases {
            let parts = try #require(one["name"]?.stringValue).components(separatedBy: ": ")
            var variables = try #require(conversations[parts[1]]?.objectValue)
            variables["bos_token"] = .string("<s>")
            variables["eos_token"] = .string("</s>")
            if templates[parts[0]] == nil { templates[parts[0]] = try Fixture.text("templates/\(parts[0]).jinja") }
            if let failure = Self.failure(one, template: templates[parts[0]], variables) { failures.append(failure) }
        }
        #expect(failures.isEmpty, "\(failures.count) differ:\n\(failures.joined(separator: "\n"))")
    }

    /// Cases made with `--out`, for differential runs with random templates or templates that are not ours to keep.
    @Test(.enabled(if: ProcessInfo.processInfo.environment["JINJA_CASES"] != nil))
    func extraCases() throws {
        let path = try #require(ProcessInfo.processInfo.environment["JINJA_CASES"])
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let cases = try #require(try JSONValue.parse(text).arrayValue)
        let failures = cases.compactMap {
            Self.failure($0, template: nil, $0["variables"]?.objectValue ?? JSONObject())
        }
        #expect(failures.isEmpty, "\(failures.count) of \(cases.count) differ:\n\(failures.joined(separator: "\n"))")
    }

    private static func failure(_ one: JSONValue, template: String?, _ variables: JSONObject) -> String? {
        let source = template ?? one["template"]?.stringValue ?? ""
        let expected = one["output"]?.stringValue
        let result: String
        do throws(TemplateError) {
            let rendered = try Template(source).render(
                variables.pairs.map { ($0.key, $0.value) },
                clock: { TemplateTime(secondsSinceEpoch: 1_721_997_296, isUTC: true) })
            if let expected, utf8Equal(expected, rendered) { return nil }
            result = rendered.debugDescription
        } catch {
            if expected == nil { return nil }
            result = "\(error.kind): \(error)"
        }
        let name = one["name"]?.stringValue ?? ""
        let wanted = expected?.debugDescription ?? one["error"]?.stringValue ?? ""
        return "\(name) \(template == nil ? source.debugDescription : "")\n    want \(wanted)\n    got  \(result)"
    }
}

enum Fixture {
    static func text(_ name: String) throws -> String {
        let folder = try #require(Bundle.module.resourceURL)
        return try String(contentsOf: folder.appendingPathComponent("Fixtures/\(name)"), encoding: .utf8)
    }

    static func json(_ name: String) throws -> JSONValue { try JSONValue.parse(try text(name)) }

    static func cases(_ name: String) throws -> [JSONValue] { try #require(try json(name).arrayValue) }
}
