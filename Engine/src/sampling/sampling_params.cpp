#include "sampling/sampling_params.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace blas_engine {
namespace {

std::string format_number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

std::optional<std::string> check_range(const char* name, double value, double low, double high) {
    if (value >= low && value <= high) return std::nullopt;
    return std::string(name) + " must be between " + format_number(low) + " and " + format_number(high) + ", got " +
           format_number(value) + ".";
}

std::optional<std::string> check_ids(const char* name, const std::vector<int32_t>& ids, int vocab_size) {
    for (int32_t id : ids) {
        if (id < 0 || id >= vocab_size) {
            return std::string(name) + " contains a token id outside the vocabulary of " + std::to_string(vocab_size) +
                   " tokens.";
        }
    }
    return std::nullopt;
}

void normalize(SamplingParams& p) {
    constexpr double greedy_below = 1e-5;
    constexpr double min_temperature = 0.01;
    if (p.temperature >= 0 && p.temperature < greedy_below) {
        p.temperature = 0;
        p.top_p = 1;
        p.top_k = 0;
        p.min_p = 0;
    } else if (p.temperature > 0 && p.temperature < min_temperature) {
        p.temperature = min_temperature;
    }
    // Some frontends send float32, some float64; the same request must draw the same tokens from either.
    for (double* value :
         {&p.temperature, &p.top_p, &p.min_p, &p.repetition_penalty, &p.presence_penalty, &p.frequency_penalty}) {
        *value = static_cast<float>(*value);
    }
    if (p.top_k == -1) p.top_k = 0;
    if (p.seed == -1) p.seed.reset();
    if (p.ignore_eos) p.eos_token_id.reset();
    for (int32_t id : p.stop_token_ids) {
        if (std::find(p.all_stop_token_ids.begin(), p.all_stop_token_ids.end(), id) == p.all_stop_token_ids.end()) {
            p.all_stop_token_ids.push_back(id);
        }
    }
    if (!p.skip_reading_prefix_cache) p.skip_reading_prefix_cache = p.prompt_logprobs.has_value();
}

std::optional<std::string> check_bounds(const SamplingParams& p) {
    if (auto error = check_range("presence_penalty", p.presence_penalty, -2, 2)) return error;
    if (auto error = check_range("frequency_penalty", p.frequency_penalty, -2, 2)) return error;
    if (!std::isfinite(p.repetition_penalty) || p.repetition_penalty <= 0) {
        return "repetition_penalty must be a finite number above 0, got " + format_number(p.repetition_penalty) + ".";
    }
    if (auto error = check_range("temperature", p.temperature, 0, 2)) return error;
    if (!(p.top_p > 0 && p.top_p <= 1)) return "top_p must be in (0, 1], got " + format_number(p.top_p) + ".";
    if (p.top_k < -1) return "top_k must be -1 or 0 (off), or at least 1, got " + std::to_string(p.top_k) + ".";
    if (auto error = check_range("min_p", p.min_p, 0, 1)) return error;
    if (p.max_tokens && *p.max_tokens < 1) {
        return "max_tokens must be at least 1, got " + std::to_string(*p.max_tokens) + ".";
    }
    if (p.min_tokens < 0) return "min_tokens must be at least 0, got " + std::to_string(p.min_tokens) + ".";
    if (p.max_tokens && p.min_tokens > *p.max_tokens) {
        return "min_tokens must be at most max_tokens=" + std::to_string(*p.max_tokens) + ", got " +
               std::to_string(p.min_tokens) + ".";
    }
    if (p.logprobs && *p.logprobs < -1) {
        return "logprobs must be -1 or at least 0, got " + std::to_string(*p.logprobs) + ".";
    }
    if (p.prompt_logprobs && *p.prompt_logprobs < -1) {
        return "prompt_logprobs must be -1 or at least 0, got " + std::to_string(*p.prompt_logprobs) + ".";
    }
    const RepetitionDetection& r = p.repetition_detection;
    if (r.min_pattern_size < 0 || r.min_pattern_size > r.max_pattern_size ||
        (r.max_pattern_size > 0 && r.min_count < 2)) {
        return "repetition_detection needs 0 <= min_pattern_size <= max_pattern_size and min_count >= 2.";
    }
    return std::nullopt;
}

}  // namespace

std::optional<std::string> normalize_and_validate(SamplingParams& p, const SamplingLimits& limits) {
    if (!p.unsupported.empty()) return p.unsupported + " is not supported by this engine.";
    if (auto error = check_bounds(p)) return error;
    normalize(p);

    if (p.has_allowed_token_ids && p.allowed_token_ids.empty()) return "allowed_token_ids must not be empty.";
    if (p.has_logprob_token_ids && !p.logprobs) return "logprob_token_ids needs logprobs to be set.";
    if (auto error = check_ids("allowed_token_ids", p.allowed_token_ids, limits.vocab_size)) return error;
    if (auto error = check_ids("logprob_token_ids", p.logprob_token_ids, limits.vocab_size)) return error;
    for (const auto& word : p.bad_words) {
        if (word.empty()) return "bad_words must not contain an empty word.";
        if (auto error = check_ids("bad_words", word, limits.vocab_size)) return error;
    }
    for (const auto& [id, bias] : p.logit_bias) {
        if (id < 0 || id >= limits.vocab_size) {
            return "logit_bias contains a token id outside the vocabulary of " + std::to_string(limits.vocab_size) +
                   " tokens.";
        }
        if (!std::isfinite(bias)) return "logit_bias values must be finite numbers.";
    }
    // A stop id that can never be sampled is harmless: frontends send ids of added tokens that the model's table lacks.
    std::erase_if(p.all_stop_token_ids, [&](int32_t id) { return id < 0 || id >= limits.vocab_size; });
    return std::nullopt;
}

}  // namespace blas_engine
