import JSONBytes
import Logging
import Metrics
import NIOCore
import OpenAIServer
import Testing

@Suite struct FrontendCommandLineTests {
    private static let base = ["--listen-fd", "3"]

    /// The command line that vLLM 0.32 was seen to use.
    @Test func inheritedDescriptors() throws {
        let words =
            Self.base
            + [
                "--input-listener-fd", "4", "--output-listener-fd", "5", "--engine-start-index", "0", "--engine-count",
                "1",
                "--data-parallel-size", "1", "--args-json", "{}",
            ]
        guard case .run(let line) = try FrontendCommandLine.parse(words) else { throw Unexpected() }
        #expect(line.listenDescriptor == 3)
        #expect(line.input == .descriptor(4))
        #expect(line.output == .descriptor(5))
        #expect(line.coordinatorAddress == nil)
        #expect(line.dataParallelSize == 1)
        #expect(line.argumentsJSON == "{}")
    }

    /// vLLM 0.22 knows neither start index nor data-parallel size.
    @Test func addressesOfOlderReleases() throws {
        let words =
            Self.base
            + [
                "--input_address=ipc:///run/i", "--output-address", "tcp://127.0.0.1:5", "--coordinator-address",
                "tcp://c:1",
                "--engine-count", "2", "--args-json", "{}",
            ]
        guard case .run(let line) = try FrontendCommandLine.parse(words) else { throw Unexpected() }
        #expect(line.input == .address("ipc:///run/i"))
        #expect(line.output == .address("tcp://127.0.0.1:5"))
        #expect(line.coordinatorAddress == "tcp://c:1")
        #expect(line.engineStartIndex == 0)
        #expect(line.dataParallelSize == 2)
    }

    @Test func helpAndVersionWinOverEverything() throws {
        #expect(try FrontendCommandLine.parse(["--listen-fd", "3", "--help"]) == .help)
        #expect(try FrontendCommandLine.parse(["--version"]) == .version)
        for option in ["--listen-fd", "--input-listener-fd", "--data-parallel-size", "--args-json"] {
            #expect(FrontendCommandLine.help.contains(option))
        }
    }

    private static let unusable: [(String, String)] = [
        ("--listen-fd 3 --input-listener-fd 4 --output-listener-fd 5", "--args-json is needed"),
        ("--input-listener-fd 4 --output-listener-fd 5 --args-json {}", "--listen-fd is needed"),
        ("--listen-fd 3 --args-json {} --output-listener-fd 5", "--input-listener-fd or --input-address is needed"),
        (
            "--listen-fd 3 --input-listener-fd 4 --output-listener-fd 5 --input-address ipc://x --args-json {}",
            "exclude each other"
        ),
        ("--listen-fd 3 --input-address udp://x --output-address ipc://y --args-json {}", "must begin with"),
        (
            "--listen-fd 3 --input-listener-fd 4 --output-listener-fd 5 --args-json {} --grpc-listen-fd 9",
            "no gRPC server"
        ),
        (
            "--listen-fd 3 --input-listener-fd 4 --output-listener-fd 5 --args-json {} --engine-cuont 9",
            "did you mean --engine-count?"
        ),
        (
            "--listen-fd 3 --input-listener-fd 4 --output-listener-fd 5 --args-json {} --engine-count 0",
            "from 1 to 65536"
        ),
        (
            "--listen-fd 3 --input-listener-fd 4 --output-listener-fd 5 --args-json {} --engine-count x",
            "from 1 to 65536"
        ),
        (
            "--listen-fd 3 --input-listener-fd 4 --output-listener-fd 5 --args-json {} --engine-count 99999999999999999999",
            "from 1 to 65536"
        ),
        (
            "--listen-fd 3 --input-listener-fd 4 --output-listener-fd 5 --args-json {} --engine-count 2 --data-parallel-size 1",
            "--data-parallel-size"
        ),
        (
            "--listen-fd 3 --input-listener-fd 4 --output-listener-fd 5 --args-json {} --engine-start-index 65535 --engine-count 2",
            "above 65536"
        ),
        ("--listen-fd 3 --input-listener-fd 4 --output-listener-fd 5 --args-json", "needs a value"),
        ("--listen-fd 3 --input-listener-fd 4 --output-listener-fd 5 --args-json {} --args-json {}", "given twice"),
        ("serve", "unexpected argument 'serve'"),
    ]

