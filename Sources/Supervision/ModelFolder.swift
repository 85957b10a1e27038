import Glibc
import JSONBytes

/// What the supervisor itself wants to know of a model.
enum ModelFolder {
    /// Refuses what can be no model, before a process is started for it.
    static func check(_ folder: String) throws {
        var status = stat()
        guard stat(folder, &status) == 0 else {
            var text = "model folder \(folder) does not exist"
            if !folder.hasPrefix("/"), folder.filter({ $0 == "/" }).count == 1 {
                text += "; models are not downloaded: if this is one of the Hugging Face Hub, run "
                text += "`hf download \(folder) --local-dir DIR` and name DIR"
            } else if !folder.contains("/") {
                text += "; `vllm-engine --help` lists the commands"
            }
            throw SupervisionError(.usage, text)
        }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            throw SupervisionError(.usage, "\(folder) is no folder: \(expected)")
        }
        guard access("\(folder)/config.json", F_OK) == 0 else {
            throw SupervisionError(.usage, "\(folder) has no config.json: \(expected)")
        }
    }

    private static let expected = "MODEL is a Hugging Face folder with config.json, *.safetensors and tokenizer.json"

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
