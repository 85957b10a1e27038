// The paged key/value cache of all layers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/buffer.h"
#include "kernels/kernels.h"

namespace blas_engine {

// Memory is [layer][block][KV head][keys, values]: what one head of one block needs is contiguous, in the tile layout
// that AttentionTile describes. head_dim is padded to a multiple of 16 with zeros.
class KvCache {
  public:
    KvCache(int layers, int kv_heads, int head_dim, int block_tokens, Storage storage);

    size_t bytes_per_block() const { return static_cast<size_t>(layers_) * block_stride(); }
    void allocate(int blocks);  // throws std::bad_alloc
    void release();
    int blocks() const { return blocks_; }
    bool allocated() const { return buffer_.size() > 0; }
    int block_tokens() const { return block_tokens_; }
    int padded_head_dim() const { return padded_dim_; }
    Storage storage() const { return storage_; }

    // A layer's and head's part of block 0; the same part of block i lies i * block_stride() further.
    std::byte* base(int layer, int head) const {
        return buffer_.as() + static_cast<size_t>(layer) * layer_stride() + static_cast<size_t>(head) * head_bytes();
    }
    size_t block_stride() const { return static_cast<size_t>(kv_heads_) * head_bytes(); }

    // Stores one token's key and value (head_dim floats each). The first token of a tile clears the tile: what a former
    // owner of the block left there could be NaN, and zero weight times NaN is NaN.
    void write(int layer, int head, int32_t block, int slot, const float* key, const float* value);

  private:
    size_t head_bytes() const {
        return 2 * static_cast<size_t>(block_tokens_) * static_cast<size_t>(padded_dim_) * storage_bytes(storage_);
    }
    size_t layer_stride() const { return static_cast<size_t>(blocks_) * block_stride(); }

    int layers_, kv_heads_, head_dim_, padded_dim_, block_tokens_;
    Storage storage_;
    int blocks_ = 0;
    Buffer buffer_;
};

}  // namespace blas_engine
