// How many KV cache blocks to have, and the longest sequence that fits.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace blas_engine {

struct KvSizing {
    int num_blocks = 0;
    int max_model_len = 0;
};

struct KvRequest {
    int64_t bytes_per_block = 0;  // 0: blocks cost nothing (mock)
    int block_size = 16;
    int model_max_len = 0;   // what the model can do
    int wanted_max_len = 0;  // what the user asked for, 0 = as much as possible
    int max_num_seqs = 0;
    int64_t wanted_bytes = 0;     // 0 = choose
    int wanted_blocks = 0;        // 0 = choose
    int64_t available_bytes = 0;  // memory that could be taken now
    int64_t memory_bytes = 0;     // all there is
};

struct KvSizingError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A sequence of max_model_len tokens always fits into the cache, so that every admitted request can finish alone.
// Throws KvSizingError if that cannot be had.
KvSizing size_kv_cache(const KvRequest& request);

// Memory of the machine, or what the control group allows if that is less.
struct MemoryLimits {
    int64_t total_bytes = 0;
    int64_t available_bytes = 0;
};
MemoryLimits memory_limits();

}  // namespace blas_engine
