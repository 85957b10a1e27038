import JSONBytes

/// What the supervisor itself wants to know of a model.
enum ModelFolder {
    /// Whether `config.json` says so: engines of such a model depend on each other when there are several.
    static func isMixtureOfExperts(_ folder: String) -> Bool {
        guard let text = ProcessInfo.readFile("\(folder)/config.json"),
            let config = (try? JSONValue.parse(text))?.objectValue
        else { return false }
        return [config, config["text_config"]?.objectValue].compactMap { $0 }.contains { object in
            ["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"].contains { name in
                (object[name]?.numberValue?.intValue ?? 0) > 1
            }
        }
    }
}
