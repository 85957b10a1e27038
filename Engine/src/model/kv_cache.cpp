#include "model/kv_cache.h"

#include <cstring>

#include "kernels/bfloat16.h"

namespace blas_engine {

KvCache::KvCache(int layers, int kv_heads, int head_dim, int block_tokens, Storage storage)
    : layers_(layers),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      padded_dim_((head_dim + 15) / 16 * 16),
      block_tokens_(block_tokens),
      storage_(storage) {}

void KvCache::allocate(int blocks) {
    buffer_.reset();
    blocks_ = blocks;
    buffer_ = Buffer(bytes_per_block() * static_cast<size_t>(blocks));
}

void KvCache::release() { buffer_.reset(); }

void KvCache::write(int layer, int head, int32_t block, int slot, const float* key, const float* value) {
    const auto dim = static_cast<size_t>(padded_dim_), used = static_cast<size_t>(head_dim_);
    const auto lane = static_cast<size_t>(slot % kv_tile_tokens);
    const size_t tile = static_cast<size_t>(slot / kv_tile_tokens) * kv_tile_tokens * dim;
    const size_t values_at = static_cast<size_t>(block_tokens_) * dim + tile;
    std::byte* base = this->base(layer, head) + static_cast<size_t>(block) * block_stride();
    const size_t element = storage_bytes(storage_);
    if (lane == 0) {
        std::memset(base + tile * element, 0, kv_tile_tokens * dim * element);
        std::memset(base + values_at * element, 0, kv_tile_tokens * dim * element);
    }
    if (storage_ == Storage::f32) {
        float* keys = reinterpret_cast<float*>(base) + tile + lane;
        for (size_t d = 0; d < used; ++d) keys[d * kv_tile_tokens] = key[d];
        std::memcpy(reinterpret_cast<float*>(base) + values_at + lane * dim, value, used * sizeof(float));
        return;
    }
    auto* keys = reinterpret_cast<uint16_t*>(base) + tile + 2 * lane;
    for (size_t d = 0; d < used; ++d) keys[d / 2 * (2 * kv_tile_tokens) + d % 2] = float_to_bf16(key[d]);
    auto* values = reinterpret_cast<uint16_t*>(base) + values_at + lane / 2 * (2 * dim) + lane % 2;
    for (size_t d = 0; d < used; ++d) values[2 * d] = float_to_bf16(value[d]);
}

}  // namespace blas_engine
