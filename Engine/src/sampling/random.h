// Counter-based random numbers: the value depends only on (key, counter), so a seeded request draws the same numbers
// whatever else is in the batch and however often it was preempted.
#pragma once

#include <cstdint>

namespace blas_engine {

// Finalizer of SplitMix64: a bijection that spreads every input bit over the whole word.
constexpr uint64_t mix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

constexpr uint64_t random_bits(uint64_t key, uint64_t counter) { return mix64(mix64(key) ^ mix64(~counter)); }

// Uniform in [0, 1) with 53 bits.
constexpr double random_uniform(uint64_t key, uint64_t counter) {
    return static_cast<double>(random_bits(key, counter) >> 11) * 0x1p-53;
}

}  // namespace blas_engine
