// Identity of a KV block's content for the prefix cache.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

namespace blas_engine {

// SipHash-2-4 with 128 bits under a key that is random per process, so a client cannot construct two prompts that share
// a hash and read another client's cached context.
struct BlockHash {
    uint64_t low = 0;
    uint64_t high = 0;
    bool operator==(const BlockHash&) const = default;
};

class BlockHasher {
  public:
    BlockHasher(uint64_t key0, uint64_t key1) : key0_(key0), key1_(key1) {}
    // A hasher with a key from the system's random source.
    static BlockHasher random();

    // Hash of a block of tokens behind `parent`; the first block's parent is `root(cache_salt)`.
    BlockHash chain(const BlockHash& parent, std::span<const int32_t> tokens) const;
    BlockHash root(std::string_view cache_salt) const;
    BlockHash hash(std::span<const uint8_t> bytes) const;

  private:
    uint64_t key0_;
    uint64_t key1_;
};

}  // namespace blas_engine

template <>
struct std::hash<blas_engine::BlockHash> {
    size_t operator()(const blas_engine::BlockHash& h) const noexcept { return h.low; }
};
