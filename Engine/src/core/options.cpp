#include "core/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <numeric>

#ifndef BLAS_ENGINE_VERSION
#define BLAS_ENGINE_VERSION "0"
#endif

namespace blas_engine {
namespace {

constexpr int max_index = 65535;  // two bytes on the wire

[[noreturn]] void bad_value(const std::string& name, const std::string& value, const std::string& expected) {
    throw OptionsError(name + ": '" + value + "' is not " + expected);
}

double parse_double(const std::string& name, const std::string& value, double low, double high) {
    double number = 0;
    auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || !(number >= low && number <= high)) {
        bad_value(name, value, "a number from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return number;
}

// Plain integers, and vLLM's human-readable ones: 1k = 1000, 1K = 1024, likewise m/M, g/G.
int64_t parse_integer(const std::string& name, const std::string& value, int64_t low, int64_t high) {
    std::string expected = "an integer from " + std::to_string(low) + " to " + std::to_string(high);
    constexpr struct {
        char suffix;
        int64_t factor;
    } suffixes[] = {{'k', 1000},      {'m', 1000000},   {'g', 1000000000},
                    {'K', 1LL << 10}, {'M', 1LL << 20}, {'G', 1LL << 30}};
    std::string digits = value;
    int64_t factor = 1;
    for (const auto& entry : suffixes) {
        if (!digits.empty() && digits.back() == entry.suffix) {
            factor = entry.factor;
            digits.pop_back();
            break;
        }
    }
    if (factor > 1) {
        double number = 0;
        auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
        if (error != std::errc() || end != digits.data() + digits.size()) bad_value(name, value, expected);
        number = std::floor(number * static_cast<double>(factor));
        if (!(number >= static_cast<double>(low) && number <= static_cast<double>(high))) {
            bad_value(name, value, expected);
        }
        return static_cast<int64_t>(number);
    }
    int64_t number = 0;
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error != std::errc() || end != digits.data() + digits.size() || number < low || number > high) {
        bad_value(name, value, expected);
    }
    return number;
}

int parse_int(const std::string& name, const std::string& value, int low, int high) {
    return static_cast<int>(parse_integer(name, value, low, high));
}

Distribution parse_times(const std::string& name, const std::string& value) {
    auto times = Distribution::parse(value);
    if (!times) {
        bad_value(name, value,
                  "milliseconds or one of uniform:LOW,HIGH exponential:MEAN normal:MEAN,DEVIATION "
                  "lognormal:MEDIAN,SIGMA");
    }
    return *times;
}

struct Option {
    const char* name;
    const char* value;  // placeholder in the help text; null for flags
    const char* help;
    std::function<void(EngineOptions&, const std::string& value)> apply;
};

struct Section {
    const char* title;
    std::vector<Option> options;
};

Option integer_option(const char* name, const char* help, int EngineOptions::*field, int low, int high) {
    return {name, "N", help, [=](EngineOptions& o, const std::string& v) { o.*field = parse_int(name, v, low, high); }};
}

const std::vector<Section>& sections() {
    static const std::vector<Section> all = {
        {"Joining a frontend",
         {{"--model", "DIR|mock",
           "Hugging Face folder (config.json, *.safetensors), or 'mock' for scripted tokens without a model. Required.",
           [](EngineOptions& o, const std::string& v) { o.model = v; }},
          {"--handshake-address", "ADDR",
           "Where the frontend or supervisor waits for engines: tcp://HOST:PORT or ipc://PATH. Required.",
           [](EngineOptions& o, const std::string& v) {
               if (!v.starts_with("tcp://") && !v.starts_with("ipc://"))
                   bad_value("--handshake-address", v, "tcp:// or ipc://");
               o.handshake_address = v;
           }},
          integer_option("--engine-index", "Data-parallel rank, unique per engine of a frontend. Default 0.",
                         &EngineOptions::engine_index, 0, max_index),
          {"--local", nullptr, "Say that the process behind the handshake address started this engine.",
           [](EngineOptions& o, const std::string&) {
               o.local = true;
               o.headless = false;
           }},
          {"--headless", nullptr, "Say that this engine was started on its own (the default).",
           [](EngineOptions& o, const std::string&) {
               o.local = false;
               o.headless = true;
           }},
          {"--no-headless", nullptr, "Remote but not headless, as hybrid and external load balancing expect.",
           [](EngineOptions& o, const std::string&) { o.headless = false; }},
          {"--control", nullptr,
           "Stay in touch over the handshake socket after READY: the supervisor may connect and disconnect frontends.",
           [](EngineOptions& o, const std::string&) { o.control = true; }},
          {"--protocol-version", "V",
           "vLLM release of the frontend: 0.22, 0.25, 0.28, 0.30, 0.32 or 0.33. Default: the form that every frontend "
           "from "
           "0.28 on reads.",
           [](EngineOptions& o, const std::string& v) {
               o.protocol = parse_protocol_family(v);
               if (!o.protocol) bad_value("--protocol-version", v, "one of 0.22, 0.25, 0.28, 0.30, 0.32, 0.33");
           }}}},
        {"Model and memory",
         {{"--dtype", "TYPE", "auto, bfloat16, float16 (kept as bfloat16) or float32. Default auto.",
           [](EngineOptions& o, const std::string& v) {
               if (v != "auto" && v != "bfloat16" && v != "float16" && v != "float32") {
                   bad_value("--dtype", v, "auto, bfloat16, float16 or float32");
               }
               o.dtype = v;
           }},
          integer_option("--threads", "Compute threads. Default 0: the CPUs this process may use.",
                         &EngineOptions::threads, 0, 1024),
          {"--max-model-len", "N",
           "Longest prompt plus answer in tokens (4k = 4000, 4K = 4096). Default: what model and KV cache allow.",
           [](EngineOptions& o, const std::string& v) {
               o.max_model_len = v == "auto" || v == "-1" ? 0 : parse_int("--max-model-len", v, 2, 1 << 24);
           }},
          integer_option("--block-size", "Tokens per KV cache block, for models a multiple of 16. Default 16.",
                         &EngineOptions::block_size, 1, 1024),
          {"--kv-cache-memory", "BYTES",
           "Memory for keys and values (2G, 512M, ...). Default: VLLM_CPU_KVCACHE_SPACE (GiB), else what max-num-seqs "
           "full "
           "sequences need, at most 4 GiB and 40 % of the free memory. Also --kv-cache-memory-bytes.",
           [](EngineOptions& o, const std::string& v) {
               o.kv_cache_bytes = parse_integer("--kv-cache-memory", v, 1, int64_t{1} << 46);
           }},
          {"--kv-cache-memory-bytes", "BYTES", nullptr,
           [](EngineOptions& o, const std::string& v) {
               o.kv_cache_bytes = parse_integer("--kv-cache-memory-bytes", v, 1, int64_t{1} << 46);
           }},
          integer_option("--num-gpu-blocks-override", "Exact number of KV cache blocks instead of a memory size.",
                         &EngineOptions::num_gpu_blocks_override, 1, 1 << 28)}},
        {"Scheduling",
         {integer_option("--max-num-seqs", "Most requests in one step. Default 128.", &EngineOptions::max_num_seqs, 1,
                         1 << 16),
          integer_option("--max-num-batched-tokens",
                         "Most tokens in one step; longer prompts are computed in chunks. Default 2048.",
                         &EngineOptions::max_num_batched_tokens, 1, 1 << 20),
          {"--enable-prefix-caching", nullptr, "Reuse keys and values of common prompt beginnings (the default).",
           [](EngineOptions& o, const std::string&) { o.prefix_caching = true; }},
          {"--no-enable-prefix-caching", nullptr, "Compute every prompt from its beginning.",
           [](EngineOptions& o, const std::string&) { o.prefix_caching = false; }},
          {"--scheduling-policy", "P", "fcfs (default) or priority (lower request priority runs earlier).",
           [](EngineOptions& o, const std::string& v) {
               if (v != "fcfs" && v != "priority") bad_value("--scheduling-policy", v, "fcfs or priority");
               o.priority_scheduling = v == "priority";
           }},
          {"--seed", "N", "Seed of requests that bring none. Default 0.",
           [](EngineOptions& o, const std::string& v) {
               o.seed = static_cast<uint64_t>(parse_integer("--seed", v, INT64_MIN, INT64_MAX));
           }}}},
        {"Running",
         {{"--shutdown-timeout", "SECONDS",
           "On SIGTERM or SIGINT finish running requests for up to this long. Default 0: end them at once. A second "
           "signal exits immediately.",
           [](EngineOptions& o, const std::string& v) {
               o.shutdown_timeout_seconds = parse_double("--shutdown-timeout", v, 0, 1e6);
           }},
          {"--death-fd", "FD",
           "Inherited read end of a pipe that the supervisor holds open: when it closes, the engine exits at once.",
           [](EngineOptions& o, const std::string& v) { o.death_fd = parse_int("--death-fd", v, 0, 1 << 20); }},
          {"--progress-fd", "FD",
           "Inherited file in which the engine notes how far loading is: 64 bytes at 64 times its index, a percentage "
           "and "
           "what it does.",
           [](EngineOptions& o, const std::string& v) { o.progress_fd = parse_int("--progress-fd", v, 0, 1 << 20); }},
          {"--disable-log-stats", nullptr, "Send no scheduler statistics and request events.",
           [](EngineOptions& o, const std::string&) { o.log_stats = false; }},
          {"--enable-logging-iteration-details", nullptr, "Add the make-up of every step to the statistics.",
           [](EngineOptions& o, const std::string&) { o.iteration_details = true; }},
          {"--log-level", "LEVEL", "debug, info, warning or error. Default: VLLM_LOGGING_LEVEL, else info.",
           [](EngineOptions& o, const std::string& v) {
               auto level = parse_log_level(v);
               if (!level) bad_value("--log-level", v, "debug, info, warning or error");
               o.log_level = *level;
           }},
          {"--stamps", "FILE",
           "Write when each request with a seed came in and when each of its steps went out, see Engine/README.md.",
           [](EngineOptions& o, const std::string& v) { o.stamps_path = v; }},
          {"--record", "FILE", "Write what was answered and when, for --mock-replay, see Engine/README.md.",
           [](EngineOptions& o, const std::string& v) { o.record_path = v; }},
          {"--help", nullptr, "Show this text.", nullptr},
          {"--version", nullptr, "Show the version.", nullptr}}},
        {"The mock model (--model mock)",
         {{"--mock-ttft-ms", "TIMES",
           "Time from a request to its first token, in milliseconds: a number, or a distribution that --seed draws "
           "from: "
           "uniform:LOW,HIGH, exponential:MEAN, normal:MEAN,DEVIATION, lognormal:MEDIAN,SIGMA. Default 0.",
           [](EngineOptions& o, const std::string& v) { o.mock.ttft = parse_times("--mock-ttft-ms", v); }},
          {"--mock-itl-ms", "TIMES",
           "Time between steps, likewise (0.05 = a step every 50 us). Default 0: as fast as possible.",
           [](EngineOptions& o, const std::string& v) { o.mock.itl = parse_times("--mock-itl-ms", v); }},
          {"--mock-pace", "PACE",
           "step (default): all requests get tokens with the same steps, as in continuous batching; request: each "
           "keeps a time of its own.",
           [](EngineOptions& o, const std::string& v) {
               if (v != "step" && v != "request") bad_value("--mock-pace", v, "step or request");
               o.mock.shared_steps = v == "step";
           }},
          {"--mock-tokens-per-step", "N", "Tokens of each request per step. Default 1.",
           [](EngineOptions& o, const std::string& v) {
               o.mock.tokens_per_step = parse_int("--mock-tokens-per-step", v, 1, 4096);
           }},
          {"--mock-vocab-size", "N", "Token ids are below this. Default 8192.",
           [](EngineOptions& o, const std::string& v) {
               o.mock.vocab_size = parse_int("--mock-vocab-size", v, 2, 1 << 24);
           }},
          {"--mock-first-token", "ID", "Made-up ids start here, to leave out special tokens. Default 3.",
           [](EngineOptions& o, const std::string& v) {
               o.mock.first_token = parse_int("--mock-first-token", v, 0, 1 << 24);
           }},
          {"--mock-words", "PATH",
           "tokenizer.json (or its folder): make up only tokens that are a space and a word of ASCII letters.",
           [](EngineOptions& o, const std::string& v) { o.mock.words_path = v; }},
          {"--mock-replay", "FILE",
           "Play a recording back (see --record): tokens and times of a real run. Of the other options only "
           "--mock-fault applies.",
           [](EngineOptions& o, const std::string& v) { o.mock.replay_path = v; }},
          {"--mock-output-tokens", "N", "Answer EOS after this many tokens. Default 0: only max_tokens ends a request.",
           [](EngineOptions& o, const std::string& v) {
               o.mock.output_tokens = parse_int("--mock-output-tokens", v, 0, INT32_MAX);
           }},
          {"--mock-fault", "FAULT",
           "Scripted failure, may be given several times: die-after-tokens=N (ENGINE_CORE_DEAD), exit-after-tokens=N "
           "(vanishes), hang-after-tokens=N (stops answering, sockets stay), stall-after-tokens=N:SECONDS (one long "
           "step), each also as ...-after-requests=N, and error-request=N (every Nth request fails).",
           [](EngineOptions& o, const std::string& v) {
               auto fault = parse_mock_fault(v);
               if (!fault) bad_value("--mock-fault", v, "KIND=N with one of the kinds in --help and N >= 1");
               o.mock.faults.push_back(*fault);
           }}}},
    };
    return all;
}

size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 1; i <= a.size(); ++i) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
        }
    }
    return row[b.size()];
}

