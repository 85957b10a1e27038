import JSONBytes

/// Finds constraints that no grammar backend can compile, before an engine sees them: an engine answers them with an error
/// that does not say why (vLLM's Python server compiles them for a test, which needs the backend's library).
///
/// Only certain mistakes are found; whatever passes here may still be refused by the engine.
enum ConstraintRules {
    /// What is wrong with a regular expression, or nil.
    static func problem(inRegex pattern: String) -> String? {
        var openGroups = 0
        var inClass = false
        // Whether a quantifier may follow: not at the beginning of an alternative.
        var isRepeatable = false
        var scalars = pattern.unicodeScalars.makeIterator()
        while let scalar = scalars.next() {
            if scalar == "\\" {
                guard scalars.next() != nil else { return "a backslash at the end" }
                isRepeatable = true
                continue
            }
            if inClass {
                if scalar == "]" { inClass = false }
                continue
            }
            switch scalar {
            case "[":
                inClass = true
                isRepeatable = true
            case "(":
                openGroups += 1
                isRepeatable = false
            case ")":
                guard openGroups > 0 else { return "unopened group" }
                openGroups -= 1
                isRepeatable = true
            case "*", "+":
                guard isRepeatable else { return "nothing to repeat before '\(scalar)'" }
            case "|": isRepeatable = false
            case "?":
                // Behind a parenthesis it begins the group's kind: `(?:…)`; the kind itself cannot be repeated.
                break
            default: isRepeatable = true
            }
        }
        if inClass { return "unclosed character class" }
        return openGroups > 0 ? "unclosed group" : nil
    }

    /// What is wrong with an EBNF grammar in the notation of the xgrammar backend, or nil.
    static func problem(inGrammar text: String) -> String? {
        enum Place { case rules, literal, characterClass, comment }
        var place = Place.rules
        var line = 1
        // The rules without literals and comments.
        var bare = ""
        var scalars = text.unicodeScalars.makeIterator()
        while let scalar = scalars.next() {
            if scalar == "\n" {
                if place == .literal { return "unterminated literal in line \(line)" }
                if place == .characterClass { return "unterminated character class in line \(line)" }
                place = .rules
                line += 1
            }
            switch (place, scalar) {
            case (.literal, "\\"), (.characterClass, "\\"):
                if scalars.next() == nil { return "a backslash at the end" }
            case (.literal, "\""), (.characterClass, "]"): place = .rules
            case (.rules, "\""): place = .literal
            case (.rules, "["): place = .characterClass
            case (.rules, "#"): place = .comment
            case (.rules, _): bare.unicodeScalars.append(scalar)
            default: break
            }
        }
        if place == .literal { return "unterminated literal in line \(line)" }
        if place == .characterClass { return "unterminated character class in line \(line)" }
        let words = bare.split(whereSeparator: \.isWhitespace)
        let hasRoot = words.indices.contains { index in
            words[index].hasPrefix("root::=")
                || words[index] == "root" && index + 1 < words.endIndex && words[index + 1].hasPrefix("::=")
        }
        return hasRoot ? nil : "there is no rule 'root ::= …' (EBNF is understood, Lark is not)"
    }

    /// What is wrong with a JSON schema, or nil. Only the places where schemas are nested are looked at.
    static func problem(inSchema schema: JSONValue) -> String? {
        guard let object = schema.objectValue else {
            if case .bool = schema { return nil }
            return "a schema must be an object"
        }
        for (key, value) in object.pairs {
            var nested: [JSONValue] = []
            switch key {
            case "type":
                for name in value.arrayValue ?? [value] {
                    guard let text = name.stringValue else { return "a type must be a text" }
                    guard types.contains(text) else { return "unknown type '\(text.prefix(64))'" }
                }
            case "properties", "patternProperties", "$defs", "definitions":
                guard let members = value.objectValue else { return "'\(key)' must be an object" }
                nested = members.pairs.map(\.value)
            case "anyOf", "oneOf", "allOf", "prefixItems":
                guard let members = value.arrayValue else { return "'\(key)' must be a list" }
                nested = members
            case "items": nested = value.arrayValue ?? [value]
            case "additionalProperties", "additionalItems": nested = [value]
            default: continue
            }
            for schema in nested {
                if let problem = problem(inSchema: schema) { return problem }
            }
        }
        return nil
    }

    private static let types: Set<String> = [
        "string", "number", "integer", "boolean", "object", "array", "null",
    ]
}
