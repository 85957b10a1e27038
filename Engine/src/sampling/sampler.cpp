#include "sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "sampling/logits_processors.h"
#include "sampling/logprobs.h"
#include "sampling/random.h"

namespace blas_engine {
namespace {

constexpr float banned = -std::numeric_limits<float>::infinity();

int32_t argmax(std::span<const float> logits) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

struct Candidate {
    float logit;
    int32_t id;
};

bool more_likely(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Keeps the k most likely candidates and whatever ties with the last of them.
void cut_top_k(std::vector<Candidate>& candidates, int64_t k) {
    if (k <= 0 || static_cast<size_t>(k) >= candidates.size()) return;
    std::nth_element(candidates.begin(), candidates.begin() + (k - 1), candidates.end(), more_likely);
    float threshold = candidates[static_cast<size_t>(k) - 1].logit;
    std::erase_if(candidates, [&](const Candidate& c) { return c.logit < threshold; });
}

// Keeps the shortest run of most likely candidates whose probability reaches `top_p`, sorted from the most likely.
void cut_top_p(std::vector<Candidate>& candidates, double top_p, float largest) {
    double total = 0;
    for (const Candidate& c : candidates) total += std::exp(c.logit - largest);
    double reached = 0;
    size_t sorted = 0;
    // Sorting is done in growing pieces: usually a few candidates hold nearly all of the probability.
    for (size_t piece = 64; sorted < candidates.size(); piece *= 4) {
        size_t end = std::min(candidates.size(), sorted + piece);
        auto begin = candidates.begin() + static_cast<ptrdiff_t>(sorted);
        std::partial_sort(begin, candidates.begin() + static_cast<ptrdiff_t>(end), candidates.end(), more_likely);
        for (; sorted < end; ++sorted) {
            reached += std::exp(candidates[sorted].logit - largest);
            if (reached >= top_p * total) {
                candidates.resize(sorted + 1);
                return;
            }
        }
    }
}

// Inverse of the cumulative distribution. `weight(i)` is the unnormalized probability of entry i.
template <class Weight>
size_t pick(size_t count, double uniform, Weight weight) {
    double total = 0;
    for (size_t i = 0; i < count; ++i) total += weight(i);
    double target = uniform * total;
    double reached = 0;
    size_t last_possible = 0;
    for (size_t i = 0; i < count; ++i) {
        double w = weight(i);
        if (w <= 0) continue;
        last_possible = i;
        reached += w;
        if (reached > target) return i;
    }
    return last_possible;  // rounding left a sliver above the last entry
}

}  // namespace

int32_t choose_token(std::span<float> logits, const SamplingParams& params, double uniform) {
    if (params.greedy()) return argmax(logits);
    auto scale = static_cast<float>(1 / params.temperature);
    float largest = banned;
    for (float& logit : logits) {
        logit *= scale;
        largest = std::max(largest, logit);
    }
    if (largest == banned) return argmax(logits);

    // min_p is relative to the most likely token, which is exp(0) here.
    float floor = params.min_p > 0 ? largest + static_cast<float>(std::log(params.min_p)) : banned;
    bool cuts = params.top_k > 0 || params.top_p < 1;
    if (!cuts) {
        thread_local std::vector<float> weights;
        weights.resize(logits.size());
        for (size_t i = 0; i < logits.size(); ++i) weights[i] = logits[i] < floor ? 0 : std::exp(logits[i] - largest);
        return static_cast<int32_t>(pick(weights.size(), uniform, [&](size_t i) { return weights[i]; }));
    }

    thread_local std::vector<Candidate> candidates;
    candidates.clear();
    for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); ++id) {
        if (logits[id] >= floor && logits[id] != banned) candidates.push_back({logits[id], id});
    }
    cut_top_k(candidates, params.top_k);
    if (params.top_p < 1) {
        cut_top_p(candidates, params.top_p, largest);
    } else {
        std::sort(candidates.begin(), candidates.end(), more_likely);
    }
    size_t index = pick(candidates.size(), uniform,
                        [&](size_t i) { return std::exp(static_cast<double>(candidates[i].logit - largest)); });
    return candidates[index].id;
}

void sample_token(std::span<float> logits, Request& request) {
    request.num_nans_in_logits = 0;
    for (float& logit : logits) {
        if (std::isnan(logit)) {
            logit = banned;
            ++request.num_nans_in_logits;
        }
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
