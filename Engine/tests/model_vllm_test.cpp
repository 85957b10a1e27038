// bfloat16 arithmetic against real vLLM: it rounds between operations, which decides near-ties.
#include <gtest/gtest.h>

#include <cmath>

#include "json/json.h"
#include "kernels/bfloat16.h"
#include "model/safetensors.h"
#include "reference_models.h"

namespace blas_engine::testing {
namespace {

template <typename T>
std::vector<T> numbers(const Json& json) {
    std::vector<T> out;
    for (const Json& item : *json.array()) out.push_back(static_cast<T>(item.number().value()));
    return out;
}

// Of the bf16 numbers around x.
float spacing(float x) { return std::ldexp(1.0f, std::ilogb(x) - 7); }

class VllmNumerics : public ::testing::TestWithParam<std::string> {};

TEST_P(VllmNumerics, GreedyTokensAndLogitsAreThoseOfVllm) {
    const std::string path = std::string(ENGINE_TEST_DATA_DIR) + "/vllm/" + GetParam() + ".json";
    const Json reference = Json::parse(read_text_file(path, 1 << 20));
    for (const std::string& isa : runnable_isas()) {
        const ScopedEnvironment environment("BLAS_ENGINE_ISA", isa);
        const auto model = load_fixture(GetParam() + "_bfloat16", "auto");
        int compared = 0, same = 0;
        for (const auto& [name, prompt] : *reference.find("prompts")->object()) {
            SCOPED_TRACE(isa + " " + name);
            const auto greedy = numbers<int32_t>(*prompt.find("greedy"));
            Sequence sequence(*model, 3);
            std::vector<float> logits = sequence.feed(numbers<int32_t>(*prompt.find("ids")));
            for (size_t step = 0; step < greedy.size(); ++step) {
                const auto ids = numbers<int32_t>(prompt.find("best")->array()->at(step));
                const auto expected = numbers<float>(prompt.find("logits")->array()->at(step));
                for (size_t i = 0; i < ids.size(); ++i, ++compared) {
                    const float actual = logits[static_cast<size_t>(ids[i])];
                    ASSERT_EQ(actual, bf16_rounded(actual));
                    // Sums in another order may round the other way, and that travels through the layers.
                    ASSERT_NEAR(actual, expected[i], 6 * spacing(expected[i])) << "step " << step;
                    same += actual == expected[i] ? 1 : 0;
                }
                ASSERT_EQ(argmax(logits.data(), logits.size()), greedy[step]) << "step " << step;
                logits = sequence.feed({greedy[step]});
            }
        }
        EXPECT_GE(same, compared * 2 / 3) << isa;
    }
}

INSTANTIATE_TEST_SUITE_P(All, VllmNumerics, ::testing::Values("llama_headdim32", "qwen3"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace blas_engine::testing
