import Glibc
import JSONBytes

/// What the supervisor itself wants to know of a model.
enum ModelFolder {
    /// Refuses a folder that can be no model, before a process is started for it. A name that is no folder may mean something
    /// to the engine.
    static func check(_ folder: String) throws {
        var status = stat()
        guard stat(folder, &status) == 0, status.st_mode & S_IFMT == S_IFDIR,
            access("\(folder)/config.json", F_OK) != 0
        else { return }
        throw SupervisionError(
            .usage,
            "\(folder) has no config.json: MODEL is a Hugging Face folder with config.json, *.safetensors and "
                + "tokenizer.json")
    }

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
