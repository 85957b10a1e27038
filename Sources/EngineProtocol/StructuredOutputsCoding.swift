import MessagePack

extension StructuredOutputs {
    /// Appends the map with the keys that are set, as the Rust frontend does.
    ///
    /// Engines before 0.33 cannot compile a `choice` with the xgrammar backend and expect the frontend to have rewritten
    /// it as a grammar.
    func encode(into output: inout [UInt8], family: ProtocolFamily) {
        var pairs = 1
        if disableAnyWhitespace { pairs += 1 }
        if disableAdditionalProperties { pairs += 1 }
        if whitespacePattern != nil { pairs += 1 }
        if !backend.isEmpty { pairs += 1 }
        output.packMapHeader(pairs)
        switch constraint {
        case .json(let schema):
            output.pack(key: "json")
            output.pack(schema)
        case .regex(let pattern):
            output.pack(key: "regex")
            output.pack(pattern)
        case .choice(let choices) where backend == "xgrammar" && !family.engineCompilesChoices:
            output.pack(key: "grammar")
            output.pack(Self.grammar(of: choices))
        case .choice(let choices):
            output.pack(key: "choice")
            output.packArrayHeader(choices.count)
            for choice in choices { output.pack(choice) }
        case .grammar(let text):
            output.pack(key: "grammar")
            output.pack(text)
        case .jsonObject:
            output.pack(key: "json_object")
            output.pack(true)
        case .structuralTag(let text):
            output.pack(key: "structural_tag")
            output.pack(text)
        }
        if disableAnyWhitespace {
            output.pack(key: "disable_any_whitespace")
            output.pack(true)
        }
        if disableAdditionalProperties {
            output.pack(key: "disable_additional_properties")
            output.pack(true)
        }
        if let whitespacePattern {
            output.pack(key: "whitespace_pattern")
            output.pack(whitespacePattern)
        }
        if !backend.isEmpty {
            output.pack(key: "_backend")
            output.pack(backend)
        }
    }

    /// `root ::= "yes" | "no"`
    static func grammar(of choices: [String]) -> String {
        var text = "root ::= "
        for (index, choice) in choices.enumerated() {
            text += index == 0 ? "\"" : " | \""
            for scalar in choice.unicodeScalars {
                switch scalar {
                case "\"": text += "\\\""
                case "\\": text += "\\\\"
                case "\n": text += "\\n"
                case "\r": text += "\\r"
                case "\t": text += "\\t"
                default: text.unicodeScalars.append(scalar)
                }
            }
            text += "\""
        }
        return text
    }

    /// Exactly one constraint must be set.
    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        let start = reader.offset
        var found: [Constraint] = []
        self.init(constraint: .jsonObject)
        backend = ""
        for _ in 0..<(try reader.readMapHeader()) {
            let key = try reader.readKey()
            if try reader.skipNil() { continue }
            switch key {
            case "json":
                if try reader.peekType() == .string {
                    found.append(.json(try reader.readString()))
                } else {
                    var text: [UInt8] = []
                    try reader.readValue().appendJSON(to: &text)
                    found.append(.json(String(decoding: text, as: UTF8.self)))
                }
            case "regex": found.append(.regex(try reader.readString()))
            case "choice":
                found.append(.choice(try reader.readArray { r throws(MessagePackError) in try r.readString() }))
            case "grammar": found.append(.grammar(try reader.readString()))
            case "json_object": if try reader.readBool() { found.append(.jsonObject) }
            case "structural_tag": found.append(.structuralTag(try reader.readString()))
            case "disable_any_whitespace": disableAnyWhitespace = try reader.readBool()
            case "disable_additional_properties": disableAdditionalProperties = try reader.readBool()
            case "whitespace_pattern": whitespacePattern = try reader.readString()
            case "_backend": backend = try reader.readString()
            default: try reader.skip()
            }
        }
        guard found.count == 1 else {
            throw MessagePackError(.invalid("\(found.count) structured output constraints instead of 1"), offset: start)
        }
        constraint = found[0]
    }
}
