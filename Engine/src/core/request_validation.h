#pragma once

#include <optional>
#include <string>

#include "core/request.h"

namespace blas_engine {

// Checks a decoded request against the model's limits and normalizes its sampling parameters. Returns a message for the
// client if it cannot be served.
std::optional<std::string> validate_request(Request& request, const SamplingLimits& limits);

}  // namespace blas_engine
