#include "sampling/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "sampling/logits_processors.h"
#include "sampling/logprobs.h"
#include "sampling/random.h"
#include "sampling/row_ops.h"

namespace blas_engine {
namespace {

constexpr float banned = -std::numeric_limits<float>::infinity();

// The least likely entry that a cut keeps: heavier entries stay, equally heavy ones up to this id.
struct Boundary {
    float weight;
    int32_t id;
};

// Walks the entries from the heaviest to the first one for which `enough(count, sum)` holds, both counted up to and
// including it. Some entry must satisfy it. Sorting would do; but bisecting the weight with passes that vectorize,
// until few entries are left to sort, costs the same for flat and peaked distributions and far less for large
// vocabularies.
template <class Enough>
Boundary find_boundary(std::span<const float> weights, Enough enough) {
    // Non-negative floats are ordered like their bits. Entries of `low` and more are enough, those of `high` are not.
    uint32_t low = 1;
    uint32_t high = std::bit_cast<uint32_t>(1.0F) + 1;  // above the largest weight
    HeavyEntries at_low = entries_from(weights, std::bit_cast<float>(low));
    HeavyEntries at_high;
    // The entries that are still open, and what stands above all of them.
    std::span<const float> open = weights;
    HeavyEntries above_open;
    thread_local std::vector<float> narrowed;
    constexpr int64_t few = 64;
    while (at_low.count - at_high.count > few && high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        HeavyEntries at_middle = entries_from(open, std::bit_cast<float>(middle));
        at_middle.count += above_open.count;
        at_middle.sum += above_open.sum;
        if (enough(at_middle.count, at_middle.sum)) {
            low = middle;
            at_low = at_middle;
        } else {
            high = middle;
            at_high = at_middle;
        }
        if (4 * (at_low.count - at_high.count) < std::ssize(open)) {
            narrowed.resize(std::max(narrowed.size(), open.size()));
            size_t kept = 0;
            for (float weight : open) {
                narrowed[kept] = weight;  // in place once `open` is `narrowed`; overwritten if it does not belong
                uint32_t bits = std::bit_cast<uint32_t>(weight);
                kept += bits >= low && bits < high ? 1 : 0;
            }
            open = std::span(narrowed).first(kept);
            above_open = at_high;
        }
    }
    thread_local std::vector<int32_t> deciding;
    deciding.clear();
    for (int32_t id = 0; id < std::ssize(weights); ++id) {
        uint32_t bits = std::bit_cast<uint32_t>(weights[id]);
        if (bits >= low && bits < high) deciding.push_back(id);
    }
    std::sort(deciding.begin(), deciding.end(),
              [&](int32_t a, int32_t b) { return weights[a] != weights[b] ? weights[a] > weights[b] : a < b; });
    HeavyEntries reached = at_high;
    for (int32_t id : deciding) {
        reached.count += 1;
        reached.sum += weights[id];
        if (enough(reached.count, reached.sum)) return {weights[id], id};
    }
    // Rounding: the parts add up to a little less than the whole.
    return {std::bit_cast<float>(low), std::numeric_limits<int32_t>::max()};
}

void drop_below(std::span<float> weights, Boundary boundary) {
    for (size_t i = 0; i < weights.size(); ++i) {
        bool heavier = weights[i] > boundary.weight;
        bool equal = weights[i] == boundary.weight;
        bool kept = heavier | (equal & (static_cast<int32_t>(i) <= boundary.id));
        weights[i] = kept ? weights[i] : 0;
    }
}

// Inverse of the cumulative distribution of unnormalized probabilities.
int32_t pick(std::span<const float> weights, double uniform) {
    constexpr size_t block = 1024;
    auto block_at = [&](size_t start) { return weights.subspan(start, std::min(block, weights.size() - start)); };
    double total = 0;
    for (size_t start = 0; start < weights.size(); start += block) total += row_sum(block_at(start));
    double target = uniform * total;

    // Whole blocks first: one entry after the other would be a chain of additions as long as the vocabulary.
    size_t start = 0;
    size_t last_block = 0;
    double reached = 0;
    for (; start < weights.size(); start += block) {
        double sum = row_sum(block_at(start));
        if (sum > 0) last_block = start;
        if (reached + sum > target) break;
        reached += sum;
    }
    if (start >= weights.size()) start = last_block;  // rounding has left a sliver above the last entry
    auto last_possible = static_cast<int32_t>(start);
    for (float weight : block_at(start)) {
        if (weight > 0) {
            last_possible = static_cast<int32_t>(start);
            reached += weight;
            if (reached > target) break;
        }
        ++start;
    }
    return last_possible;
}

}  // namespace

int32_t choose_token(std::span<float> logits, const SamplingParams& params, double uniform) {
    if (params.greedy()) return row_argmax(logits);
    auto scale = static_cast<float>(1 / params.temperature);
    for (float& logit : logits) logit *= scale;
    float largest = row_max(logits);
    if (std::isinf(largest)) return row_argmax(logits);  // everything is banned, or the model has overflowed

    thread_local std::vector<float> weights;
    weights.resize(logits.size());
    exp_below(logits, largest, weights);

    constexpr int32_t all_that_tie = std::numeric_limits<int32_t>::max();
    // Weights are relative to the most likely token, and so is min_p.
    if (params.min_p > 0) drop_below(weights, {static_cast<float>(params.min_p), all_that_tie});
    if (params.top_k > 0 && params.top_k < std::ssize(weights)) {
        Boundary boundary = find_boundary(weights, [&](int64_t count, double) { return count >= params.top_k; });
        drop_below(weights, {boundary.weight, all_that_tie});
    }
    if (params.top_p < 1) {
        double wanted = params.top_p * row_sum(weights);
        drop_below(weights, find_boundary(weights, [&](int64_t, double sum) { return sum >= wanted; }));
    }
    return pick(weights, uniform);
}

void sample_token(std::span<float> logits, Request& request) {
    request.num_nans_in_logits = count_nans(logits);
    if (request.num_nans_in_logits > 0) {
        std::replace_if(
            logits.begin(), logits.end(), [](float logit) { return std::isnan(logit); }, banned);
    }
    const SamplingParams& params = request.params;
    thread_local std::vector<float> raw;
    if (params.wants_logprobs()) raw.assign(logits.begin(), logits.end());

    SamplingContext context{params, request.prompt(), request.output()};
    if (has_logits_processors(context)) apply_logits_processors(logits, context);
    double uniform =
        params.greedy() ? 0 : random_uniform(request.random_key, static_cast<uint64_t>(request.num_output_tokens()));
    int32_t token = choose_token(logits, params, uniform);
    if (logits[token] == banned && params.has_allowed_token_ids) {
        // Every token is banned (for example only EOS is allowed and min_tokens bans it): stay inside the allowed set.
        token = params.allowed_token_ids.front();
    }
    request.new_tokens.push_back(token);

    if (params.wants_logprobs()) {
        int columns = params.has_logprob_token_ids ? static_cast<int>(params.logprob_token_ids.size()) + 1
                                                   : logprob_columns(*params.logprobs, static_cast<int>(raw.size()));
        request.new_logprobs.resize(1, columns);
        fill_logprob_row(raw, token, params.logprob_token_ids, request.new_logprobs, 0);
    }
}

}  // namespace blas_engine