    @Test(arguments: unusable)
    func unusableWordsAreExplained(_ line: String, _ message: String) {
        let words = line.split(separator: " ").map(String.init)
        let error = #expect(throws: UsageError.self) { try FrontendCommandLine.parse(words) }
        #expect(error?.description.contains(message) == true)
    }
}

@Suite struct ArgumentsJSONTests {
    private func configuration(_ json: String) throws -> ServerConfiguration { try ArgumentsJSON(json).configuration }

    private func message(_ json: String) -> String {
        do throws(UsageError) {
            _ = try ArgumentsJSON(json)
            return ""
        } catch {
            return error.description
        }
    }

    /// What the supervisor of vLLM 0.32 was seen to send; unknown keys are engine options.
    @Test func realArguments() throws {
        let arguments = try ArgumentsJSON(
            """
            {"dtype":"bfloat16","enforce_eager":true,"engine_ready_timeout_secs":600,"http_timeout_keep_alive":5,\
            "max_model_len":2048,"model":"models/tiny","model_tag":"models/tiny","port":8102,\
            "profiler_config":{"profiler":null,"torch_profiler_dir":""}}
            """)
        #expect(arguments.warnings.isEmpty)
        #expect(arguments.givesKeepAlive)
        #expect(arguments.configuration.modelTag == "models/tiny")
        #expect(arguments.configuration.servedModelNames == ["models/tiny"])
        #expect(arguments.configuration.limits.keepAliveTimeout == .seconds(5))
        #expect(arguments.configuration.cors.allowedOrigins == [])
        #expect(arguments.configuration.cors.allowedMethods == ["*"])
    }

    @Test func honouredKeys() throws {
        let c = try configuration(
            """
            {"model_tag":"m","served_model_name":["a","b"],"api_key":"k","allowed_origins":["http://x"],
             "allow_credentials":true,"root_path":"/api","h11_max_header_count":10,"h11_max_incomplete_event_size":1000,
             "max_logprobs":5,"response_role":"bot","tool_call_parser":"hermes","reasoning_parser":"qwen3",
             "sse_keep_alive_interval":2.5,"shutdown_timeout":30,"max_num_queued_reqs":7,"enable_scale_out":true,
             "disable_access_log_for_endpoints":"/a,/b","structured_outputs_config":{"backend":"xgrammar","x":1},
             "default_chat_template_kwargs":{"enable_thinking":false},"ssl_certfile":"c.pem","ssl_cert_reqs":2,
             "ssl_ca_certs":"ca.pem","ssl_ciphers":"ECDHE","enable_ssl_refresh":true}
            """)
        #expect(c.servedModelNames == ["a", "b"])
        #expect(c.apiKeys == ["k"])
        #expect(c.cors.allowedOrigins == ["http://x"])
        #expect(c.cors.allowCredentials)
        #expect(c.rootPath == "/api")
        #expect(c.limits.maxHeaderCount == 10)
        #expect(c.limits.maxHeaderBytes == 1000)
        #expect(c.maxLogprobs == 5)
        #expect(c.responseRole == "bot")
        #expect(c.toolCallParser == "hermes")
        #expect(c.reasoningParser == "qwen3")
        #expect(c.sseKeepAliveInterval == 2.5)
        #expect(c.shutdownTimeout == 30)
        #expect(c.maxUnfinishedRequests == 7)
        #expect(c.enableScaleOut)
        #expect(c.quietEndpoints.suffix(2) == ["/a", "/b"])
        #expect(c.defaultChatTemplateKwargs?["enable_thinking"] == .bool(false))
        #expect(c.tls?.keyFile == "c.pem")
        #expect(c.tls?.clientCertificates == .required)
        #expect(c.tls?.authoritiesFile == "ca.pem" && c.tls?.ciphers == "ECDHE" && c.tls?.refreshes == true)
    }

