// How the tokens of one request are chosen and when it ends (vLLM: SamplingParams).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace blas_engine {

// vLLM: RepetitionDetectionParams. Off while max_pattern_size is 0.
struct RepetitionDetection {
    int64_t max_pattern_size = 0;
    int64_t min_pattern_size = 0;
    int64_t min_count = 0;
};

struct SamplingParams {
    double temperature = 1;  // 0 = greedy
    double top_p = 1;
    int64_t top_k = 0;  // 0 = off
    double min_p = 0;
    double repetition_penalty = 1;
    double presence_penalty = 0;
    double frequency_penalty = 0;
    std::optional<int64_t> seed;
    std::optional<int64_t> max_tokens = 16;
    int64_t min_tokens = 0;
    std::optional<int64_t> logprobs;  // alternatives per token; -1 = whole vocabulary
    std::optional<int64_t> prompt_logprobs;
    std::vector<int32_t> logprob_token_ids;  // these instead of the top `logprobs`
    bool has_logprob_token_ids = false;
    std::optional<int64_t> eos_token_id;
    bool ignore_eos = false;
    std::vector<int32_t> stop_token_ids;
    std::vector<int32_t> all_stop_token_ids;  // masked until min_tokens is reached
    std::vector<std::pair<int32_t, float>> logit_bias;
    std::vector<int32_t> allowed_token_ids;
    bool has_allowed_token_ids = false;
    std::vector<std::vector<int32_t>> bad_words;
    RepetitionDetection repetition_detection;
    std::optional<bool> skip_reading_prefix_cache;
    // Name of a parameter this engine has no implementation for, empty if none was asked for.
    std::string unsupported;

    bool greedy() const { return temperature == 0; }
    bool wants_logprobs() const { return logprobs.has_value(); }
};

// What a request must fit into.
struct SamplingLimits {
    int vocab_size = 0;
    int max_model_len = 0;
};

// Applies vLLM's decode-time rules (near-zero temperatures, seed -1, stop ids counted as stop set, ...), then checks
// the bounds vLLM checks and that all ids are inside the vocabulary. Returns a message for the client if something is
// wrong.
std::optional<std::string> normalize_and_validate(SamplingParams& params, const SamplingLimits& limits);

}  // namespace blas_engine
