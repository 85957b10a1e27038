#include "core/kv_sizing.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace blas_engine {
namespace {

constexpr int64_t default_cap_bytes = int64_t{4} << 30;
constexpr double default_share = 0.4;
constexpr int64_t max_blocks = int64_t{1} << 28;
// Blocks that cost nothing still have bookkeeping: a cache of this many tokens is beyond any need.
constexpr int64_t free_tokens = int64_t{1} << 23;

int64_t blocks_for(int64_t tokens, int block_size) { return (tokens + block_size - 1) / block_size; }

int64_t choose_blocks(const KvRequest& request, int64_t sequence_length) {
    if (request.wanted_blocks > 0) return request.wanted_blocks;
    int64_t useful = blocks_for(sequence_length, request.block_size) * request.max_num_seqs;
    if (request.bytes_per_block == 0) return std::min(useful, blocks_for(free_tokens, request.block_size));
    if (request.wanted_bytes > 0) return request.wanted_bytes / request.bytes_per_block;
    auto share = static_cast<int64_t>(static_cast<double>(request.available_bytes) * default_share);
    return std::min(useful, std::min(default_cap_bytes, share) / request.bytes_per_block);
}

int64_t read_number(const std::string& path) {
    std::ifstream file(path);
    int64_t number = -1;
    return file >> number ? number : -1;  // "max" reads as no number
}

}  // namespace

KvSizing size_kv_cache(const KvRequest& request) {
    if (request.wanted_max_len > request.model_max_len) {
        throw KvSizingError("--max-model-len " + std::to_string(request.wanted_max_len) + " is more than the model's " +
                            std::to_string(request.model_max_len) + " positions");
    }
    int wanted = request.wanted_max_len > 0 ? request.wanted_max_len : request.model_max_len;
    int64_t blocks = std::min(choose_blocks(request, wanted), max_blocks);
    int64_t capacity = blocks * request.block_size;
    if (request.bytes_per_block > 0 && blocks > request.memory_bytes / request.bytes_per_block) {
        throw KvSizingError("the KV cache would take " + std::to_string(blocks * request.bytes_per_block >> 20) +
                            " MiB, the machine or control group has " + std::to_string(request.memory_bytes >> 20) +
                            "; lower --kv-cache-memory or --num-gpu-blocks-override");
    }
    if (capacity < 2 || (request.wanted_max_len > 0 && capacity < request.wanted_max_len)) {
        throw KvSizingError("the KV cache holds " + std::to_string(capacity) + " tokens, too few for one sequence of " +
                            std::to_string(wanted) +
                            "; raise --kv-cache-memory or --num-gpu-blocks-override, or lower --max-model-len");
    }
    return {static_cast<int>(blocks), static_cast<int>(std::min<int64_t>(wanted, capacity))};
}

MemoryLimits memory_limits() {
    // If the system does not say: little, and no limit.
    MemoryLimits limits{.total_bytes = std::numeric_limits<int64_t>::max(), .available_bytes = int64_t{1} << 30};
    std::ifstream meminfo("/proc/meminfo");
    std::string key;
    int64_t kib = 0;
    for (std::string unit; meminfo >> key >> kib;) {
        std::getline(meminfo, unit);
        if (key == "MemTotal:") limits.total_bytes = kib << 10;
        if (key == "MemAvailable:") limits.available_bytes = kib << 10;
    }
    int64_t limit = read_number("/sys/fs/cgroup/memory.max");
    int64_t used = read_number("/sys/fs/cgroup/memory.current");
    if (limit >= 0) limits.total_bytes = std::min(limits.total_bytes, limit);
    if (limit >= 0 && used >= 0) {
        limits.available_bytes = std::min(limits.available_bytes, std::max<int64_t>(limit - used, 0));
    }
    return limits;
}

}  // namespace blas_engine