    @Test func bucketsOfHistograms() throws {
        let c = try configuration(
            #"{"model_tag":"m","custom_histogram_buckets":{"request_tokens":[1,10.5],"request_latency":null}}"#)
        #expect(c.customHistogramBuckets == [.requestTokens: [1, 10.5]])
    }

    @Test func logOfDeltas() throws {
        let logged = #"{"model_tag":"m","enable_log_requests":true,"enable_log_outputs":true,"enable_log_deltas":"#
        #expect(try configuration(logged + "false}").enableLogOutputs)
        #expect(message(logged + "true}").contains("enable_log_deltas is not supported"))
    }

    @Test func rejectedKeysAreListedSorted() {
        #expect(
            message(#"{"model_tag":"m","tool_server":"x","middleware":["y"],"grpc":true}"#)
                == "these arguments are not supported by the Swift frontend:\n  - grpc\n  - middleware\n  - tool_server"
        )
    }

    @Test func timesOfRequestsNeedTheEnginesStatistics() throws {
        #expect(try configuration(#"{"model_tag":"m","enable_per_request_metrics":true}"#).enablePerRequestMetrics)
        #expect(
            message(#"{"model_tag":"m","enable_per_request_metrics":true,"disable_log_stats":true}"#)
                .contains("enable_per_request_metrics needs"))
    }

    @Test func toolStrictLevels() throws {
        #expect(try configuration(#"{"model_tag":"m","tool_strict_level":"parameter"}"#).toolStrictLevel == .parameter)
        #expect(
            message(#"{"model_tag":"m","tool_strict_level":"very"}"#).contains("one of auto, function, parameter"))
    }

    @Test func nullIsNeverRejectedAndMeansTheDefault() throws {
        let c = try configuration(
            #"{"model_tag":"m","tool_server":null,"max_logprobs":null,"api_key":null,"stream_interval":null}"#)
        #expect(c.maxLogprobs == 20)
        #expect(c.streamInterval == 1)
    }

    @Test func emptyCollectionsAskForNothing() throws {
        let arguments = try ArgumentsJSON(
            #"{"model_tag":"m","lora_modules":[],"default_mm_loras":{},"hf_overrides":{}}"#)
        #expect(arguments.warnings.isEmpty)
    }

    @Test func keysWithoutEffectWarn() throws {
        let arguments = try ArgumentsJSON(#"{"model_tag":"m","api_server_count":4,"renderer_num_workers":null}"#)
        #expect(
            arguments.warnings == ["argument 'api_server_count' currently has no effect in Swift frontend, ignoring"])
    }

    @Test(arguments: [
        ("", "not valid JSON"), ("{", "not valid JSON"), ("[]", "must be a JSON object"), ("{}", "model_tag"),
        (#"{"model_tag":""}"#, "model_tag"), (#"{"model_tag":1}"#, "`model_tag` must be a string"),
        (#"{"model_tag":"m","max_logprobs":"5"}"#, "`max_logprobs` must be an integer"),
        (#"{"model_tag":"m","max_logprobs":1e99}"#, "`max_logprobs` must be an integer"),
        (#"{"model_tag":"m","allow_credentials":1}"#, "`allow_credentials` must be true or false"),
        (#"{"model_tag":"m","allowed_origins":[1]}"#, "`allowed_origins` must be a list of strings"),
        (#"{"model_tag":"m","default_chat_template_kwargs":[]}"#, "`default_chat_template_kwargs` must be an object"),
        (#"{"model_tag":"m","tokenizer_mode":"mistral"}"#, "`tokenizer_mode` must be one of auto, hf, slow"),
        (#"{"model_tag":"m","shutdown_timeout":-1}"#, "`shutdown_timeout` must be a number of seconds"),
        (#"{"model_tag":"m","shutdown_timeout":NaN}"#, "`shutdown_timeout` must be a number of seconds"),
        (#"{"model_tag":"m","structured_outputs_config":{"backend":1}}"#, "`structured_outputs_config.backend`"),
        (#"{"model_tag":"m","ssl_keyfile":"k"}"#, "ssl_certfile is needed"),
        (#"{"model_tag":"m","enable_log_outputs":true}"#, "needs enable_log_requests"),
        (#"{"model_tag":"m","max_num_queued_tokens":-1}"#, "`max_num_queued_tokens` must be an integer"),
        (#"{"model_tag":"m","override_generation_config":[]}"#, "`override_generation_config` must be an object"),
        (#"{"model_tag":"m","enable_ssl_refresh":true}"#, "ssl_certfile is needed"),
        (#"{"model_tag":"m","ssl_certfile":"c","ssl_cert_reqs":1}"#, "ssl_cert_reqs 1 needs ssl_ca_certs"),
        (#"{"model_tag":"m","hf_overrides":"<function>"}"#, "`hf_overrides` must be an object"),
        (#"{"model_tag":"m","hf_config_path":1}"#, "`hf_config_path` must be a string"),
        (#"{"model_tag":"m","custom_histogram_buckets":{"x":[1]}}"#, "unknown bucket family; known families: inter"),
        (#"{"model_tag":"m","custom_histogram_buckets":{"request_tokens":[]}}"#, "1 to 1000 bounds"),
        (#"{"model_tag":"m","custom_histogram_buckets":{"request_tokens":[2,1]}}"#, "strictly increasing"),
        (#"{"model_tag":"m","custom_histogram_buckets":{"request_tokens":[true]}}"#, "finite numbers above 0"),
        (#"{"model_tag":"m","custom_histogram_buckets":{"request_tokens":[0,1]}}"#, "finite numbers above 0"),
    ])
    func wrongTypesAreExplained(_ json: String, _ expected: String) {
        #expect(message(json).contains(expected))
    }

    @Test func environmentFillsInWhatArgumentsLeaveOpen() throws {
        let environment = try ServerEnvironment([
            "VLLM_API_KEY": "env", "VLLM_HTTP_MAX_REQUEST_BODY_SIZE": "0", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "9",
            "VLLM_SERVER_DEV_MODE": "1", "VLLM_MAX_STOP_STRINGS": "8",
        ])
        var open = try configuration(#"{"model_tag":"m"}"#)
        environment.apply(to: &open, keepAliveIsGiven: false)
        #expect(open.apiKeys == ["env"])
        #expect(open.limits.maxBodyBytes == 0)
        #expect(open.limits.keepAliveTimeout == .seconds(9))
        #expect(open.developmentMode)
        #expect(open.maxStopStrings == 8)
        var given = try configuration(#"{"model_tag":"m","api_key":["arg"],"http_timeout_keep_alive":3}"#)
        environment.apply(to: &given, keepAliveIsGiven: true)
        #expect(given.apiKeys == ["arg"])
        #expect(given.limits.keepAliveTimeout == .seconds(3))
    }

    @Test func unusableEnvironmentIsExplained() {
        let error = #expect(throws: UsageError.self) {
            try ServerEnvironment(["VLLM_HTTP_MAX_REQUEST_BODY_SIZE": "32M"])
        }
        #expect(error?.description.contains("VLLM_HTTP_MAX_REQUEST_BODY_SIZE") == true)
    }
}

struct Unexpected: Error {}

@Suite struct LogTests {
    @Test func linesHaveTheShapeOfVLLM() {
        let handler = FrontendLogHandler(name: "SwiftFrontend", level: .info, useColors: false)
        let line = handler.line(
            level: .warning, message: "engine is slow", metadata: ["b": "2", "a": "1"], file: "Module/File.swift",
            line: 12, second: 0)
        let parts = line.split(separator: " ").map(String.init)
        #expect(parts[0] == "(SwiftFrontend")
        #expect(parts[1].hasPrefix("pid="))
        #expect(parts[2] == "WARNING")
        #expect(["01-01", "12-31"].contains(parts[3]))
        #expect(parts[4].count == 8)
        #expect(parts[5...].joined(separator: " ") == "[File.swift:12] engine is slow a=1 b=2")
    }

    @Test func levelsHavePythonNames() {
        #expect(FrontendLogHandler.level(named: "debug") == .debug)
        #expect(FrontendLogHandler.level(named: "WARNING") == .warning)
        #expect(FrontendLogHandler.level(named: nil) == .info)
        #expect(FrontendLogHandler.level(named: "nonsense") == .info)
    }
}
