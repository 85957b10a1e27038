#pragma once

#include <time.h>

namespace blas_engine {

// CLOCK_MONOTONIC in seconds: the clock of vLLM's events and output timestamps.
inline double monotonic_seconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace blas_engine
