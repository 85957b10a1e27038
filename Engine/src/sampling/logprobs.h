// Log-probabilities of raw logits, as vLLM reports them.
#pragma once

#include <cstdint>
#include <span>

#include "core/request.h"

namespace blas_engine {

// Number of columns of a row for `requested` alternatives (-1 = whole vocabulary), or for explicit ids.
int logprob_columns(int64_t requested, int vocab_size);

// Fills row `row` of `rows` (already sized): column 0 is `token`, the others are the most likely tokens in descending
// order (ties: lower id first), or exactly `ids` if given. The rank is the number of tokens at least as likely as
// `token`, so tied tokens share the worst rank, as in vLLM.
void fill_logprob_row(std::span<const float> logits, int32_t token, std::span<const int32_t> ids, LogprobRows& rows,
                      int row);

}  // namespace blas_engine
