// What the busy loop is doing, for threads that answer while a long step keeps it from answering itself.
#pragma once

#include <atomic>
#include <cstdint>

namespace blas_engine {

struct Pulse {
    // Steps begun and batches of messages handled.
    std::atomic<int64_t> turns{0};
    // CLOCK_MONOTONIC seconds since when the loop is at its present turn; 0 while it waits for something to do.
    std::atomic<double> busy_since{0};
};

}  // namespace blas_engine