const Option* find_option(const std::string& name) {
    for (const Section& section : sections()) {
        for (const Option& option : section.options) {
            if (name == option.name) return &option;
        }
    }
    return nullptr;
}

[[noreturn]] void unknown_option(const std::string& name) {
    std::string nearest;
    size_t best = std::string::npos;
    for (const Section& section : sections()) {
        for (const Option& option : section.options) {
            size_t distance = edit_distance(name, option.name);
            if (distance < best) {
                best = distance;
                nearest = option.name;
            }
        }
    }
    throw OptionsError("unknown option " + name + "; did you mean " + nearest + "? (--help lists all)");
}

}  // namespace

OptionsAction parse_options(const std::vector<std::string>& arguments, EngineOptions& options) {
    if (const char* level = std::getenv("VLLM_LOGGING_LEVEL")) {
        if (auto parsed = parse_log_level(level)) options.log_level = *parsed;
    }
    for (size_t i = 0; i < arguments.size(); ++i) {
        std::string name = arguments[i];
        if (!name.starts_with("--")) {
            throw OptionsError("unexpected argument '" + name + "'; every option starts with -- (--help lists all)");
        }
        std::optional<std::string> value;
        if (size_t equals = name.find('='); equals != std::string::npos) {
            value = name.substr(equals + 1);
            name.resize(equals);
        }
        std::replace(name.begin(), name.end(), '_', '-');
        const Option* option = find_option(name);
        if (!option) unknown_option(name);
        if (!option->value && value) throw OptionsError(name + " takes no value");
        if (name == "--help") return OptionsAction::help;
        if (name == "--version") return OptionsAction::version;
        if (option->value && !value) {
            if (++i == arguments.size()) throw OptionsError(name + " needs a value: " + option->value);
            value = arguments[i];
        }
        option->apply(options, value.value_or(""));
    }
    if (options.model.empty()) throw OptionsError("--model is required (a folder, or mock)");
    if (options.handshake_address.empty()) throw OptionsError("--handshake-address is required");
    if (options.mock.first_token >= options.mock.vocab_size) {
        throw OptionsError("--mock-first-token must be below --mock-vocab-size");
    }
    options.mock.seed = options.seed;
    if (options.dtype != "auto") options.mock.dtype = options.dtype;
    return OptionsAction::run;
}

