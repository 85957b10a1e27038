// The pages of the KV cache: who uses which block, and which free blocks still hold a reusable prefix.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/block_hash.h"

namespace blas_engine {

// Reference-counted blocks 0 ... size-1. Free blocks form a list in eviction order: a block that was published keeps
// its content while it waits there, and is found again by hash until `allocate` takes it (vLLM: BlockPool).
class BlockPool {
  public:
    BlockPool(int num_blocks, bool caching);

    int size() const { return static_cast<int>(blocks_.size()); }
    int num_free() const { return num_free_; }
    double usage() const { return blocks_.empty() ? 0 : 1.0 - static_cast<double>(num_free_) / size(); }

    // Takes the block that was freed longest ago and forgets its content. Needs num_free() > 0.
    int32_t allocate();
    // One more user of a block that is cached or in use.
    void retain(int32_t block);
    // One user fewer; the last one puts the block at the end of the eviction order.
    void release(int32_t block);
    bool is_free(int32_t block) const { return blocks_[block].references == 0; }

    // The block that holds this content, if any.
    std::optional<int32_t> find(const BlockHash& hash) const;
    // Makes the content of a used block findable. A content that is already cached elsewhere stays there.
    void publish(int32_t block, const BlockHash& hash);
    // Forgets all cached content. Refused (false) while any block is in use, as in vLLM.
    bool reset_cache();

  private:
    struct Block {
        int references = 0;
        int32_t previous = -1;
        int32_t next = -1;
        bool cached = false;
        BlockHash hash;
    };
    void forget(Block& block);
    void append_free(int32_t index);
    void unlink_free(int32_t index);

    bool caching_;
    std::vector<Block> blocks_;
    std::unordered_map<BlockHash, int32_t> cached_;
    int32_t first_free_ = -1;
    int32_t last_free_ = -1;
    int num_free_ = 0;
};

}  // namespace blas_engine
