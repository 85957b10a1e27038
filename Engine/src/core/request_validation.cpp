#include "core/request_validation.h"

#include "sampling/logprobs.h"

namespace blas_engine {
namespace {

// Log-probabilities of a whole prompt over a whole vocabulary would be gigabytes.
constexpr int64_t max_prompt_logprob_entries = int64_t{32} << 20;

}  // namespace

std::optional<std::string> validate_request(Request& request, const SamplingLimits& limits) {
    if (!request.params.unsupported.empty()) return normalize_and_validate(request.params, limits);
    if (request.prompt_length == 0) return "The prompt is empty.";
    if (request.prompt_length >= limits.max_model_len) {
        return "The prompt has " + std::to_string(request.prompt_length) + " tokens, but at most " +
               std::to_string(limits.max_model_len - 1) + " leave room for an answer within the context of " +
               std::to_string(limits.max_model_len) + " tokens.";
    }
    for (int32_t id : request.tokens) {
        if (id < 0 || id >= limits.vocab_size) {
            return "The prompt contains a token id outside the vocabulary of " + std::to_string(limits.vocab_size) +
                   " tokens.";
        }
    }
    if (auto error = normalize_and_validate(request.params, limits)) return error;
    if (request.params.prompt_logprobs) {
        int64_t columns = logprob_columns(*request.params.prompt_logprobs, limits.vocab_size);
        if (columns * request.prompt_length > max_prompt_logprob_entries) {
            return "prompt_logprobs of " + std::to_string(request.prompt_length) + " tokens with " +
                   std::to_string(columns - 1) + " alternatives each are too many.";
        }
    }
    return std::nullopt;
}

}  // namespace blas_engine
