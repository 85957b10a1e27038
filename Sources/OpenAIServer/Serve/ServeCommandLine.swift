import JSONBytes

/// `vllm-swift serve MODEL …` and `vllm-swift render MODEL …`: the command lines of vLLM's own programs of these names.
///
/// Options that a supervisor would hand over as `--args-json` are collected into such an object, so that their meaning
/// is defined in one place.
package struct ServeCommandLine: Equatable, Sendable {
    package enum Command: String, Sendable {
        /// Owns the handshake of engines that others start.
        case serve
        /// Templates and tokenizer alone, without any engine.
        case render
    }

    package var command: Command
    package var host = "127.0.0.1"
    package var port = 8000
    package var unixPath: String?
    /// Engines to wait for, ranks 0 on.
    package var engineCount = 1
    /// Where engines dial in, and what they are told to connect to.
    package var handshakeHost = "127.0.0.1"
    /// 0 = one that is free; the log names it.
    package var handshakePort = 0
    /// `render`: the context length; nil = what the model's configuration states.
    package var maxModelLength: Int?
    package var argumentsJSON = "{}"

    package enum Parsed: Equatable, Sendable {
        case help
        case run(ServeCommandLine)
    }

    private enum Kind { case text, flag, integer, number, json, list }

    /// Options that travel into the arguments object under their Python names.
    private static let forwarded: [(name: String, kind: Kind)] = [
        ("served-model-name", .list), ("tokenizer", .text), ("tokenizer-mode", .text), ("generation-config", .text),
        ("override-generation-config", .json), ("max-logprobs", .integer), ("chat-template", .text),
        ("chat-template-content-format", .text), ("default-chat-template-kwargs", .json),
        ("trust-request-chat-template", .flag), ("tool-call-parser", .text), ("enable-auto-tool-choice", .flag),
        ("tool-strict-level", .text), ("enable-per-request-metrics", .flag),
        ("exclude-tools-when-tool-choice-none", .flag), ("reasoning-parser", .text), ("response-role", .text),
        ("structured-outputs-config", .json), ("return-tokens-as-token-ids", .flag),
        ("enable-prompt-tokens-details", .flag), ("enable-force-include-usage", .flag), ("enable-scale-out", .flag),
        ("enable-tokenizer-info-endpoint", .flag), ("enable-server-load-tracking", .flag),
        ("stream-interval", .integer),
        ("fingerprint-mode", .text), ("fingerprint-value", .text), ("root-path", .text), ("api-key", .list),
        ("allowed-origins", .json), ("allowed-methods", .json), ("allowed-headers", .json),
        ("allow-credentials", .flag), ("enable-request-id-headers", .flag), ("disable-fastapi-docs", .flag),
        ("disable-uvicorn-access-log", .flag), ("disable-access-log-for-endpoints", .text),
        ("uvicorn-log-level", .text), ("h11-max-incomplete-event-size", .integer), ("h11-max-header-count", .integer),
        ("http-timeout-keep-alive", .integer), ("sse-keep-alive-interval", .number), ("max-num-queued-reqs", .integer),
        ("max-num-queued-tokens", .integer), ("ssl-keyfile", .text), ("ssl-certfile", .text), ("ssl-ca-certs", .text),
        ("ssl-cert-reqs", .integer), ("ssl-ciphers", .text), ("engine-ready-timeout-secs", .number),
        ("shutdown-timeout", .number), ("enable-log-requests", .flag), ("enable-log-outputs", .flag),
        ("disable-log-stats", .flag),
    ]

    private static let aliases = [
        "handshake-host": "data-parallel-address", "handshake-port": "data-parallel-rpc-port",
    ]

    private static let ownOptions = [
        "host", "port", "uds", "data-parallel-address", "data-parallel-rpc-port", "data-parallel-size",
        "data-parallel-size-local", "handshake-host", "handshake-port", "max-model-len",
    ]

    /// - Parameter words: what follows the command.
    package static func parse(_ command: Command, _ words: [String]) throws(UsageError) -> Parsed {
        var reader = WordReader(words: words)
        var line = ServeCommandLine(command: command)
        var arguments = JSONObject()
        var local: Int?
        var seen: Set<String> = []
        while let word = reader.next() {
            if word == "--help" || word == "-h" { return .help }
            guard word.hasPrefix("--") else {
                guard arguments["model_tag"] == nil else { throw UsageError("more than one model: '\(shown(word))'") }
                arguments["model_tag"] = .string(word)
                continue
            }
            var name = String(word.dropFirst(2).prefix { $0 != "=" }).replacingUnderscores()
            name = aliases[name] ?? name
            guard seen.insert(name).inserted else { throw UsageError("--\(name) is given twice") }
            reader.takeInlineValue(of: word)
            switch name {
            case "host": line.host = try reader.text(name)
            case "port": line.port = try reader.integer(name, in: 0...65_535)
            case "uds": line.unixPath = try reader.text(name)
            case "max-model-len" where command == .render:
                line.maxModelLength = try reader.integer(name, in: 1...1_000_000_000)
            case "data-parallel-address" where command == .serve: line.handshakeHost = try reader.text(name)
            case "data-parallel-rpc-port" where command == .serve:
                line.handshakePort = try reader.integer(name, in: 0...65_535)
            case "data-parallel-size" where command == .serve:
                line.engineCount = try reader.integer(name, in: 1...65_536)
            case "data-parallel-size-local" where command == .serve: local = try reader.integer(name, in: 0...65_536)
            default:
                guard let option = forwarded.first(where: { $0.name == name }) else { throw unknown(name, command) }
                arguments[name.replacingDashes()] = try value(of: option, &reader)
            }
            try reader.finish(name)
        }
        guard arguments["model_tag"] != nil else { throw UsageError("a model folder is needed") }
        if command == .serve, local != 0 {
            throw UsageError(
                "--data-parallel-size-local 0 is needed: this program serves engines that others start; "
                    + "to start them too, run `vllm-engine serve MODEL`")
        }
        line.argumentsJSON = JSONValue.object(arguments).serialized()
        return .run(line)
    }

    private static func value(
        of option: (name: String, kind: Kind), _ reader: inout WordReader
    ) throws(UsageError) -> JSONValue {
        switch option.kind {
        case .text: return .string(try reader.text(option.name))
        case .flag: return .bool(try reader.flag(option.name))
        case .integer: return .number(try reader.integer(option.name, in: Int.min...Int.max))
        case .number:
            let text = try reader.text(option.name)
            guard let number = Double(text), number.isFinite else {
                throw UsageError("--\(option.name) must be a number")
            }
            return .number(number)
        case .json:
            let text = try reader.text(option.name)
            guard let value = try? JSONValue.parse(text, limits: JSONLimits(maximumDepth: 64)) else {
                throw UsageError("--\(option.name) must be JSON")
            }
            return value
        case .list: return .array(try reader.list(option.name).map { .string($0) })
        }
    }

    private static func unknown(_ name: String, _ command: Command) -> UsageError {
        let known = ownOptions + forwarded.map(\.name)
        let hint = SpellingHint.nearest(to: name, in: known).map { "; did you mean --\($0)?" } ?? ""
        return UsageError("unknown option '--\(shown(name))'\(hint)")
    }

    private static func shown(_ text: String) -> String { ExchangeRecord.printable(text) }
}

