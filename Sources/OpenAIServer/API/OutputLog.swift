import Logging

/// `--enable-log-outputs`: the text of finished answers in the log.
struct OutputLog: Sendable {
    private let logger = Logger(label: "frontend")
    /// Characters that are shown; nil = all.
    let limit: Int?

    init?(_ configuration: ServerConfiguration) {
        guard configuration.enableLogOutputs else { return nil }
        limit = configuration.maxLogLength
    }

    func write(id: String, text: [UInt8], tokens: Int, reason: String) {
        let whole = String(decoding: text, as: UTF8.self)
        let shown = limit.map { String(whole.prefix($0)) } ?? whole
        logger.info(
            "generated response \(id): output: \(shown.debugDescription), output_tokens: \(tokens), finish_reason: \(reason)"
        )
    }
}
