// Chooses the next token of one request from its row of logits.
#pragma once

#include <cstdint>
#include <span>

#include "core/request.h"

namespace blas_engine {

// Samples from `logits` (which it overwrites) into request.new_tokens, and fills request.new_logprobs from the raw
// logits if they are wanted. Deterministic in (logits, request history, request.random_key). Thread-safe for different
// requests.
void sample_token(std::span<float> logits, Request& request);

// The choice alone. Temperature, min_p, top_k and top_p act in this order, as in vLLM; `uniform` in [0, 1) picks among
// what is left, in the order of ids.
int32_t choose_token(std::span<float> logits, const SamplingParams& params, double uniform);

}  // namespace blas_engine