/// The words of a command line, with values in the same word (`--a=b`) or the next one.
private struct WordReader {
    private var words: ArraySlice<String>
    private var inline: String?

    init(words: [String]) { self.words = words[...] }

    mutating func next() -> String? { words.popFirst() }

    mutating func takeInlineValue(of word: String) {
        inline = word.firstIndex(of: "=").map { String(word[word.index(after: $0)...]) }
    }

    /// A value in the option's own word that nothing took.
    func finish(_ name: String) throws(UsageError) {
        if inline != nil { throw UsageError("--\(name) takes no value") }
    }

    mutating func text(_ name: String) throws(UsageError) -> String {
        if let value = inline {
            inline = nil
            return value
        }
        guard let value = words.popFirst() else { throw UsageError("--\(name) needs a value") }
        return value
    }

    mutating func integer(_ name: String, in range: ClosedRange<Int>) throws(UsageError) -> Int {
        guard let value = Int(try text(name)), range.contains(value) else {
            let limits = range.lowerBound == .min ? "" : " from \(range.lowerBound) to \(range.upperBound)"
            throw UsageError("--\(name) must be an integer\(limits)")
        }
        return value
    }

    /// `--flag`, `--flag true` or `--flag=false`.
    mutating func flag(_ name: String) throws(UsageError) -> Bool {
        if inline == nil, let next = words.first?.lowercased(), next == "true" || next == "false" {
            inline = words.removeFirst()
        }
        guard let value = inline?.lowercased() else { return true }
        inline = nil
        guard value == "true" || value == "false" else { throw UsageError("--\(name) must be true or false") }
        return value == "true"
    }

    /// All words up to the next option.
    mutating func list(_ name: String) throws(UsageError) -> [String] {
        var values = [try text(name)]
        while let word = words.first, !word.hasPrefix("--") {
            values.append(word)
            words.removeFirst()
        }
        return values
    }
}

extension String {
    fileprivate func replacingUnderscores() -> String { String(map { $0 == "_" ? "-" : $0 }) }
    fileprivate func replacingDashes() -> String { String(map { $0 == "-" ? "_" : $0 }) }
}

extension ServeCommandLine {
    /// For ZeroMQ: IPv6 addresses in brackets; port 0 = any free one.
    func tcpAddress(port: Int) -> String {
        let host = handshakeHost.contains(":") && !handshakeHost.hasPrefix("[") ? "[\(handshakeHost)]" : handshakeHost
        return "tcp://\(host):\(port)"
    }

    package static func help(_ command: Command) -> String {
        let head =
            switch command {
            case .serve:
                """
                usage: vllm-swift serve MODEL --data-parallel-size-local 0 [--handshake-port N] [options]

                Answers the OpenAI API for engines that others start, on this machine or elsewhere. It waits for
                them on the handshake port and tells each where to connect:

                  vllm serve MODEL --headless --data-parallel-address HOST --data-parallel-rpc-port PORT \\
                      --data-parallel-size N
                  blas-engine --model MODEL --handshake-address tcp://HOST:PORT

                engines
                  --data-parallel-size N         engines to wait for (1)
                  --data-parallel-size-local 0   none of them is started here
                  --handshake-host HOST          address of this machine that engines can reach (127.0.0.1);
                                                 also --data-parallel-address
                  --handshake-port PORT          where they dial in (any free one, named in the log);
                                                 also --data-parallel-rpc-port
                """
            case .render:
                """
                usage: vllm-swift render MODEL [options]

                Turns requests into what an engine would get, without an engine: /v1/completions/render,
                /v1/chat/completions/render, /tokenize, /detokenize.

                model
                  --max-model-len N              context length (what the model's config.json states)
                """
            }
        return head + """


            HTTP
              --host HOST  --port PORT  --uds PATH     127.0.0.1, 8000

            Further options have vLLM's names and meanings:

            """ + forwarded.map { "  --\($0.name)\n" }.joined()
    }
}
