import EngineProtocol
import JSONBytes
import NIOHTTP1
import OpenAIServer
import Synchronization
import Testing

@Suite struct ServeCommandLineTests {
    private func parse(_ command: ServeCommandLine.Command, _ words: String) throws -> ServeCommandLine {
        guard case .run(let line) = try ServeCommandLine.parse(command, words.split(separator: " ").map(String.init))
        else { throw Unexpected() }
        return line
    }

    @Test func optionsBecomeArgumentsOrSockets() throws {
        let line = try parse(
            .serve,
            "models/m --data-parallel-size-local 0 --data-parallel-size=2 --handshake-host 10.0.0.1 --handshake_port 77 "
                + "--port 9 --served-model-name a b --enable-scale-out --enable-request-id-headers false "
                + "--max-logprobs 5 --allowed-origins [\"x\"] --shutdown-timeout 1.5")
        #expect(line.engineCount == 2)
        #expect(line.handshakeHost == "10.0.0.1" && line.handshakePort == 77)
        #expect(line.port == 9 && line.host == "127.0.0.1")
        let configuration = try ArgumentsJSON(line.argumentsJSON).configuration
        #expect(configuration.modelTag == "models/m")
        #expect(configuration.servedModelNames == ["a", "b"])
        #expect(configuration.enableScaleOut && !configuration.enableRequestIDHeaders)
        #expect(configuration.maxLogprobs == 5)
        #expect(configuration.cors.allowedOrigins == ["x"])
        #expect(configuration.shutdownTimeout == 1.5)
    }

    @Test(arguments: [
        ("", "a model folder is needed"), ("a b --data-parallel-size-local 0", "more than one model"),
        ("a", "--data-parallel-size-local 0 is needed"), ("a --data-parallel-size-local 1", "vllm-engine serve"),
        ("a --prot 5", "did you mean --port?"), ("a --port", "--port needs a value"),
        ("a --port x", "--port must be an integer"), ("a --port 1 --port 2", "--port is given twice"),
        ("a --allowed-origins x", "--allowed-origins must be JSON"),
        ("a --handshake-port 1 --data-parallel-rpc-port 2", "given twice"),
    ])
    func unusableWordsAreExplained(_ words: String, _ expected: String) {
        let error = #expect(throws: UsageError.self) { try parse(.serve, words) }
        #expect(error?.description.contains(expected) == true, "\(String(describing: error))")
    }

    @Test func renderHasNoEngines() throws {
        #expect(try parse(.render, "m --max-model-len 100").maxModelLength == 100)
        #expect(throws: UsageError.self) { try parse(.render, "m --handshake-port 5") }
    }
}

/// What `--override-generation-config` and `--max-num-queued-tokens` do to requests.
@Suite struct OperatorLimitTests {
    private static let body = #"{"prompt": "def foo(", "max_tokens": 2, "allowed_token_ids": [766]}"#

    @Test func theOperatorsDefaultsWin() throws {
        let server = try GenerationServer {
            $0.overrideGenerationConfig = JSONObject([("temperature", .number(0.25)), ("top_k", .number(7))])
        }
        #expect(try server.post("/v1/completions", Self.body).status == 200)
        let params = try #require(server.engine.requests.first?.samplingParams)
        #expect(params.temperature == 0.25 && params.topK == 7)
    }

    @Test func anUnknownDefaultIsRefusedAtStart() {
        #expect(throws: (any Error).self) {
            try GenerationServer { $0.overrideGenerationConfig = JSONObject([("nonsense", .number(1))]) }
        }
    }
}
