import JSONBytes
import Tokenization

/// What a frontend knows of a model folder: its tokenizer, how generation ends, and the defaults for sampling.
package struct TextModel: Sendable {
    /// Where the sampling defaults come from (vLLM: `--generation-config`).
    package enum GenerationConfigSource: Sendable, Equatable {
        /// `generation_config.json` of the model folder (`auto`).
        case model
        /// vLLM's neutral defaults (`vllm`); end tokens still come from the model folder.
        case neutral
        /// `generation_config.json` of another folder.
        case folder(String)
    }

    package let tokenizer: Tokenizer
    /// The tokenizer's end token: generation ends on it without a stop reason.
    package let eosTokenID: Int32?
    /// Further end tokens of the generation config (or, without one, of `config.json`); vLLM adds them to
    /// `stop_token_ids`.
    package let extraEOSTokenIDs: [Int32]
    package let generationDefaults: GenerationDefaults
    /// The length that `config.json` states, in tokens; nil when it states none. The engine has the last word.
    package let contextLength: Int?

    private static let maximumFileBytes = 16 << 20

    package init(
        tokenizer: Tokenizer, extraEOSTokenIDs: [Int32] = [], generationDefaults: GenerationDefaults = .init(),
        contextLength: Int? = nil
    ) {
        self.tokenizer = tokenizer
        eosTokenID = tokenizer.eosTokenID
        self.extraEOSTokenIDs = extraEOSTokenIDs
        self.generationDefaults = generationDefaults
        self.contextLength = contextLength
    }

    /// Reads `tokenizer.json` and, where present, `tokenizer_config.json`, `generation_config.json` and `config.json`.
    /// - Parameters:
    ///   - configFolder: where the last two are, if elsewhere (vLLM: `--hf-config-path`).
    ///   - configPatch: a merge patch for `config.json` (vLLM: `--hf-overrides`).
    package static func load(
        folder: String, configFolder: String? = nil, configPatch: JSONObject? = nil,
        generationConfig: GenerationConfigSource = .model
    ) throws(TextError) -> TextModel {
        let tokenizer: Tokenizer
        do { tokenizer = try Tokenizer.load(folder: folder) } catch { throw TextError(error) }
        let configFile = (configFolder ?? folder) + "/config.json"
        var config = try read(configFile)
        if config == nil, configFolder != nil { throw TextError("\(configFile) does not exist") }
        if let configPatch { config = (config ?? .null).merged(with: .object(configPatch)) }
        let file: String
        if case .folder(let other) = generationConfig {
            file = other + "/generation_config.json"
        } else {
            file = (configFolder ?? folder) + "/generation_config.json"
        }
        let generation = try read(file)
        if generation == nil, case .folder = generationConfig { throw TextError("\(file) does not exist") }
        var ends = try generation?.tokenIDs("eos_token_id", file)
        if generation == nil { ends = try config?.tokenIDs("eos_token_id", configFile) }
        var extra: [Int32] = []
        for id in ends ?? [] where id != tokenizer.eosTokenID && !extra.contains(id) { extra.append(id) }
        var defaults = GenerationDefaults()
        if let generation, generationConfig != .neutral { defaults = try GenerationDefaults(generation, file: file) }
        return TextModel(
            tokenizer: tokenizer, extraEOSTokenIDs: extra, generationDefaults: defaults,
            contextLength: try config.flatMap { json throws(TextError) in try contextLength(json, configFile) })
    }

    /// The members of the folder's `tokenizer_config.json`; none when it has no such file.
    package static func tokenizerConfiguration(folder: String) throws(TextError) -> JSONObject {
        let file = folder + "/tokenizer_config.json"
        guard let value = try read(file) else { return JSONObject() }
        guard let object = value.objectValue else { throw TextError("\(file) should be an object") }
        return object
    }

    private static func read(_ path: String) throws(TextError) -> JSONValue? {
        let bytes: [UInt8]?
        do { bytes = try readFile(path, limit: maximumFileBytes) } catch { throw TextError(error) }
        guard let bytes else { return nil }
        do {
            return try JSONValue.parse(bytes, limits: JSONLimits(maximumDepth: 64))
        } catch {
            throw TextError("\(path): \(error.message) at byte \(error.offset)")
        }
    }

    /// vLLM's rule: the smallest length under any of the known names, times a RoPE factor that is not in it yet.
    private static func contextLength(_ config: JSONValue, _ file: String) throws(TextError) -> Int? {
        let text = config["text_config"]?.objectValue == nil ? config : config["text_config"]!
        let names = [
            "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length",
            "max_target_positions", "max_sequence_length", "max_seq_length", "seq_len",
        ]
        var shortest: Int?
        for name in names {
            guard let length = try text.integer(name, file), length > 0 else { continue }
            shortest = min(shortest ?? length, length)
        }
        if let length = try text.integer("model_max_length", file), length > 0 { shortest = length }
        guard let shortest else { return nil }
        let rope = text["rope_parameters"]?.objectValue != nil ? text["rope_parameters"] : text["rope_scaling"]
        let type = rope?["rope_type"]?.stringValue ?? rope?["type"]?.stringValue
        let scaled: Set = ["su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"]
        guard let type, !scaled.contains(type), config["model_type"]?.stringValue?.contains("gemma3") != true,
            let factor = try rope?.double("factor", file), factor > 0
        else { return shortest }
        return Int(exactly: (Double(shortest) * factor).rounded(.down)) ?? shortest
    }
}

extension JSONValue {
    /// RFC 7396: objects are merged member by member, null removes a member, everything else replaces.
    func merged(with patch: JSONValue) -> JSONValue {
        guard let members = patch.objectValue else { return patch }
        var result = objectValue ?? JSONObject()
        for (name, value) in members.pairs {
            result[name] = value.isNull ? nil : (result[name] ?? .null).merged(with: value)
        }
        return .object(result)
    }
}
