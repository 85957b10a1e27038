// The command line of blas-engine.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/log.h"
#include "mock/mock_executor.h"
#include "wire/protocol_family.h"

namespace blas_engine {

struct EngineOptions {
    std::string model;
    std::string handshake_address;
    int engine_index = 0;
    bool local = false;
    bool headless = true;
    int death_fd = -1;
    int progress_fd = -1;
    bool control = false;

    std::string dtype = "auto";
    int threads = 0;
    int max_model_len = 0;  // 0 = what the model and the KV cache allow
    int max_num_seqs = 128;
    int max_num_batched_tokens = 2048;
    int block_size = 16;
    int64_t kv_cache_bytes = 0;  // 0 = sized from the memory at hand
    int num_gpu_blocks_override = 0;
    bool prefix_caching = true;
    bool priority_scheduling = false;
    uint64_t seed = 0;

    std::optional<ProtocolFamily> protocol;  // none = the form that suits most frontends
    double shutdown_timeout_seconds = 0;
    bool log_stats = true;
    bool iteration_details = false;
    LogLevel log_level = LogLevel::info;
    std::string stamps_path;
    std::string record_path;
    MockOptions mock;
};

// Wrong command line; the message is for the user.
struct OptionsError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class OptionsAction { run, help, version };

// Parses argv without the program's name. Both `--name value` and `--name=value` are understood, and underscores in
// names as dashes, as in vLLM. Unknown options are refused with the nearest known one.
OptionsAction parse_options(const std::vector<std::string>& arguments, EngineOptions& options);

std::string help_text();
std::string version_text();

}  // namespace blas_engine
