#pragma once

#include "core/options.h"

namespace blas_engine {

// The whole life of an engine process: handshake, loading, serving, shutdown. Returns the exit code: 0 after a signal,
// 1 after a failure, which it has logged.
int run_engine(const EngineOptions& options);

}  // namespace blas_engine