std::string help_text() {
    constexpr size_t indent = 6;
    constexpr size_t width = 100;
    std::string text =
        "blas-engine: an inference engine for CPUs that joins vLLM frontends (EngineCore protocol over ZMQ).\n\n"
        "Usage: blas-engine --model DIR --handshake-address ADDR [options]\n\n"
        "Try it with an unmodified vLLM frontend of any kind:\n"
        "  vllm-rs serve DIR --data-parallel-size-local 0 --handshake-port 5570 &\n"
        "  blas-engine --model DIR --handshake-address tcp://127.0.0.1:5570\n";
    for (const Section& section : sections()) {
        text.append("\n").append(section.title).append(":\n");
        for (const Option& option : section.options) {
            if (!option.help) continue;  // another name of the one before
            text.append("  ").append(option.name);
            if (option.value) text.append(" ").append(option.value);
            text.append("\n");
            std::string line(indent, ' ');
            std::string words = option.help;
            for (size_t start = 0; start < words.size();) {
                size_t end = std::min(words.find(' ', start), words.size());
                if (line.size() + end - start > width) {
                    text.append(line).append("\n");
                    line.assign(indent, ' ');
                }
                if (line.size() > indent) line.append(" ");
                line.append(words, start, end - start);
                start = end + 1;
            }
            text.append(line).append("\n");
        }
    }
    return text;
}

std::string version_text() { return "blas-engine " BLAS_ENGINE_VERSION "\n"; }

}  // namespace blas_engine
