import ArgumentParser

/// Which endpoint is asked, and where it is.
struct EndpointOptions: ParsableArguments {
    /// vLLM's names for the two.
    enum Backend: String, ExpressibleByArgument, CaseIterable {
        case vllm, openai
        case openAIChat = "openai-chat"

        var kind: Workload.Endpoint { self == .openAIChat ? .chat : .completions }
    }

    @Option(help: "Which endpoint is asked. (default: the workload's)")
    var endpointKind: Workload.Endpoint?

    @Option(help: "The same by vLLM's names: vllm and openai ask for completions.")
    var backend: Backend?

    @Option(help: ArgumentHelp("Path of the endpoint, if it is not the usual one.", valueName: "path"))
    var endpoint: String?

    /// Nil if it is up to the workload.
    var kind: Workload.Endpoint? { endpointKind ?? backend?.kind ?? endpoint.flatMap(Self.kind) }

    mutating func validate() throws {
        if endpointKind != nil, backend != nil { throw ValidationError("--backend takes the place of --endpoint-kind") }
        guard let endpoint else { return }
        guard endpoint.hasPrefix("/"), endpoint.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }),
            let told = Self.kind(of: endpoint)
        else { throw ValidationError("--endpoint \(endpoint): not a path that ends with /completions") }
        if let kind, kind != told {
            throw ValidationError("--endpoint \(endpoint) is not one for \(backend?.rawValue ?? kind.rawValue)")
        }
    }

    private static func kind(of path: String) -> Workload.Endpoint? {
        path.hasSuffix("/chat/completions") ? .chat : path.hasSuffix("/completions") ? .completions : nil
    }
}

extension Workload.Endpoint: ExpressibleByArgument {}
