#include "core/block_pool.h"

#include <cassert>

namespace blas_engine {

BlockPool::BlockPool(int num_blocks, bool caching) : caching_(caching), blocks_(num_blocks) {
    if (caching) cached_.reserve(num_blocks);
    for (int32_t i = 0; i < num_blocks; ++i) append_free(i);
}

void BlockPool::append_free(int32_t index) {
    Block& block = blocks_[index];
    block.previous = last_free_;
    block.next = -1;
    (last_free_ >= 0 ? blocks_[last_free_].next : first_free_) = index;
    last_free_ = index;
    ++num_free_;
}

void BlockPool::unlink_free(int32_t index) {
    Block& block = blocks_[index];
    (block.previous >= 0 ? blocks_[block.previous].next : first_free_) = block.next;
    (block.next >= 0 ? blocks_[block.next].previous : last_free_) = block.previous;
    block.previous = block.next = -1;
    --num_free_;
}

void BlockPool::forget(Block& block) {
    if (!block.cached) return;
    cached_.erase(block.hash);
    block.cached = false;
}

int32_t BlockPool::allocate() {
    assert(num_free_ > 0);
    int32_t index = first_free_;
    unlink_free(index);
    Block& block = blocks_[index];
    forget(block);
    block.references = 1;
    return index;
}

void BlockPool::retain(int32_t index) {
    Block& block = blocks_[index];
    if (block.references == 0) unlink_free(index);
    ++block.references;
}

void BlockPool::release(int32_t index) {
    Block& block = blocks_[index];
    assert(block.references > 0);
    if (--block.references == 0) append_free(index);
}

std::optional<int32_t> BlockPool::find(const BlockHash& hash) const {
    auto found = cached_.find(hash);
    if (found == cached_.end()) return std::nullopt;
    return found->second;
}

void BlockPool::publish(int32_t index, const BlockHash& hash) {
    if (!caching_) return;
    Block& block = blocks_[index];
    assert(block.references > 0);
    if (block.cached || !cached_.try_emplace(hash, index).second) return;
    block.cached = true;
    block.hash = hash;
}

bool BlockPool::reset_cache() {
    if (num_free_ != size()) return false;
    for (Block& block : blocks_) block.cached = false;
    cached_.clear();
    return true;
}

}  // namespace blas_engine
