#include "model/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace blas_engine {

namespace {

constexpr auto tile_rows = static_cast<size_t>(max_tile_rows);
constexpr int items_per_thread = 3;  // below this, long contexts are shared out

}  // namespace

Attention::Attention(ThreadPool& pool, const Kernels& kernels, const KvCache& cache, int heads, int kv_heads,
                     int head_dim, Storage results)
    : pool_(pool),
      kernels_(kernels),
      cache_(cache),
      heads_(heads),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      padded_dim_(cache.padded_head_dim()),
      activations_(cache.storage() == Storage::bf16 && kernels.bf16_activations == Storage::bf16 ? Storage::bf16
                                                                                                 : results) {
    scratch_ = Buffer(static_cast<size_t>(pool.threads()) * 4 * partial_floats() * sizeof(float));
}

size_t Attention::query_bytes() const { return static_cast<size_t>(padded_dim_) * storage_bytes(activations_); }

// One result: the rows' weighted sums, maxima and sums; a multiple of 64 bytes.
size_t Attention::partial_floats() const { return tile_rows * static_cast<size_t>(padded_dim_) + 32; }

Attention::Partial Attention::partial_at(float* base, size_t index) const {
    float* out = base + index * partial_floats();
    float* maximum = out + tile_rows * static_cast<size_t>(padded_dim_);
    return {out, maximum, maximum + tile_rows};
}

void Attention::plan(const std::vector<QuerySpan>& spans, int window) {
    items_.clear();
    shares_.clear();
    const int group = heads_ / kv_heads_;
    int splits = 0;
    for (const QuerySpan& span : spans) {
        const int rows = span.count * group;
        const int tiles = (rows + max_tile_rows - 1) / max_tile_rows;
        for (int tile = 0; tile < tiles; ++tile) {
            Item item{&span, 0, 0, 0, 0, 0};
            item.first = static_cast<int>(static_cast<int64_t>(rows) * tile / tiles);
            item.end = static_cast<int>(static_cast<int64_t>(rows) * (tile + 1) / tiles);
            const int lowest = span.position + item.first / group;
            item.kv_begin = window > 0 ? std::max(0, lowest - window + 1) / softmax_tokens * softmax_tokens : 0;
            item.kv_end = span.position + (item.end - 1) / group + 1;
            splits = std::max(splits, (item.kv_end - 1) / split_tokens - item.kv_begin / split_tokens + 1);
            for (item.head = 0; item.head < kv_heads_; ++item.head) items_.push_back(item);
        }
    }
    const size_t enough = static_cast<size_t>(pool_.threads() * items_per_thread);
    if (pool_.threads() == 1 || splits < 2 || items_.size() >= enough) return;
    for (size_t i = 0; i < items_.size(); ++i) {
        for (int split = items_[i].kv_begin / split_tokens; split * split_tokens < items_[i].kv_end; ++split) {
            shares_.push_back({i, split, shares_.size()});
        }
    }
}

void Attention::load_queries(const Item& item, const AttentionInput& input, void* queries, int* positions) const {
    const int group = heads_ / kv_heads_;
    const size_t bytes = query_bytes();
    auto* out = static_cast<std::byte*>(queries);
    for (int row = item.first; row < item.end; ++row, out += bytes) {
        const int token = row / group, head = item.head * group + row % group;
        const auto at =
            static_cast<size_t>(item.span->row + token) * static_cast<size_t>(heads_) + static_cast<size_t>(head);
        std::memcpy(out, static_cast<const std::byte*>(input.queries) + at * bytes, bytes);
        positions[row - item.first] = item.span->position + token;
    }
}

void Attention::compute(const Item& item, int split, const AttentionInput& input, const void* queries,
                        const int* positions, const Partial& out) const {
    AttentionTile tile;
    tile.queries = queries;
    tile.positions = positions;
    tile.rows = item.end - item.first;
    tile.head_dim = padded_dim_;
    tile.storage = cache_.storage();
    tile.scale = 1.0f / std::sqrt(static_cast<float>(head_dim_));
    tile.window = input.window;
    tile.cache = cache_.base(input.layer, item.head);
    tile.block_stride = cache_.block_stride();
    tile.block_table = item.span->block_table;
    tile.block_tokens = cache_.block_tokens();
    tile.begin = std::max(item.kv_begin, split * split_tokens);
    tile.end = std::min(item.kv_end, (split + 1) * split_tokens);
    tile.out = out.out;
    tile.maximum = out.maximum;
    tile.sum = out.sum;
    kernels_.attend(tile);
}

void Attention::store(const Item& item, const AttentionInput& input, const Partial& total) const {
    const int group = heads_ / kv_heads_;
    const size_t element = storage_bytes(activations_);
    for (int row = item.first; row < item.end; ++row) {
        const int i = row - item.first;
        const auto out_row = static_cast<size_t>(item.span->out_row + row / group);
        const auto column = static_cast<size_t>((item.head * group + row % group) * head_dim_);
        kernels_.scale(total.out + static_cast<size_t>(i) * static_cast<size_t>(padded_dim_), 1.0f / total.sum[i],
                       head_dim_, static_cast<std::byte*>(input.out) + (out_row * input.ld_out + column) * element,
                       activations_);
    }
}

void Attention::run_item(const Item& item, const AttentionInput& input, int thread) {
    float* own = scratch_.as<float>() + static_cast<size_t>(thread) * 4 * partial_floats();
    int* positions = reinterpret_cast<int*>(own);
    void* queries = own + 32;
    const Partial total = partial_at(own, 2), part = partial_at(own, 3);
    load_queries(item, input, queries, positions);
    const int rows = item.end - item.first;
    const int first = item.kv_begin / split_tokens;
    compute(item, first, input, queries, positions, total);
    for (int split = first + 1; split * split_tokens < item.kv_end; ++split) {
        compute(item, split, input, queries, positions, part);
        kernels_.merge(total.out, total.maximum, total.sum, part.out, part.maximum, part.sum, rows, padded_dim_);
    }
    store(item, input, total);
}

void Attention::run_shares(const AttentionInput& input) {
    partials_.reserve(shares_.size() * partial_floats() * sizeof(float));
    float* partials = partials_.as<float>();
    pool_.run(static_cast<int>(shares_.size()), [&](int chunk, int thread) {
        const Share& share = shares_[static_cast<size_t>(chunk)];
        const Item& item = items_[share.item];
        float* own = scratch_.as<float>() + static_cast<size_t>(thread) * 4 * partial_floats();
        int* positions = reinterpret_cast<int*>(own);
        load_queries(item, input, own + 32, positions);
        compute(item, share.split, input, own + 32, positions, partial_at(partials, share.partial));
    });
    for (size_t i = 0; i < shares_.size();) {
        const Item& item = items_[shares_[i].item];
        const Partial total = partial_at(partials, i);
        size_t next = i + 1;
        for (; next < shares_.size() && shares_[next].item == shares_[i].item; ++next) {
            const Partial part = partial_at(partials, next);
            kernels_.merge(total.out, total.maximum, total.sum, part.out, part.maximum, part.sum, item.end - item.first,
                           padded_dim_);
        }
        store(item, input, total);
        i = next;
    }
}

void Attention::run(const std::vector<QuerySpan>& spans, const AttentionInput& input) {
    plan(spans, input.window);
    if (!shares_.empty()) return run_shares(input);
    pool_.run(static_cast<int>(items_.size()),
              [&](int chunk, int thread) { run_item(items_[static_cast<size_t>(chunk)], input, thread); });
}

}  // namespace blas_engine
