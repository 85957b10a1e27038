// Shares a step's attention out over the threads.
#pragma once

#include <vector>

#include "kernels/buffer.h"
#include "kernels/kernels.h"
#include "kernels/thread_pool.h"
#include "model/kv_cache.h"

namespace blas_engine {

// Consecutive query tokens of one sequence.
struct QuerySpan {
    const int32_t* block_table = nullptr;
    int position = 0;  // of the first one
    int count = 0;
    int row = 0;      // its row in the queries
    int out_row = 0;  // its row in the output
};

// Queries: [row][head] of Attention::query_bytes() each, activations filled up with zeros to the cache's padded head
// size. Output: rows of `ld_out` elements, head after head.
struct AttentionInput {
    int layer = 0;
    int window = 0;
    const void* queries = nullptr;
    void* out = nullptr;
    size_t ld_out = 0;
};

// A work item is up to 12 query rows (tokens times the query heads of one KV head) of a span. If there are too few
// items to keep the threads busy, a long context is cut into the fixed shares of kv split_tokens, which are merged by
// log-sum-exp afterwards; the shares are merged in the same order either way, so the result is the same to the bit.
class Attention {
  public:
    // `results`: precision of the output, which is stored as activations of products with weights like the cache.
    Attention(ThreadPool& pool, const Kernels& kernels, const KvCache& cache, int heads, int kv_heads, int head_dim,
              Storage results);

    size_t query_bytes() const;  // of one head of one row
    void run(const std::vector<QuerySpan>& spans, const AttentionInput& input);

  private:
    struct Item {
        const QuerySpan* span;
        int head;        // KV head
        int first, end;  // rows of the span: token * heads per KV head + query head
        int kv_begin, kv_end;
    };
    struct Share {
        size_t item;
        int split;
        size_t partial;  // index of its result
    };
    struct Partial {
        float *out, *maximum, *sum;
    };

    void plan(const std::vector<QuerySpan>& spans, int window);
    void load_queries(const Item& item, const AttentionInput& input, void* queries, int* positions) const;
    void compute(const Item& item, int split, const AttentionInput& input, const void* queries, const int* positions,
                 const Partial& out) const;
    void store(const Item& item, const AttentionInput& input, const Partial& total) const;
    void run_item(const Item& item, const AttentionInput& input, int thread);
    void run_shares(const AttentionInput& input);
    size_t partial_floats() const;
    Partial partial_at(float* base, size_t index) const;

    ThreadPool& pool_;
    const Kernels& kernels_;
    const KvCache& cache_;
    int heads_, kv_heads_, head_dim_, padded_dim_;
    Storage activations_;
    std::vector<Item> items_;
    std::vector<Share> shares_;
    Buffer scratch_;   // per thread: queries, positions, one partial, one total
    Buffer partials_;  // of all shares
};

}  // namespace blas_engine
