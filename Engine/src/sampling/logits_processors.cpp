#include "sampling/logits_processors.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace blas_engine {
namespace {

constexpr float banned = -std::numeric_limits<float>::infinity();

bool has_penalties(const SamplingParams& p) {
    return p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0;
}

bool masks_stop_tokens(const SamplingContext& c) {
    return static_cast<int64_t>(c.output.size()) < c.params.min_tokens && !c.params.all_stop_token_ids.empty();
}

void keep_allowed(std::span<float> logits, const std::vector<int32_t>& allowed) {
    thread_local std::vector<float> kept;
    kept.clear();
    for (int32_t id : allowed) kept.push_back(logits[id]);
    std::fill(logits.begin(), logits.end(), banned);
    for (size_t i = 0; i < allowed.size(); ++i) logits[allowed[i]] = kept[i];
}

// Bans the last token of a word when the tokens before it are what was generated last.
void ban_bad_words(std::span<float> logits, const SamplingContext& c) {
    for (const auto& word : c.params.bad_words) {
        size_t prefix = word.size() - 1;
        if (prefix <= c.output.size() && std::equal(word.begin(), word.end() - 1, c.output.end() - prefix)) {
            logits[word.back()] = banned;
        }
    }
}

void apply_penalties(std::span<float> logits, const SamplingContext& c) {
    // Occurrences in the output; the sign bit marks tokens whose repetition penalty is already applied.
    thread_local std::vector<int32_t> counts;
    thread_local std::vector<uint8_t> seen;
    if (counts.size() < logits.size()) {
        counts.resize(logits.size());
        seen.resize(logits.size());
    }
    auto repetition = static_cast<float>(c.params.repetition_penalty);
    auto frequency = static_cast<float>(c.params.frequency_penalty);
    auto presence = static_cast<float>(c.params.presence_penalty);

    for (int32_t id : c.output) ++counts[id];
    auto penalize_repetition = [&](int32_t id) {
        if (seen[id]) return;
        seen[id] = 1;
        logits[id] = logits[id] > 0 ? logits[id] / repetition : logits[id] * repetition;
    };
    if (repetition != 1) {
        for (int32_t id : c.prompt) penalize_repetition(id);
        for (int32_t id : c.output) penalize_repetition(id);
    }
    for (int32_t id : c.output) {
        if (counts[id] == 0) continue;  // done at its first occurrence
        logits[id] -= frequency * static_cast<float>(counts[id]) + presence;
        counts[id] = 0;
    }
    if (repetition != 1) {
        for (int32_t id : c.prompt) seen[id] = 0;
        for (int32_t id : c.output) seen[id] = 0;
    }
}

}  // namespace

bool has_logits_processors(const SamplingContext& c) {
    return c.params.has_allowed_token_ids || !c.params.bad_words.empty() || masks_stop_tokens(c) ||
           !c.params.logit_bias.empty() || has_penalties(c.params);
}

void apply_logits_processors(std::span<float> logits, const SamplingContext& c) {
    if (c.params.has_allowed_token_ids) keep_allowed(logits, c.params.allowed_token_ids);
    ban_bad_words(logits, c);
    if (masks_stop_tokens(c)) {
        for (int32_t id : c.params.all_stop_token_ids) logits[id] = banned;
    }
    for (const auto& [id, bias] : c.params.logit_bias) logits[id] += bias;
    if (has_penalties(c.params)) apply_penalties(logits, c);
}

}  // namespace blas_engine
