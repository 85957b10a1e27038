import JSONBytes

/// What is printed when the service answers: where it is and a request to try.
package struct ReadyBanner {
    package let text: String

    package init(_ configuration: ServeConfiguration, address: String) {
        let name = configuration.servedModelNames.first ?? configuration.model
        var object = JSONObject()
        object["model"] = .string(name)
        object["messages"] = .array([
            .object(JSONObject([("role", .string("user")), ("content", .string("Hello!"))]))
        ])
        let body = JSONValue.object(object).serialized(style: .python())
        let quoted = "'" + body.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
        var curl = "curl "
        var base = address
        if address.hasPrefix("unix:") {
            curl += "--unix-socket \(address.dropFirst(5)) "
            base = "http://localhost"
        } else if let colon = address.lastIndex(of: ":"), address.contains("//0.0.0.0:") || address.contains("//[::]:")
        {
            base = address.prefix { $0 != "/" } + "//localhost" + address[colon...]
        }
        if configuration.usesTLS { curl += "--insecure " }
        curl += "\(base)/v1/chat/completions -H 'Content-Type: application/json'"
        if configuration.needsAPIKey { curl += " -H \"Authorization: Bearer $VLLM_API_KEY\"" }
        text = """

            Ready: \(name) at \(address) (frontend: \(configuration.frontend.label))
            Try it:

              \(curl) \\
                -d \(quoted)

            """
    }
}

extension FrontendKind {
    /// As on the command line.
    package var label: String {
        switch self {
        case .swift: "swift"
        case .rust: "rust"
        case .python: "python"
        case .program(let path): path
        }
    }
}
