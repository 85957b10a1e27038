#pragma once

#include <cstdint>
#include <span>

#include "sampling/sampling_params.h"

namespace blas_engine {

// Whether the last tokens are some pattern of allowed size, repeated at least min_count times in a row.
bool ends_in_repetition(std::span<const int32_t> output, const RepetitionDetection& detection);

}  // namespace blas_engine
