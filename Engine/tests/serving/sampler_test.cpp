// The sampler against values that make_sampler_golden.py computed with numpy from vLLM's formulas.
#include "sampling/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>

#include "sampling/logits_processors.h"
#include "sampling/logprobs.h"
#include "sampling/random.h"
#include "sampling/repetition.h"
#include "sampling/row_ops.h"

namespace blas_engine {
namespace {

struct Golden {
    std::string name;
    std::vector<float> logits;
    SamplingParams params;
    std::vector<int32_t> prompt, output;
    std::vector<double> processed, probabilities, logprobs, ranks;
    std::vector<int32_t> order;
};

template <class T>
std::vector<T> read_numbers(std::istringstream& line) {
    std::vector<T> numbers;
    for (std::string text; line >> text;) numbers.push_back(static_cast<T>(std::stod(text)));  // knows inf
    return numbers;
}

std::vector<Golden> read_golden() {
    std::ifstream file(std::string(ENGINE_TEST_DATA) + "/sampler_golden.txt");
    std::vector<Golden> all;
    for (std::string text; std::getline(file, text);) {
        std::istringstream line(text);
        std::string key;
        line >> key;
        if (key.empty() || key == "#") continue;
        if (key == "case") {
            line >> all.emplace_back().name;
            continue;
        }
        Golden& golden = all.back();
        SamplingParams& p = golden.params;
        if (key == "logits") {
            golden.logits = read_numbers<float>(line);
        } else if (key == "temperature") {
            line >> p.temperature;
        } else if (key == "min_p") {
            line >> p.min_p;
        } else if (key == "top_p") {
            line >> p.top_p;
        } else if (key == "top_k") {
            line >> p.top_k;
        } else if (key == "repetition") {
            line >> p.repetition_penalty;
        } else if (key == "presence") {
            line >> p.presence_penalty;
        } else if (key == "frequency") {
            line >> p.frequency_penalty;
        } else if (key == "min_tokens") {
            line >> p.min_tokens;
        } else if (key == "stop_ids") {
            p.all_stop_token_ids = read_numbers<int32_t>(line);
        } else if (key == "allowed") {
            p.allowed_token_ids = read_numbers<int32_t>(line);
            p.has_allowed_token_ids = true;
        } else if (key == "bad_word") {
            p.bad_words.push_back(read_numbers<int32_t>(line));
        } else if (key == "bias") {
            auto& [id, bias] = p.logit_bias.emplace_back();
            line >> id >> bias;
        } else if (key == "prompt") {
            golden.prompt = read_numbers<int32_t>(line);
        } else if (key == "output") {
            golden.output = read_numbers<int32_t>(line);
        } else if (key == "processed") {
            golden.processed = read_numbers<double>(line);
        } else if (key == "probabilities") {
            golden.probabilities = read_numbers<double>(line);
        } else if (key == "logprobs") {
            golden.logprobs = read_numbers<double>(line);
        } else if (key == "ranks") {
            golden.ranks = read_numbers<double>(line);
        } else if (key == "order") {
            golden.order = read_numbers<int32_t>(line);
        } else {
            ADD_FAILURE() << "unknown key " << key;
        }
    }
    return all;
}

class SamplerGolden : public ::testing::TestWithParam<Golden> {};

TEST_P(SamplerGolden, LogitsProcessors) {
    const Golden& golden = GetParam();
    std::vector<float> logits = golden.logits;
    // Twice, so that scratch memory left dirty by the first call shows.
    for (int round = 0; round < 2; ++round) {
        logits = golden.logits;
        SamplingContext context{golden.params, golden.prompt, golden.output};
        apply_logits_processors(logits, context);
    }
    for (size_t i = 0; i < logits.size(); ++i) {
        if (std::isinf(golden.processed[i])) {
            EXPECT_EQ(logits[i], golden.processed[i]) << "token " << i;
        } else {
            EXPECT_NEAR(logits[i], golden.processed[i], 1e-5) << "token " << i;
        }
    }
}

// Walking the uniform number through [0, 1) in small steps must visit every token in proportion to its probability.
TEST_P(SamplerGolden, Distribution) {
    const Golden& golden = GetParam();
    constexpr int steps = 20000;
    std::vector<int> drawn(golden.logits.size());
    for (int step = 0; step < steps; ++step) {
        std::vector<float> logits(golden.processed.begin(), golden.processed.end());
        ++drawn[static_cast<size_t>(choose_token(logits, golden.params, (step + 0.5) / steps))];
    }
    for (size_t i = 0; i < drawn.size(); ++i) {
        if (golden.probabilities[i] == 0) {
            EXPECT_EQ(drawn[i], 0) << "token " << i;
        } else {
            EXPECT_NEAR(drawn[i] / double{steps}, golden.probabilities[i], 2e-4) << "token " << i;
        }
    }
}

TEST_P(SamplerGolden, LogprobsAndRanks) {
    const Golden& golden = GetParam();
    for (int32_t token : {0, 17, 47}) {
        LogprobRows rows;
        rows.resize(1, 6);
        fill_logprob_row(golden.logits, token, {}, rows, 0);
        EXPECT_EQ(rows.token_ids[0], token);
        EXPECT_EQ(static_cast<double>(rows.ranks[0]), golden.ranks[static_cast<size_t>(token)]);
        EXPECT_NEAR(rows.logprobs[0], golden.logprobs[static_cast<size_t>(token)], 1e-5);
        for (size_t column = 1; column < 6; ++column) {
            int32_t expected = golden.order[column - 1];
            EXPECT_EQ(rows.token_ids[column], expected);
            EXPECT_NEAR(rows.logprobs[column], golden.logprobs[static_cast<size_t>(expected)], 1e-5);
        }
    }
    LogprobRows whole;
    whole.resize(1, logprob_columns(-1, static_cast<int>(golden.logits.size())));
    fill_logprob_row(golden.logits, 3, {}, whole, 0);
    EXPECT_EQ(std::vector<int32_t>(whole.token_ids.begin() + 1, whole.token_ids.end()), golden.order);
    const int32_t chosen[] = {5, 40, 5};
    LogprobRows picked;
    picked.resize(1, 4);
    fill_logprob_row(golden.logits, 3, chosen, picked, 0);
    EXPECT_EQ(picked.token_ids, (std::vector<int32_t>{3, 5, 40, 5}));
    EXPECT_NEAR(picked.logprobs[2], golden.logprobs[40], 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Numpy, SamplerGolden, ::testing::ValuesIn(read_golden()), [](const auto& info) {
    std::string name = info.param.name;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
});

TEST(Sampler, TiedTokensShareTheWorstRankAndTheLowestIdWins) {
    const std::vector<float> logits = {1, 3, 2, 3, 2};
    LogprobRows rows;
    rows.resize(1, 5);
    fill_logprob_row(logits, 2, {}, rows, 0);
    EXPECT_EQ(rows.ranks[0], 4);
    EXPECT_EQ(rows.token_ids, (std::vector<int32_t>{2, 1, 3, 2, 4}));
    SamplingParams greedy;
    greedy.temperature = 0;
    std::vector<float> scratch = logits;
    EXPECT_EQ(choose_token(scratch, greedy, 0), 1);
}

TEST(Sampler, LargeNucleusIsCutAtTheSamePlaceAsAFullSort) {
    std::vector<float> logits(5000);
    for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(random_uniform(1, i));
    SamplingParams params;
    params.top_p = 0.9;
    std::vector<double> weights;
    for (float logit : logits) weights.push_back(std::exp(logit));
    std::sort(weights.rbegin(), weights.rend());
    double total = 0, reached = 0;
    for (double w : weights) total += w;
    size_t kept = 0;
    while (reached < 0.9 * total) reached += weights[kept++];
    float smallest = 2;
    for (int step = 0; step < 2000; ++step) {
        std::vector<float> scratch = logits;
        auto token = static_cast<size_t>(choose_token(scratch, params, (step + 0.5) / 2000));
        smallest = std::min(smallest, logits[token]);
    }
    EXPECT_GE(std::exp(smallest), weights[kept - 1] * 0.999999);
    EXPECT_LT(std::exp(smallest), weights[kept - 1] * 1.01);
}

Request sampling_request() {
    Request request;
    request.tokens = {1, 2, 3};
    request.prompt_length = 3;
    request.random_key = 99;
    return request;
}

TEST(Sampler, DependsOnKeyAndPositionOnly) {
    const std::vector<float> logits(1000, 0.0F);
    auto draw = [&](uint64_t key, int outputs) {
        Request request = sampling_request();
        request.random_key = key;
        request.tokens.resize(static_cast<size_t>(3 + outputs), 5);
        std::vector<float> scratch = logits;
        sample_token(scratch, request);
        return request.new_tokens.at(0);
    };
    EXPECT_EQ(draw(7, 0), draw(7, 0));
    std::set<int32_t> by_position, by_key;
    for (int i = 0; i < 50; ++i) {
        by_position.insert(draw(7, i));
        by_key.insert(draw(static_cast<uint64_t>(i), 0));
    }
    EXPECT_GT(by_position.size(), 40u);
    EXPECT_GT(by_key.size(), 40u);
}

TEST(Sampler, LogprobsAreOfTheRawLogits) {
    Request request = sampling_request();
    request.params.temperature = 0;
    request.params.logprobs = 1;
    request.params.logit_bias = {{2, 100.0F}};
    std::vector<float> logits = {0, 1, 0, 0};
    sample_token(logits, request);
    EXPECT_EQ(request.new_tokens, (std::vector<int32_t>{2}));
    EXPECT_EQ(request.new_logprobs.token_ids, (std::vector<int32_t>{2, 1}));
    double normalizer = std::log(3 + std::exp(1.0));
    EXPECT_NEAR(request.new_logprobs.logprobs[0], -normalizer, 1e-6);
    EXPECT_EQ(request.new_logprobs.ranks[0], 4);
}

TEST(Sampler, SurvivesLogitsThatAreNotNumbers) {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    for (double temperature : {0.0, 1.0}) {
        Request request = sampling_request();
        request.params.temperature = temperature;
        std::vector<float> some = {nan, 1, nan, 0};
        sample_token(some, request);
        EXPECT_EQ(request.num_nans_in_logits, 2);
        EXPECT_TRUE(request.new_tokens[0] == 1 || request.new_tokens[0] == 3);
        request.new_tokens.clear();
        std::vector<float> all = {nan, nan};
        sample_token(all, request);
        EXPECT_EQ(request.new_tokens.at(0), 0);
        request.new_tokens.clear();
        std::vector<float> infinite = {std::numeric_limits<float>::infinity(), 1};
        sample_token(infinite, request);
        EXPECT_EQ(request.new_tokens.size(), 1u);
    }
}

TEST(Sampler, StaysInsideAllowedIdsWhenAllAreMasked) {
    Request request = sampling_request();
    request.params.has_allowed_token_ids = true;
    request.params.allowed_token_ids = {3};
    request.params.min_tokens = 2;
    request.params.all_stop_token_ids = {3};
    std::vector<float> logits = {5, 4, 3, 2};
    sample_token(logits, request);
    EXPECT_EQ(request.new_tokens, (std::vector<int32_t>{3}));
}

TEST(RowOps, ExpIsAccurateAndUnderflowsToZero) {
    std::vector<float> row;
    for (int i = 0; i <= 87000; ++i) row.push_back(static_cast<float>(-i) * 1e-3F);
    std::vector<float> out(row.size());
    exp_below(row, 0, out);
    for (size_t i = 0; i < row.size(); ++i) {
        double exact = std::exp(static_cast<double>(row[i]));
        ASSERT_NEAR(out[i] / exact, 1, 3e-7) << row[i];
    }
    EXPECT_EQ(out[0], 1);
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const std::vector<float> extremes = {-infinity, -1e30F, -100, 0};
    std::vector<float> results(extremes.size());
    exp_below(extremes, 0, results);
    EXPECT_EQ(results, (std::vector<float>{0, 0, 0, 1}));
}

TEST(RowOps, MaximumAndSumCoverEveryEntry) {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    for (size_t size : {1u, 15u, 16u, 17u, 100u}) {
        for (size_t at = 0; at < size; ++at) {
            std::vector<float> row(size, -5);
            row[at] = -1;
            EXPECT_EQ(row_max(row), -1);
            EXPECT_EQ(row_argmax(row), static_cast<int32_t>(at));
            EXPECT_EQ(row_sum(row), -5.0 * static_cast<double>(size) + 4);
            EXPECT_EQ(count_nans(row), 0);
            row[at] = nan;
            EXPECT_EQ(count_nans(row), 1);
            if (size > 1) {
                EXPECT_EQ(row_max(row), -5);
            }
        }
    }
    EXPECT_EQ(row_argmax(std::vector<float>{nan, nan}), 0);
}

TEST(Repetition, FindsPatternsOfEveryAllowedSize) {
    auto ends = [](std::vector<int32_t> output, RepetitionDetection detection) {
        return ends_in_repetition(output, detection);
    };
    EXPECT_TRUE(ends({1, 2, 2, 2}, {2, 0, 3}));   // no smallest pattern: one token
    EXPECT_FALSE(ends({1, 2, 2, 2}, {0, 0, 3}));  // off
    EXPECT_TRUE(ends({9, 4, 4, 4}, {4, 1, 3}));
    EXPECT_FALSE(ends({4, 4}, {4, 1, 3}));
    EXPECT_FALSE(ends({4, 4, 4, 9}, {4, 1, 3}));
    EXPECT_TRUE(ends({1, 2, 3, 1, 2, 3}, {3, 2, 2}));
    EXPECT_FALSE(ends({1, 2, 3, 1, 2, 3}, {2, 1, 2}));
    EXPECT_FALSE(ends({7, 7, 7}, {4, 2, 2}));
    EXPECT_TRUE(ends({7, 7, 7, 7}, {4, 2, 2}));
    EXPECT_FALSE(ends({1, 1, 1}, {}));
    EXPECT_FALSE(ends({1, 1, 1}, {INT64_MAX, 1, INT64_MAX}));
}

}  // namespace
}  // namespace blas_engine
