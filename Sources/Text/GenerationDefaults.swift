import JSONBytes

/// Sampling defaults of a model's `generation_config.json`; nil means vLLM's own default.
///
/// Values are as the file has them: the same range checks apply as to a request that spells them out.
package struct GenerationDefaults: Sendable, Equatable {
    package var temperature: Double?
    package var topP: Double?
    package var topK: Int?
    package var minP: Double?
    package var repetitionPenalty: Double?
    package var presencePenalty: Double?
    package var frequencyPenalty: Double?
    /// `max_new_tokens`: an upper bound for requests that do not set `max_tokens`.
    package var maxTokens: Int?

    package init() {}

    private static let names: Set = [
        "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
        "max_new_tokens",
    ]

    /// Replaces what `json` names (vLLM: `--override-generation-config`).
    /// - Throws: for a name without meaning here: ignoring it would change what the operator asked for.
    package mutating func override(with json: JSONObject) throws(TextError) {
        let source = "override_generation_config"
        if let unknown = json.keys.first(where: { !Self.names.contains($0) }) {
            throw TextError("\(source): '\(unknown)' is not supported; known are \(Self.names.sorted())")
        }
        let given = try GenerationDefaults(.object(json), file: source)
        temperature = given.temperature ?? temperature
        topP = given.topP ?? topP
        topK = given.topK ?? topK
        minP = given.minP ?? minP
        repetitionPenalty = given.repetitionPenalty ?? repetitionPenalty
        presencePenalty = given.presencePenalty ?? presencePenalty
        frequencyPenalty = given.frequencyPenalty ?? frequencyPenalty
        maxTokens = given.maxTokens ?? maxTokens
    }

    init(_ json: JSONValue, file: String) throws(TextError) {
        temperature = try json.double("temperature", file)
        topP = try json.double("top_p", file)
        topK = try json.integer("top_k", file)
        minP = try json.double("min_p", file)
        repetitionPenalty = try json.double("repetition_penalty", file)
        presencePenalty = try json.double("presence_penalty", file)
        frequencyPenalty = try json.double("frequency_penalty", file)
        maxTokens = try json.integer("max_new_tokens", file)
    }
}

extension JSONValue {
    /// A finite number; nil when absent or null.
    func double(_ key: String, _ file: String) throws(TextError) -> Double? {
        guard let value = self[key], !value.isNull else { return nil }
        guard let number = value.numberValue?.doubleValue, number.isFinite else {
            throw TextError("\(file): \(key) should be a number")
        }
        return number
    }

    /// An integer, also when it is spelled like 50.0; nil when absent or null.
    func integer(_ key: String, _ file: String) throws(TextError) -> Int? {
        guard let value = self[key], !value.isNull else { return nil }
        guard let number = value.numberValue, let integer = number.intValue ?? Int(exactly: number.doubleValue) else {
            throw TextError("\(file): \(key) should be an integer")
        }
        return integer
    }

    /// `eos_token_id`: one id or a list.
    func tokenIDs(_ key: String, _ file: String) throws(TextError) -> [Int32]? {
        guard let value = self[key], !value.isNull else { return nil }
        var ids: [Int32] = []
        for element in value.arrayValue ?? [value] {
            guard let number = element.numberValue?.intValue, let id = Int32(exactly: number), id >= 0 else {
                throw TextError("\(file): \(key) should be a token id or a list of them")
            }
            ids.append(id)
        }
        return ids
    }
}
