import ArgumentParser
import EngineProtocol
import Glibc
import JSONBytes
import Supervision
import Testing

@Suite struct CommandLineTests {
    /// A folder that passes for a model's.
    private let scratch = Scratch()

    init() { close(creat(scratch.file("config.json"), 0o600)) }

    /// The configuration that a command line leads to, with programs that exist everywhere.
    private func configuration(_ words: [String]) throws -> ServeConfiguration {
        let programs = ["--engine-binary", "/bin/true", "--frontend-binary", "/bin/true"]
        let arguments = ArgumentNormalizer.normalize(programs + words)
        return try #require(try ServeCommand.parseAsRoot(arguments) as? ServeCommand).makeConfiguration()
    }

    private func refusal(_ words: [String]) -> String {
        do {
            _ = try configuration(words)
            return "accepted"
        } catch {
            return (error as? SupervisionError)?.message ?? ServeCommand.message(for: error)
        }
    }

    private func json(_ words: [String]) throws -> String {
        try configuration(words + [scratch.path]).frontendArguments.json
    }

    private var common: String {
        #""engine_ready_timeout_secs":600,"http_timeout_keep_alive":5,"model_tag":"\#(scratch.path)""#
    }

    @Test func defaultsLeaveTheFrontendsDefaultsAlone() throws {
        #expect(try json([]) == "{\(common)}")
        let configuration = try configuration([scratch.path])
        #expect(configuration.port == 8000 && configuration.host == "127.0.0.1")
        #expect(configuration.frontend == .swift && configuration.shutdownTimeout == .zero)
        #expect(configuration.engineArguments.isEmpty)
    }

    @Test func optionsReachFrontendAndEngineUnderTheirNames() throws {
        let words = """
            --max-model-len 4k --max-num-seqs 8 --dtype half --no-enable-prefix-caching --threads 2 --shutdown-timeout 5 \
            --scheduling-policy priority --port 9000 --enable-auto-tool-choice --tool-call-parser hermes
            """.split(separator: " ").map(String.init)
        let configuration = try configuration(words + [scratch.path])
        #expect(
            configuration.engineArguments.joined(separator: " ") == """
                --max-model-len 4000 --max-num-seqs 8 --dtype float16 --threads 2 --no-enable-prefix-caching \
                --scheduling-policy priority --shutdown-timeout 5.0
                """)
        #expect(configuration.shutdownTimeout == .seconds(5))
        #expect(
            configuration.frontendArguments.json == """
                {"dtype":"half","enable_auto_tool_choice":true,"enable_prefix_caching":false,\
                "engine_ready_timeout_secs":600,"http_timeout_keep_alive":5,"max_model_len":4000,"max_num_seqs":8,\
                "model_tag":"\(scratch.path)","port":9000,"scheduling_policy":"priority","shutdown_timeout":5,\
                "tool_call_parser":"hermes"}
                """)
    }

    @Test func listsAndJSONKeepTheirTypes() throws {
        let names = try json([
            "--served-model-name", "a", "b", "--api-key", "k", "--allowed-origins", #"["*"]"#,
            "--default-chat-template-kwargs", #"{"enable_thinking": false}"#, "--max-logprobs", "-1", "--host", "::",
        ])
        #expect(
            names == """
                {"allowed_origins":["*"],"api_key":["k"],"default_chat_template_kwargs":{"enable_thinking":false},\
                "engine_ready_timeout_secs":600,"host":"::","http_timeout_keep_alive":5,"max_logprobs":-1,\
                "model_tag":"\(scratch.path)","served_model_name":["a","b"]}
                """)
    }

    @Test func aFolderThatIsNoModelIsRefused() {
        let empty = Scratch()
        #expect(refusal([empty.path]).hasPrefix("\(empty.path) has no config.json"))
    }

    @Test func automaticLengthIsTheDefault() throws {
        for word in ["auto", "-1"] {
            #expect(try configuration(["--max-model-len", word, scratch.path]).engineArguments == [])
        }
        #expect(try configuration(["--seed", "-5", scratch.path]).engineArguments == ["--seed", "-5"])
    }

    @Test(arguments: [
        (["--max_model_len", "5"], ["--max-model-len", "5"]),
        (["--chat_template=a_b"], ["--chat-template=a_b"]),
        (["--chat-template", "a_b", "c_d"], ["--chat-template", "a_b", "c_d"]),
        (["x", "--", "--some_option"], ["x", "--", "--some_option"]),
        (["--mock-itl-ms", "5", "--port", "1"], ["--port", "1", "--", "--mock-itl-ms", "5"]),
        (["--mock_seed=5", "x", "--", "--y"], ["x", "--", "--mock-seed=5", "--y"]),
        (["--mock-itl-ms"], ["--", "--mock-itl-ms"]),
    ])
    func wordsAreNormalised(words: [String], expected: [String]) {
        #expect(ArgumentNormalizer.normalize(words) == expected)
    }

    @Test func mockTakesItsTokenizerFromElsewhere() throws {
        let configuration = try configuration(["mock", "--tokenizer", "/t", "--mock-itl-ms", "5"])
        #expect(configuration.model == "mock")
        #expect(configuration.engineArguments == ["--mock-itl-ms", "5"])
        #expect(configuration.frontendArguments["model_tag"] == .string("/t"))
        #expect(configuration.frontendArguments["tokenizer"] == nil)
    }

    @Test func unknownOptionIsRefusedWithTheNearestOne() {
        #expect(refusal(["--max-modl-len", "5"]).contains("Did you mean '--max-model-len'?"))
    }

    @Test(arguments: [
        (["/no/such/model"], "model folder /no/such/model does not exist"),
        (["Qwen/Qwen3-0.6B"], "`hf download Qwen/Qwen3-0.6B --local-dir DIR`"),
        (["stat"], "model folder stat does not exist; `vllm-engine --help` lists the commands"),
        (["/etc/passwd"], "/etc/passwd is no folder"),
        (["/etc"], "/etc has no config.json"),
        (
            ["mock", "--tokenizer", "/t", "--enable-auto-tool-choice"],
            "--enable-auto-tool-choice needs --tool-call-parser"
        ),
        (["mock", "--tokenizer", "/t", "--data-parallel-size", "0"], "--data-parallel-size must be from 1 to 65536"),
        (["mock", "--tokenizer", "/t", "--max-num-seqs", "0"], "--max-num-seqs must be at least 1"),
        (["mock", "--tokenizer", "/t", "--ssl-keyfile", "k"], "--enable-ssl-refresh need --ssl-certfile"),
        (
            ["mock", "--tokenizer", "/t", "--ssl-certfile", "c", "--ssl-cert-reqs", "2"],
            "--ssl-cert-reqs 2 needs --ssl-ca-certs"
        ),
        (["mock", "--tokenizer", "/t", "--frontend-version", "0.9"], "--frontend-version: 0.9 is not a vLLM release"),
        (["mock", "--tokenizer", "/t", "--frontend", "rust"], "/bin/true does not look like a frontend"),
        (["mock", "--tokenizer", "/t", "--frontend", "python"], "--frontend python takes --python"),
        (["mock", "--tokenizer", "/t", "--engine-binary", "/etc"], "--engine-binary: /etc is not an executable file"),
        (["--hf-overrides", "{x"], "The value '{x' is invalid for '--hf-overrides"),
        (["--port", "70000"], "The value '70000' is invalid for '--port"),
        (["--dtype", "int7"], "The value 'int7' is invalid for '--dtype"),
        (["--shutdown-timeout", "-1"], "'--shutdown-timeout"),
        (["--max-model-len", "1e400G"], "'--max-model-len"),
    ])
    func wrongValuesAreExplained(words: [String], message: String) {
        let text = refusal(words)
        #expect(text.contains(message), "\(text)")
    }

    @Test func frontendProgramsCanBeNamedDirectly() throws {
        let program = scratch.script(
            "case $1 in frontend) echo --listen-fd --input-listener-fd;; *) echo mine 0.32.1;; esac", name: "mine")
        let words = ["--engine-binary", "/bin/true", "--frontend", program, "mock", "--tokenizer", "/t"]
        let command = try #require(try ServeCommand.parseAsRoot(words) as? ServeCommand)
        let configuration = try command.makeConfiguration()
        #expect(configuration.frontend == .program(program))
        #expect(configuration.frontendExecutable == program)
        #expect(configuration.frontendContract.family == .v0_32)
        #expect(!configuration.frontendContract.knowsDataParallelSize)
    }
}

