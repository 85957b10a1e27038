/// `vllm-swift frontend …`: the command line that vLLM gives its Rust frontend, in all its versions since 0.22.
package struct FrontendCommandLine: Equatable, Sendable {
    /// Where an engine socket comes from.
    package enum Endpoint: Equatable, Sendable {
        case descriptor(Int32)
        case address(String)
    }

    package var listenDescriptor: Int32
    package var input: Endpoint
    package var output: Endpoint
    /// Pipe to tell the bound input and output addresses over.
    package var addressDescriptor: Int32?
    package var coordinatorAddress: String?
    package var engineStartIndex = 0
    package var engineCount = 1
    package var dataParallelSize: Int
    /// Which of `clientCount` frontends this is.
    package var clientIndex = 0
    package var clientCount = 1
    /// Where the frontends of one service keep their metrics, so that each can show the sums.
    package var metricsDirectory: String?
    package var argumentsJSON: String

    /// What the words ask for.
    package enum Parsed: Equatable, Sendable {
        case help
        case version
        case run(FrontendCommandLine)
    }

    private static let options = [
        "--listen-fd", "--input-address", "--output-address", "--input-listener-fd", "--output-listener-fd",
        "--address-fd", "--grpc-listen-fd", "--coordinator-address", "--engine-start-index", "--engine-count",
        "--data-parallel-size",
        "--client-index", "--client-count", "--metrics-directory", "--args-json",
    ]

    /// - Parameter words: what follows `frontend`.
    package static func parse(_ words: [String]) throws(UsageError) -> Parsed {
        var values: [String: String] = [:]
        var index = 0
        while index < words.count {
            let word = words[index]
            index += 1
            if word == "--help" || word == "-h" { return .help }
            if word == "--version" || word == "-V" { return .version }
            guard word.hasPrefix("--") else { throw UsageError("unexpected argument '\(shown(word))'") }
            let mark = word.firstIndex(of: "=") ?? word.endIndex
            let name = "--" + word[..<mark].dropFirst(2).map { $0 == "_" ? "-" : $0 }
            guard options.contains(name) else {
                let hint = SpellingHint.nearest(to: name, in: options).map { "; did you mean \($0)?" } ?? ""
                throw UsageError("unknown option '\(shown(name))'\(hint)")
            }
            guard values[name] == nil else { throw UsageError("\(name) is given twice") }
            if mark < word.endIndex {
                values[name] = String(word[word.index(after: mark)...])
            } else {
                guard index < words.count else { throw UsageError("\(name) needs a value") }
                values[name] = words[index]
                index += 1
            }
        }
        return .run(try FrontendCommandLine(values))
    }

    /// What a supervisor would say to a frontend that has sockets and engines to itself.
    init(serving serve: ServeCommandLine) {
        listenDescriptor = -1
        input = .address(serve.tcpAddress(port: 0))
        output = input
        engineCount = serve.engineCount
        dataParallelSize = serve.engineCount
        argumentsJSON = serve.argumentsJSON
    }

    private init(_ values: [String: String]) throws(UsageError) {
        if values["--grpc-listen-fd"] != nil {
            throw UsageError("--grpc-listen-fd: the Swift frontend has no gRPC server; start vLLM without a gRPC port")
        }
        guard let json = values["--args-json"] else { throw UsageError("--args-json is needed") }
        argumentsJSON = json
        guard let listen = try Self.descriptor(values, "--listen-fd") else {
            throw UsageError("--listen-fd is needed: the number of an inherited, bound socket")
        }
        listenDescriptor = listen
        input = try Self.endpoint(values, "--input-listener-fd", "--input-address")
        output = try Self.endpoint(values, "--output-listener-fd", "--output-address")
        addressDescriptor = try Self.descriptor(values, "--address-fd")
        coordinatorAddress = values["--coordinator-address"]
        engineCount = try Self.int(values, "--engine-count", in: 1...65_536) ?? 1
        engineStartIndex = try Self.int(values, "--engine-start-index", in: 0...65_535) ?? 0
        let end = engineStartIndex + engineCount
        guard end <= 65_536 else { throw UsageError("--engine-start-index plus --engine-count is above 65536") }
        dataParallelSize = try Self.int(values, "--data-parallel-size", in: 1...65_536) ?? end
        guard end <= dataParallelSize else {
            throw UsageError("--engine-start-index plus --engine-count is above --data-parallel-size")
        }
        clientCount = try Self.int(values, "--client-count", in: 1...65_536) ?? 1
        clientIndex = try Self.int(values, "--client-index", in: 0...65_535) ?? 0
        guard clientIndex < clientCount else { throw UsageError("--client-index is not below --client-count") }
        metricsDirectory = values["--metrics-directory"]
    }

    private static func endpoint(
        _ values: [String: String], _ descriptorName: String, _ addressName: String
    ) throws(UsageError) -> Endpoint {
        let descriptor = try descriptor(values, descriptorName)
        switch (descriptor, values[addressName]) {
        case (let descriptor?, nil): return .descriptor(descriptor)
        case (nil, let address?):
            guard address.hasPrefix("ipc://") || address.hasPrefix("tcp://") else {
                throw UsageError("\(addressName) must begin with ipc:// or tcp://, not '\(shown(address))'")
            }
            return .address(address)
        case (nil, nil): throw UsageError("\(descriptorName) or \(addressName) is needed")
        case (_?, _?): throw UsageError("\(descriptorName) and \(addressName) exclude each other")
        }
    }

    private static func descriptor(_ values: [String: String], _ name: String) throws(UsageError) -> Int32? {
        try int(values, name, in: 0...1_000_000).map { Int32($0) }
    }

    private static func int(
        _ values: [String: String], _ name: String, in range: ClosedRange<Int>
    ) throws(UsageError) -> Int? {
        guard let text = values[name] else { return nil }
        guard let value = Int(text), range.contains(value) else {
            throw UsageError("\(name) must be an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    private static func shown(_ text: String) -> String { ExchangeRecord.printable(text) }

    package static let help = """
        usage: vllm-swift frontend --listen-fd N
                                   (--input-listener-fd N --output-listener-fd N |
                                    --input-address A --output-address A)
                                   [--engine-start-index N] [--engine-count N] [--data-parallel-size N]
                                   [--client-index N --client-count N] [--metrics-directory PATH]
                                   [--coordinator-address A] --args-json JSON

        Answers the OpenAI API on an inherited socket and lets vLLM engines do the work. It is started by a
        supervisor: `vllm-engine serve MODEL`, or vLLM itself with VLLM_USE_RUST_FRONTEND=1 and
        VLLM_RUST_FRONTEND_PATH=/path/to/vllm-swift. /health answers 200 once all engines have registered.

        sockets
          --listen-fd N             HTTP: bound stream socket, TCP or unix; listening starts here
          --input-listener-fd N     engines' input (ZeroMQ ROUTER): bound and listening socket to adopt
          --output-listener-fd N    engines' output (ZeroMQ PULL): likewise
          --input-address A         instead of the two: addresses to bind, ipc://PATH or tcp://HOST:PORT
          --output-address A
          --address-fd N            pipe to tell them over once they are bound (for port 0), as a JSON object
          --coordinator-address A   publisher of the data-parallel coordinator: loads and waves

        engines
          --engine-start-index N    rank of the first engine of this frontend (default 0)
          --engine-count N          number of engines (default 1)
          --data-parallel-size N    engines of the whole deployment (default: start index plus count)

        several frontends of one service
          --client-index N          which of them this is (default 0)
          --client-count N          how many there are (default 1)
          --metrics-directory PATH  shared by them: /metrics and /load of each show the sums over all

        server
          --args-json JSON          arguments of `vllm serve` that differ from their defaults, under their
                                    Python names; `model_tag` is needed:
                                    {"model_tag": "models/default", "served_model_name": ["default"]}

        environment
          VLLM_LOGGING_LEVEL, VLLM_API_KEY, VLLM_HTTP_MAX_REQUEST_BODY_SIZE (bytes, 0 = no limit),
          VLLM_HTTP_TIMEOUT_KEEP_ALIVE, VLLM_SERVER_DEV_MODE=1, VLLM_ALLOW_RUNTIME_LORA_UPDATING=1,
          VLLM_MAX_STOP_STRINGS, VLLM_MAX_COMPLETION_PROMPTS, VLLM_LOG_STATS_INTERVAL (seconds),
          VLLM_SWIFT_EVENT_LOOPS (threads for HTTP), VLLM_KEEP_ALIVE_ON_ENGINE_DEATH=1 (go on with errors),
          VLLM_ENGINE_HANG_TIMEOUT_S, VLLM_ENGINE_HANG_REQUEST_DEADLINE_S (seconds, 0 = off),
          VLLM_ENGINE_DEATH_FD (a pipe whose end means that the supervisor is gone), NO_COLOR

        exit codes
          0 after SIGTERM or SIGINT, 1 when something fails, 2 for unusable arguments

        """
}

/// Suggests the option that was probably meant.
package enum SpellingHint {
    /// nil if nothing is close.
    package static func nearest(to word: String, in candidates: [String]) -> String? {
        let scored = candidates.map { (distance(Array(word.utf8.prefix(64)), Array($0.utf8)), $0) }
        guard let best = scored.min(by: { $0.0 < $1.0 }), best.0 <= max(2, word.utf8.count / 3) else { return nil }
        return best.1
    }

    /// Number of insertions, deletions and replacements between two words.
    private static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        var row = Array(0...b.count)
        for i in 0..<a.count {
            var diagonal = row[0]
            row[0] = i + 1
            for j in 0..<b.count {
                let above = row[j + 1]
                row[j + 1] = min(above + 1, row[j] + 1, diagonal + (a[i] == b[j] ? 0 : 1))
                diagonal = above
            }
        }
        return row[b.count]
    }
}
