// Every supported family against transformers: logits, greedy tokens, prompt log-probabilities.
#include <gtest/gtest.h>

#include <cmath>

#include "reference_models.h"

namespace blas_engine::testing {
namespace {

// Of the largest logit. With bfloat16 storage the weights, the cache and the activations are all rounded.
double tolerance(const std::string& dtype) { return dtype == "float32" ? 1e-4 : 2e-2; }

// Greedy ids must agree up to the first step whose margin is within the error that the storage allows.
size_t decided_steps(const ReferencePrompt& prompt, const std::string& dtype) {
    float largest = 0;
    for (const float logit : prompt.logits) largest = std::max(largest, std::abs(logit));
    const double slack = dtype == "float32" ? 2e-5 * static_cast<double>(largest) : 1e-2 * static_cast<double>(largest);
    size_t steps = 0;
    while (steps < prompt.margins.size() && static_cast<double>(prompt.margins[steps]) > slack) ++steps;
    return steps;
}

using Case = std::tuple<std::string, std::string>;

class ReferenceModel : public ::testing::TestWithParam<Case> {
  protected:
    void check_prompts(const std::string& name, const std::string& dtype) {
        const Reference reference = read_reference(name);
        const auto model = load_fixture(name, dtype);
        ASSERT_EQ(model->info().architecture, reference.architecture);
        ASSERT_EQ(model->info().dtype, dtype);
        size_t compared = 0;
        for (const ReferencePrompt& prompt : reference.prompts) {
            SCOPED_TRACE(prompt.name);
            Sequence sequence(*model, 3);
            const std::vector<float> logits = sequence.feed(prompt.ids);
            EXPECT_LE(relative_error(logits, prompt.logits), tolerance(dtype));
            const size_t steps = decided_steps(prompt, dtype);
            compared += steps;
            const std::vector<int32_t> greedy = sequence.greedy(logits, prompt.greedy.size());
            for (size_t i = 0; i < steps; ++i) ASSERT_EQ(greedy[i], prompt.greedy[i]) << "step " << i;
        }
        EXPECT_GE(compared, dtype == "float32" ? 64u : 4u);  // the comparison must not be empty
    }
};

TEST_P(ReferenceModel, LogitsAndGreedyTokensMatchTransformers) {
    const auto& [name, dtype] = GetParam();
    check_prompts(name, dtype);
}

TEST_P(ReferenceModel, EveryInstructionSetMatchesTransformers) {
    const auto& [name, dtype] = GetParam();
    for (const std::string& isa : runnable_isas()) {
        SCOPED_TRACE(isa);
        const ScopedEnvironment environment("BLAS_ENGINE_ISA", isa);
        check_prompts(name, dtype);
    }
}

TEST_P(ReferenceModel, PromptLogprobsMatchTransformers) {
    const auto& [name, dtype] = GetParam();
    const Reference reference = read_reference(name);
    const auto model = load_fixture(name, dtype);
    const auto vocabulary = static_cast<size_t>(model->info().vocab_size);
    for (const ReferencePrompt& prompt : reference.prompts) {
        if (prompt.ids.size() < 2) continue;
        SCOPED_TRACE(prompt.name);
        Sequence sequence(*model, 0);
        std::vector<float> logits(prompt.ids.size() * vocabulary);
        const SequenceInput input = sequence.next(prompt.ids, static_cast<int>(prompt.ids.size()));
        model->forward({&input, 1}, logits.data());
        std::vector<float> logprobs;
        for (size_t i = 0; i + 1 < prompt.ids.size(); ++i) {
            const float* row = logits.data() + i * vocabulary;
            double sum = 0;
            for (size_t token = 0; token < vocabulary; ++token) sum += std::exp(static_cast<double>(row[token]));
            logprobs.push_back(static_cast<float>(static_cast<double>(row[prompt.ids[i + 1]]) - std::log(sum)));
        }
        EXPECT_LE(relative_error(logprobs, prompt.prompt_logprobs), tolerance(dtype));
        logits.erase(logits.begin(), logits.end() - static_cast<std::ptrdiff_t>(vocabulary));
        EXPECT_LE(relative_error(logits, prompt.logits), tolerance(dtype));
    }
}

INSTANTIATE_TEST_SUITE_P(All, ReferenceModel,
                         ::testing::Combine(::testing::ValuesIn(reference_names()),
                                            ::testing::Values("float32", "bfloat16")),
                         [](const auto& test) { return std::get<0>(test.param) + "_" + std::get<1>(test.param); });

}  // namespace
}  // namespace blas_engine::testing
