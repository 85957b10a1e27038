#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "core/request_validation.h"

namespace blas_engine {
namespace {

constexpr SamplingLimits limits{100, 32};

Request valid_request() {
    Request request;
    request.id = "r";
    request.tokens = {1, 2, 3};
    request.prompt_length = 3;
    return request;
}

std::string error_of(const std::function<void(Request&)>& change) {
    Request request = valid_request();
    change(request);
    return validate_request(request, limits).value_or("");
}

TEST(Validation, AcceptsDefaults) {
    EXPECT_EQ(error_of([](Request&) {}), "");
}

TEST(Validation, RefusesPromptsThatCannotRun) {
    EXPECT_EQ(error_of([](Request& r) {
                  r.tokens.clear();
                  r.prompt_length = 0;
              }),
              "The prompt is empty.");
    EXPECT_NE(error_of([](Request& r) { r.tokens[1] = 100; }), "");
    EXPECT_NE(error_of([](Request& r) { r.tokens[1] = -1; }), "");
    EXPECT_EQ(error_of([](Request& r) {
                  r.tokens.assign(31, 1);
                  r.prompt_length = 31;
              }),
              "");
    EXPECT_NE(error_of([](Request& r) {
                  r.tokens.assign(32, 1);
                  r.prompt_length = 32;
              }),
              "");
}

// The bounds that vLLM enforces while decoding SamplingParams.
TEST(Validation, EnforcesTheBoundsOfSamplingParams) {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    const std::vector<std::function<void(SamplingParams&)>> bad = {
        [](auto& p) { p.temperature = -0.1; },
        [](auto& p) { p.temperature = 2.1; },
        [](auto& p) { p.temperature = nan; },
        [](auto& p) { p.top_p = 0; },
        [](auto& p) { p.top_p = 1.01; },
        [](auto& p) { p.top_p = nan; },
        [](auto& p) { p.top_k = -2; },
        [](auto& p) { p.min_p = 1.5; },
        [](auto& p) { p.presence_penalty = 2.5; },
        [](auto& p) { p.frequency_penalty = -2.5; },
        [](auto& p) { p.repetition_penalty = 0; },
        [](auto& p) { p.repetition_penalty = std::numeric_limits<double>::infinity(); },
        [](auto& p) { p.max_tokens = 0; },
        [](auto& p) { p.min_tokens = -1; },
        [](auto& p) { p.min_tokens = 17; },
        [](auto& p) { p.logprobs = -2; },
        [](auto& p) { p.prompt_logprobs = -2; },
        [](auto& p) { p.has_allowed_token_ids = true; },
        [](auto& p) {
            p.has_allowed_token_ids = true;
            p.allowed_token_ids = {100};
        },
        [](auto& p) {
            p.logit_bias = {{100, 1}};
        },
        [](auto& p) {
            p.logit_bias = {{1, std::numeric_limits<float>::infinity()}};
        },
        [](auto& p) { p.bad_words = {{}}; },
        [](auto& p) {
            p.bad_words = {{1, 100}};
        },
        [](auto& p) {
            p.has_logprob_token_ids = true;
            p.logprob_token_ids = {1};
        },
        [](auto& p) {
            p.repetition_detection = {2, 3, 2};
        },
        [](auto& p) {
            p.repetition_detection = {4, 1, 1};
        },
        [](auto& p) { p.unsupported = "Something"; },
    };
    for (size_t i = 0; i < bad.size(); ++i) {
        EXPECT_NE(error_of([&](Request& r) { bad[i](r.params); }), "") << "case " << i;
    }
}

TEST(Validation, NormalizesAsVllmDoes) {
    Request request = valid_request();
    SamplingParams& p = request.params;
    p.temperature = 0.001;
    p.top_k = -1;
    p.seed = -1;
    p.stop_token_ids = {7, 8};
    p.all_stop_token_ids = {8, 2, 100000};
    EXPECT_FALSE(validate_request(request, limits));
    EXPECT_FLOAT_EQ(static_cast<float>(p.temperature), 0.01F);
    EXPECT_EQ(p.top_k, 0);
    EXPECT_FALSE(p.seed);
    EXPECT_EQ(p.all_stop_token_ids, (std::vector<int32_t>{8, 2, 7}));
    EXPECT_EQ(p.skip_reading_prefix_cache, false);

    request = valid_request();
    request.params.temperature = 1e-6;
    request.params.top_p = 0.5;
    request.params.top_k = 5;
    request.params.min_p = 0.5;
    request.params.prompt_logprobs = 1;
    request.params.eos_token_id = 2;
    request.params.ignore_eos = true;
    EXPECT_FALSE(validate_request(request, limits));
    EXPECT_TRUE(request.params.greedy());
    EXPECT_EQ(request.params.top_p, 1);
    EXPECT_EQ(request.params.top_k, 0);
    EXPECT_EQ(request.params.min_p, 0);
    EXPECT_EQ(request.params.skip_reading_prefix_cache, true);
    EXPECT_FALSE(request.params.eos_token_id);
}

// float32 from one frontend and float64 from another mean the same request.
TEST(Validation, FloatWidthDoesNotMatter) {
    Request narrow = valid_request();
    Request wide = valid_request();
    narrow.params.top_p = static_cast<double>(0.9F);
    wide.params.top_p = 0.9;
    EXPECT_FALSE(validate_request(narrow, limits));
    EXPECT_FALSE(validate_request(wide, limits));
    EXPECT_EQ(narrow.params.top_p, wide.params.top_p);
}

}  // namespace
}  // namespace blas_engine
