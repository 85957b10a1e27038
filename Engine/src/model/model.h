// The seam between the scheduler (core/) and the computation (model/, kernels/).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace blas_engine {

// Facts of a loaded model that scheduling, sampling and the ready message need.
struct ModelInfo {
    std::string architecture;  // e.g. "Qwen3ForCausalLM"
    std::string dtype;         // storage dtype of the weights: "bfloat16" or "float32"
    int vocab_size = 0;        // width of a row of logits
    int max_position = 0;      // max_position_embeddings (after rope scaling)
    int num_layers = 0;
    std::vector<int32_t> eos_token_ids;  // config.json / generation_config.json
    size_t weight_bytes = 0;             // bytes of packed weights in memory
};

struct LoadOptions {
    std::string path;            // Hugging Face folder
    std::string dtype = "auto";  // auto | bfloat16 | float16 (stored as bfloat16) | float32
    int threads = 0;             // 0 = affinity mask and cgroup quota
    int block_size = 16;         // tokens per KV block
    std::function<void(double fraction, const std::string& what)> progress;
};

// One sequence's share of a step: `tokens` are at positions computed, computed + 1, ... and their keys and values go to
// the blocks of `block_table` (block i holds positions [i * block_size, (i + 1) * block_size)). Logits are wanted for
// the last `logits_rows` of the tokens (0 = none, a prefill chunk that is not the last; 1 = usual; more = prompt
// logprobs).
struct SequenceInput {
    std::span<const int32_t> tokens;
    int computed = 0;
    std::span<const int32_t> block_table;
    int logits_rows = 1;
};

// A model with its own paged KV cache. Not thread-safe: one caller (the core's busy loop); parallel inside.
class Model {
  public:
    virtual ~Model() = default;

    // Throws ModelError with a message for the user: missing folder or file, bad JSON, truncated safetensors, unknown
    // architecture, shapes that do not fit, unsupported option. Never crashes on a bad folder.
    static std::unique_ptr<Model> load(const LoadOptions& options);

    virtual const ModelInfo& info() const = 0;
    virtual size_t kv_bytes_per_block() const = 0;
    virtual void allocate_kv(int num_blocks) = 0;

    // Computes one step of all sequences together. `logits` receives sum(logits_rows) rows of vocab_size floats, in the
    // order of `batch`. Token ids must already be inside the vocabulary.
    virtual void forward(std::span<const SequenceInput> batch, float* logits) = 0;

    // vLLM's sleep: release the packed weights (and the KV cache) / load them again from the files.
    virtual void release_weights() = 0;
    virtual void reload_weights() = 0;

    // The pool's thread count, and helpers for sampling rows in parallel.
    virtual int threads() const = 0;
    virtual void parallel_for(int n, const std::function<void(int)>& body) = 0;
};

struct ModelError : std::exception {
    explicit ModelError(std::string text) : message(std::move(text)) {}
    const char* what() const noexcept override { return message.c_str(); }
    std::string message;
};

}  // namespace blas_engine
