// The embedded model against transformers: greedy tokens, for every storage type.
#include <gtest/gtest.h>

#include "json/json.h"
#include "model/safetensors.h"
#include "reference_models.h"

namespace blas_engine::testing {
namespace {

template <typename T>
std::vector<T> numbers(const Json* json) {
    std::vector<T> out;
    for (const Json& item : *json->array()) out.push_back(static_cast<T>(item.number().value()));
    return out;
}

class DefaultModel : public ::testing::TestWithParam<std::string> {};

TEST_P(DefaultModel, GreedyTokensMatchTransformers) {
    const std::string& dtype = GetParam();
    const std::string data = ENGINE_TEST_DATA_DIR;
    LoadOptions options;
    options.path = data + "/../../models/default";
    options.dtype = dtype;
    options.threads = 2;
    const auto model = Model::load(options);
    model->allocate_kv(64);
    // A step whose two best tokens are closer than rounding may move them is not decided.
    const double slack = dtype == "float32" ? 1e-3 : 0.5;
    const Json reference = Json::parse(read_text_file(data + "/default_model/reference.json", 1 << 20));
    size_t compared = 0;
    for (const Json& item : *reference.find("cases")->array()) {
        SCOPED_TRACE(*item.find("name")->string());
        const auto expected = numbers<int32_t>(item.find(dtype)->find("tokens"));
        const auto margins = numbers<double>(item.find(dtype)->find("margins"));
        Sequence sequence(*model, 3, 24);
        const auto greedy = sequence.greedy(sequence.feed(numbers<int32_t>(item.find("prompt"))), expected.size());
        for (size_t i = 0; i < expected.size() && margins[i] > slack; ++i, ++compared) {
            ASSERT_EQ(greedy[i], expected[i]) << "step " << i;
        }
    }
    EXPECT_GE(compared, 64u);
}

INSTANTIATE_TEST_SUITE_P(Storage, DefaultModel, ::testing::Values("float32", "bfloat16"));

}  // namespace
}  // namespace blas_engine::testing
