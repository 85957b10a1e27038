import EngineProtocol
import JSONBytes

/// Reads `response_format` and `structured_outputs` into one grammar constraint (vLLM: `StructuredOutputsParams`).
enum StructuredOutputsFields {
    static func read(_ reader: inout FieldReader) -> StructuredOutputs? {
        let explicit = readExplicit(&reader)
        let format = readResponseFormat(&reader)
        // As in vLLM a response format wins over an explicit constraint of the same request.
        return format ?? explicit
    }

    private static func readExplicit(_ reader: inout FieldReader) -> StructuredOutputs? {
        guard let object = reader.object("structured_outputs") else { return nil }
        var nested = FieldReader(object, path: "body.structured_outputs")
        defer { reader.absorb(nested) }
        var constraints: [StructuredOutputs.Constraint] = []
        if let json = nested.value("json") {
            switch json {
            case .string(let text): constraints.append(.json(text))
            case .object: constraints.append(.json(json.serialized()))
            default: nested.report("json", "Input should be a JSON schema as an object or as text")
            }
        }
        if let regex = nested.string("regex") { constraints.append(.regex(regex)) }
        if let choice = nested.strings("choice"), !choice.isEmpty {
            constraints.append(.grammar(Self.grammar(choices: choice)))
        }
        if let grammar = nested.string("grammar") { constraints.append(.grammar(grammar)) }
        if nested.bool("json_object") == true { constraints.append(.jsonObject) }
        if let tag = nested.string("structural_tag") { constraints.append(.structuralTag(tag)) }
        guard nested.issues.isEmpty else { return nil }
        // Another number is refused by `validate`, with the error type of a cross-field rule.
        guard constraints.count == 1, let constraint = constraints.first else { return nil }
        var outputs = StructuredOutputs(constraint: constraint)
        outputs.disableAnyWhitespace = nested.bool("disable_any_whitespace") ?? false
        outputs.disableAdditionalProperties = nested.bool("disable_additional_properties") ?? false
        outputs.whitespacePattern = nested.string("whitespace_pattern")
        return outputs
    }

    private static func readResponseFormat(_ reader: inout FieldReader) -> StructuredOutputs? {
        guard let object = reader.object("response_format") else { return nil }
        var nested = FieldReader(object, path: "body.response_format")
        defer { reader.absorb(nested) }
        switch nested.string("type") {
        case "text": return nil
        case "json_object": return StructuredOutputs(constraint: .jsonObject)
        case "json_schema":
            guard let schemaObject = nested.object("json_schema") else {
                // Reported by `validateResponseFormat` with the error type of a cross-field rule.
                return nil
            }
            var schemaReader = FieldReader(schemaObject, path: "body.response_format.json_schema")
            if schemaReader.string("name") == nil, schemaReader.issues.isEmpty {
                schemaReader.report("name", "Field required")
            }
            let schema = schemaReader.object("schema")
            _ = schemaReader.bool("strict")
            nested.absorb(schemaReader)
            return schema.map { StructuredOutputs(constraint: .json(JSONValue.object($0).serialized())) }
        case "structural_tag":
            return StructuredOutputs(constraint: .structuralTag(JSONValue.object(object).serialized()))
        case nil:
            if nested.issues.isEmpty { nested.report("type", "Field required") }
            return nil
        default:
            nested.report("type", "Input should be 'text', 'json_object', 'json_schema' or 'structural_tag'")
            return nil
        }
    }

    /// Cross-field rules that are not type errors.
    static func validate(_ object: JSONObject, isChat: Bool = false) throws(APIError) {
        if let tag = object["structured_outputs"]?["structural_tag"]?.stringValue, !isStructuralTag(tag) {
            throw .badRequest(
                "Invalid structured_outputs structural_tag specification.", param: "structured_outputs")
        }
        if let explicit = object["structured_outputs"]?.objectValue { try validate(explicit: explicit, isChat: isChat) }
        guard let format = object["response_format"]?.objectValue else { return }
        if format["type"]?.stringValue == "json_schema", let inner = format["json_schema"]?.objectValue {
            guard let schema = inner["schema"], !schema.isNull else {
                throw .badRequest("response_format of type 'json_schema' needs a `schema` in `json_schema`.")
            }
            try refuse(ConstraintRules.problem(inSchema: schema), "JSON schema")
        }
        if format["type"]?.stringValue == "structural_tag", !isStructuralTag(format) {
            throw .badRequest("Invalid response_format structural_tag specification.", param: "response_format")
        }
        if format["type"]?.stringValue == "json_schema", format["json_schema"]?.objectValue == nil {
            throw APIError.badRequest(
                "When response_format type is 'json_schema', the 'json_schema' field must be provided.",
                param: "response_format")
        }
        if let explicit = object["structured_outputs"]?.objectValue { try validate(explicit, beside: format) }
    }

