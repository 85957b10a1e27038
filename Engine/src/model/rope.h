// The rotary embedding variants of Hugging Face configs.
#pragma once

#include "json/json.h"
#include "model/config.h"

namespace blas_engine {

// From `rope_parameters` (transformers 5) or `rope_scaling` and `rope_theta` (before). `max_position` is
// max_position_embeddings on entry, and the longest usable context after scaling on return.
// Throws ModelError, prefixed with `source`, for unknown types and missing or senseless parameters.
Rope read_rope(const Json& config, const std::string& source, int head_dim, int& max_position);

}  // namespace blas_engine
