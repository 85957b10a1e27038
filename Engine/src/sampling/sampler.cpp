#include "sampling/sampler.h"

#include <algorithm>
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

struct Candidate {
    float logit;
    int32_t id;
    float weight;  // unnormalized probability
};

bool more_likely(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// The least likely candidate that top_k keeps: the k-th, together with all that tie with it.
Candidate top_k_boundary(std::vector<Candidate>& candidates, int64_t k) {
    auto nth = candidates.begin() + (std::min<int64_t>(k, std::ssize(candidates)) - 1);
    std::nth_element(candidates.begin(), nth, candidates.end(), more_likely);
    return {nth->logit, std::numeric_limits<int32_t>::max(), 0};
}

// The least likely candidate of the shortest run of most likely ones whose probability reaches top_p. Bisects by
// selection instead of sorting, so that a flat distribution over a large vocabulary costs no more than a peaked one.
Candidate top_p_boundary(std::vector<Candidate>& candidates, double top_p) {
    double wanted = 0;
    for (const Candidate& c : candidates) wanted += c.weight;
    wanted *= top_p;

    // Everything before `low` is kept, everything from `high` on is not; usually few candidates decide.
    constexpr ptrdiff_t first_guess = 256;
    constexpr ptrdiff_t small_enough = 32;
    auto low = candidates.begin();
    auto high = candidates.end();
    double reached = 0;
    for (auto middle = low + std::min(first_guess, (high - low) / 2); high - low > small_enough;
         middle = low + (high - low) / 2) {
        std::nth_element(low, middle, high, more_likely);
        double upper = 0;
        for (auto c = low; c != middle; ++c) upper += c->weight;
        if (reached + upper >= wanted) {
            high = middle;
        } else {
            reached += upper;
            low = middle;
        }
    }
    std::sort(low, high, more_likely);
    for (auto c = low; c != high; ++c) {
        reached += c->weight;
        if (reached >= wanted) return *c;
    }
    return high == candidates.begin() ? candidates.front() : *(high - 1);
}

// Inverse of the cumulative distribution of unnormalized probabilities.
int32_t pick(std::span<const float> weights, double uniform) {
    double total = row_sum(weights);
    double target = uniform * total;
    double reached = 0;
    int32_t last_possible = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
        if (weights[i] <= 0) continue;
        last_possible = static_cast<int32_t>(i);
        reached += weights[i];
        if (reached > target) break;  // else rounding has left a sliver above the last entry
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

    // min_p is relative to the most likely token.
    float floor = params.min_p > 0 ? largest + static_cast<float>(std::log(params.min_p)) : banned;
    Candidate boundary{floor, std::numeric_limits<int32_t>::max(), 0};
    if (params.top_k > 0 || params.top_p < 1) {
        thread_local std::vector<Candidate> candidates;
        candidates.clear();
        for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); ++id) {
            if (logits[id] >= floor && weights[id] > 0) candidates.push_back({logits[id], id, weights[id]});
        }
        if (params.top_k > 0 && params.top_k < std::ssize(candidates)) {
            boundary = top_k_boundary(candidates, params.top_k);
            std::erase_if(candidates, [&](const Candidate& c) { return c.logit < boundary.logit; });
        }
        if (params.top_p < 1) boundary = top_p_boundary(candidates, params.top_p);
    }
    if (boundary.logit != banned) {
        for (size_t i = 0; i < logits.size(); ++i) {
            bool kept =
                logits[i] > boundary.logit || (logits[i] == boundary.logit && static_cast<int32_t>(i) <= boundary.id);
            if (!kept) weights[i] = 0;
        }
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