    /// A response format takes the place of a constraint of its kind, and does not go with another.
    private static func validate(_ explicit: JSONObject, beside format: JSONObject) throws(APIError) {
        let kind: String? =
            switch format["type"]?.stringValue {
            case "json_object": "json_object"
            case "json_schema": "json"
            case "structural_tag": "structural_tag"
            default: nil
            }
        guard let kind else { return }
        let others = ["json", "regex", "choice", "grammar", "json_object", "structural_tag"].contains { key in
            key != kind && !(explicit[key]?.isNull ?? true)
        }
        guard !others else {
            throw .badRequest(
                "You can only use one kind of structured outputs constraint, but response_format adds another one.")
        }
    }

    /// Whether it has the form of a structural tag, of today or of before.
    private static func isStructuralTag(_ tag: JSONObject) -> Bool {
        if tag["format"]?["type"]?.stringValue != nil { return true }
        return tag["structures"]?.arrayValue?.isEmpty == false && tag["triggers"]?.arrayValue?.isEmpty == false
    }

    private static func isStructuralTag(_ text: String) -> Bool {
        ((try? JSONValue.parse(text))?.objectValue).map(isStructuralTag) ?? false
    }

    private static func validate(explicit object: JSONObject, isChat: Bool) throws(APIError) {
        let given = ["json", "regex", "choice", "grammar", "structural_tag"].count { !(object[$0]?.isNull ?? true) }
        let jsonObject = object["json_object"].flatMap(FieldReader.bool) == true
        guard given + (jsonObject ? 1 : 0) == 1 else {
            // The Python server checks these three as fields of the request, the others later; in chats it names none.
            let early = ["json", "regex", "choice"].count { !(object[$0]?.isNull ?? true) }
            throw .badRequest(
                "Structured outputs take exactly one of json, regex, choice, grammar, json_object and structural_tag.",
                param: early > 1 && !isChat ? "structured_outputs" : nil)
        }
        if object["choice"]?.arrayValue?.isEmpty == true { throw .badRequest("choice cannot be an empty list") }
        if let pattern = object["regex"]?.stringValue {
            try refuse(ConstraintRules.problem(inRegex: pattern), "regular expression")
        }
        if let grammar = object["grammar"]?.stringValue {
            if grammar.isEmpty { throw .badRequest("structured_outputs.grammar cannot be an empty string") }
            try refuse(ConstraintRules.problem(inGrammar: grammar), "grammar")
        }
        if var schema = object["json"], !schema.isNull {
            if let text = schema.stringValue {
                guard let parsed = try? JSONValue.parse(text) else {
                    throw .badRequest("The JSON schema cannot be used: it is not valid JSON")
                }
                schema = parsed
            }
            try refuse(ConstraintRules.problem(inSchema: schema), "JSON schema")
        }
    }

    private static func refuse(_ problem: String?, _ what: String) throws(APIError) {
        // Without `param`, as vLLM names none for what its grammar backend refuses.
        if let problem { throw .badRequest("The \(what) cannot be used: \(problem)") }
    }

    /// `choice` as an EBNF grammar, because not every grammar backend knows choices (the Python server does the same).
    static func grammar(choices: [String]) -> String {
        var grammar = "root ::= "
        for (index, choice) in choices.enumerated() {
            if index > 0 { grammar += " | " }
            grammar += "\""
            for scalar in choice.unicodeScalars {
                switch scalar {
                case "\"": grammar += "\\\""
                case "\\": grammar += "\\\\"
                case "\n": grammar += "\\n"
                case "\r": grammar += "\\r"
                case "\t": grammar += "\\t"
                default: grammar.unicodeScalars.append(scalar)
                }
            }
            grammar += "\""
        }
        return grammar
    }
}