@Suite struct ReadyBannerTests {
    private func banner(_ address: String, _ change: (inout ServeConfiguration) -> Void = { _ in }) -> String {
        var configuration = ServeConfiguration(model: "/m/it's", frontendExecutable: "", engineExecutable: "")
        change(&configuration)
        return ReadyBanner(configuration, address: address).text
    }

    @Test func showsARequestThatCanBePasted() throws {
        let text = banner("http://127.0.0.1:8000")
        #expect(text.contains("curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json'"))
        // The quoting holds up to a shell.
        let body = try #require(text.split(separator: "\n").first { $0.contains("-d ") }).drop { $0 != "'" }
        let printed = try outputOf(
            SpawnRequest(name: "X", executable: "/bin/sh", arguments: ["-c", "printf %s \(body)"]))
        #expect(printed == #"{"model": "/m/it's", "messages": [{"role": "user", "content": "Hello!"}]}"#)
    }

    @Test func fitsTheAddress() {
        #expect(banner("http://0.0.0.0:80").contains("curl http://localhost:80/v1"))
        #expect(banner("http://[::]:80").contains("curl http://localhost:80/v1"))
        #expect(banner("unix:/run/x").contains("curl --unix-socket /run/x http://localhost/v1"))
        #expect(banner("https://127.0.0.1:1") { $0.usesTLS = true }.contains("curl --insecure https://127.0.0.1:1/v1"))
        #expect(banner("http://127.0.0.1:1") { $0.needsAPIKey = true }.contains("Bearer $VLLM_API_KEY"))
        #expect(banner("http://127.0.0.1:1") { $0.servedModelNames = ["n"] }.contains(#""model": "n""#))
    }
}
