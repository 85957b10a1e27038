// Everything that changes a row of logits before a token is chosen from it, in vLLM's order.
#pragma once

#include <cstdint>
#include <span>

#include "sampling/sampling_params.h"

namespace blas_engine {

// The part of a request's history that processors look at.
struct SamplingContext {
    const SamplingParams& params;
    std::span<const int32_t> prompt;
    std::span<const int32_t> output;
};

// Whether `apply_logits_processors` would change anything.
bool has_logits_processors(const SamplingContext& context);

// Allowed ids, bad words, min_tokens, logit bias, then repetition, frequency and presence penalties. Banned tokens
// become -infinity. Thread-safe for different rows.
void apply_logits_processors(std::span<float> logits, const SamplingContext& context);

}  // namespace blas_engine
