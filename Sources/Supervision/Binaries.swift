import Glibc

/// Finds the programs and the embedded model that belong to this one.
package enum Binaries {
    /// Folder of the running executable.
    package static let ownDirectory: String = {
        let path = ProcessInfo.readLink("/proc/self/exe") ?? ""
        return path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    }()

    /// The engine: beside this executable, or where the build of the source tree puts it.
    package static func engine(explicit: String?) throws -> String {
        try find(
            "blas-engine", explicit: explicit, option: "--engine-binary", variable: "VLLM_ENGINE_ENGINE_BINARY",
            candidates: ["\(ownDirectory)/blas-engine"] + ancestors.map { "\($0)/Engine/build/blas-engine" },
            hint: "build it with tools/build")
    }

    package static func frontend(_ kind: FrontendKind, explicit: String?) throws -> String {
        switch kind {
        case .swift:
            return try find(
                "vllm-swift", explicit: explicit, option: "--frontend-binary", variable: "VLLM_ENGINE_FRONTEND_BINARY",
                candidates: ["\(ownDirectory)/vllm-swift"], hint: "build it with tools/build")
        case .rust:
            return try find(
                "vllm-rs", explicit: explicit, option: "--frontend-binary", variable: "VLLM_ENGINE_RUST_FRONTEND",
                candidates: searchPath("vllm-rs"), hint: "it comes with vLLM's Python package")
        case .python:
            return try find(
                "python3", explicit: explicit, option: "--python", variable: "VLLM_ENGINE_PYTHON",
                candidates: searchPath("python3"), hint: "name the interpreter of an environment with vLLM 0.32")
        case .program(let path):
            return try find(
                path, explicit: explicit ?? (path.contains("/") ? path : nil), option: "--frontend",
                variable: "VLLM_ENGINE_FRONTEND_BINARY", candidates: searchPath(path),
                hint: "known names are swift, rust and python")
        }
    }

    /// The model that is served when none is named.
    package static func defaultModel(explicit: String?) throws -> String {
        if let explicit = explicit ?? ProcessInfo.environmentVariable("VLLM_ENGINE_DEFAULT_MODEL") { return explicit }
        let candidates =
            ["\(ownDirectory)/models/default"] + ancestors.map { "\($0)/Engine/models/default" }
        guard let found = candidates.first(where: { access("\($0)/config.json", R_OK) == 0 }) else {
            throw SupervisionError(
                .usage,
                "no MODEL was given and the embedded one is not there (looked for \(candidates[0]) and "
                    + "Engine/models/default above it)")
        }
        return found
    }

    /// The folders above the executable, nearest first: `.build/<triple>/release` is four levels below the package.
    private static var ancestors: [String] {
        var result: [String] = []
        var directory = ownDirectory
        while result.count < 5, let slash = directory.lastIndex(of: "/"), slash > directory.startIndex {
            directory = String(directory[..<slash])
            result.append(directory)
        }
        return result
    }

    private static func searchPath(_ name: String) -> [String] {
        (ProcessInfo.environmentVariable("PATH") ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":")
            .map { "\($0)/\(name)" }
    }

    private static func find(
        _ name: String, explicit: String?, option: String, variable: String, candidates: [String], hint: String
    ) throws -> String {
        if let chosen = explicit ?? ProcessInfo.environmentVariable(variable) {
            guard let path = absolute(chosen), isProgram(path) else {
                let source = explicit == nil ? variable : option
                throw SupervisionError(.usage, "\(source): \(chosen) is not an executable file")
            }
            return path
        }
        guard let found = candidates.lazy.compactMap({ absolute($0) }).first(where: isProgram) else {
            throw SupervisionError(.usage, "\(name) was not found; name it with \(option) or \(variable) (\(hint))")
        }
        return found
    }

    private static func isProgram(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
    }

    /// Not resolved: the interpreter of a virtual environment is a link that must keep its name.
    private static func absolute(_ path: String) -> String? {
        if path.hasPrefix("/") { return path }
        guard let directory = getcwd(nil, 0) else { return nil }
        defer { free(directory) }
        return "\(String(cString: directory))/\(path)"
    }
}
