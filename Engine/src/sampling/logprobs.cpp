#include "sampling/logprobs.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "sampling/row_ops.h"

namespace blas_engine {

int logprob_columns(int64_t requested, int vocab_size) {
    if (requested < 0 || requested > vocab_size) requested = vocab_size;
    return static_cast<int>(requested) + 1;
}

void fill_logprob_row(std::span<const float> logits, int32_t token, std::span<const int32_t> ids, LogprobRows& rows,
                      int row) {
    thread_local std::vector<float> weights;
    weights.resize(logits.size());
    float largest = row_max(logits);
    exp_below(logits, largest, weights);
    auto normalizer = static_cast<float>(largest + std::log(row_sum(weights)));

    float chosen = logits[token];
    int32_t rank = 0;
    for (float logit : logits) rank += logit >= chosen ? 1 : 0;
    rows.ranks[row] = rank;

    size_t start = static_cast<size_t>(row) * rows.columns;
    auto set = [&](size_t column, int32_t id) {
        rows.token_ids[start + column] = id;
        rows.logprobs[start + column] = logits[id] - normalizer;
    };
    set(0, token);
    size_t alternatives = static_cast<size_t>(rows.columns) - 1;
    if (!ids.empty()) {
        for (size_t i = 0; i < alternatives; ++i) set(i + 1, ids[i]);
        return;
    }
    if (alternatives == 0) return;

    auto more_likely = [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
    thread_local std::vector<int32_t> order;
    // A heap of the best `alternatives` ids seen so far, least likely on top: most ids fail one comparison.
    order.clear();
    for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); ++id) {
        if (order.size() < alternatives) {
            order.push_back(id);
            if (order.size() == alternatives) std::make_heap(order.begin(), order.end(), more_likely);
        } else if (more_likely(id, order.front())) {
            std::pop_heap(order.begin(), order.end(), more_likely);
            order.back() = id;
            std::push_heap(order.begin(), order.end(), more_likely);
        }
    }
    std::sort_heap(order.begin(), order.end(), more_likely);
    for (size_t i = 0; i < alternatives; ++i) set(i + 1, order[i]);
}

}  // namespace blas_engine
