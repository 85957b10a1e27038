import EngineProtocol

/// One of several frontends that serve at the same time, and its part of the new connections.
package struct FrontendShare: Equatable, Sendable {
    package var kind: FrontendKind
    package var executable: String
    package var contract: FrontendContract
    /// Relative to the others.
    package var weight: Int
}

extension SupervisorOptions {
    /// `--frontend swift,rust --split 70/30`; empty without `--split`.
    func makeShares() throws -> [FrontendShare] {
        let names = frontend.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard let split else {
            if names.count > 1, !frontend.contains("/") {
                throw SupervisionError(.usage, "--frontend \(frontend) needs --split with the shares, such as 50/50")
            }
            return []
        }
        let weights = split.split(separator: "/", omittingEmptySubsequences: false).compactMap { Int($0) }
        guard (2...8).contains(names.count), weights.count == names.count,
            weights.allSatisfy({ (1...1000).contains($0) })
        else {
            throw SupervisionError(
                .usage,
                "--split \(split) must give each of 2 to 8 frontends its share, as in --frontend swift,rust --split 70/30"
            )
        }
        guard apiServerCount == 1 else {
            throw SupervisionError(.usage, "--split and --api-server-count exclude each other")
        }
        let kinds = names.map { FrontendKind($0) }
        let binaries = frontendBinary.map {
            $0.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        }
        guard binaries == nil || binaries?.count == names.count else {
            throw SupervisionError(
                .usage, "--frontend-binary must name as many programs as --frontend; leave out known ones, as in ,/path"
            )
        }
        let programs = try zip(kinds, names.indices).map { kind, index in
            let explicit = binaries?[index] ?? ""
            if kind == .python { return try Binaries.frontend(kind, explicit: explicit.isEmpty ? python : explicit) }
            return try Binaries.frontend(kind, explicit: explicit.isEmpty ? nil : explicit)
        }
        var contracts = try zip(kinds, programs).map { kind, program in
            try FrontendContract(of: kind, program: program, release: kind == .swift ? nil : frontendVersion)
        }
        // Ours speaks the protocol of every release, and the engine speaks one.
        if let foreign = zip(kinds, contracts).first(where: { $0.0 != .swift })?.1 {
            for index in contracts.indices where kinds[index] == .swift {
                contracts[index] = FrontendContract(family: foreign.family)
            }
        }
        guard Set(contracts.map { "\($0.family)" }).count == 1 else {
            let list = zip(names, contracts).map { "\($0) \($1.family)" }.joined(separator: ", ")
            throw SupervisionError(.usage, "--split: these speak the protocols of different vLLM releases: \(list)")
        }
        return names.indices.map { index in
            FrontendShare(
                kind: kinds[index], executable: programs[index], contract: contracts[index], weight: weights[index])
        }
    }
}
