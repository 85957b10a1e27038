// What a sequence gets must not depend on how the scheduler cuts it up or on what else is in the batch.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "reference_models.h"

namespace blas_engine::testing {
namespace {

using Case = std::tuple<std::string, std::string>;

class Invariance : public ::testing::TestWithParam<Case> {
  protected:
    std::unique_ptr<Model> load(int blocks = 64, int block_size = 16, int threads = 2) const {
        return load_fixture(std::get<0>(GetParam()), std::get<1>(GetParam()), blocks, block_size, threads);
    }
    Reference reference() const { return read_reference(std::get<0>(GetParam())); }
};

TEST_P(Invariance, ChunkedPrefillEqualsWholePrefillToTheBit) {
    const auto model = load();
    for (const ReferencePrompt& prompt : reference().prompts) {
        const std::vector<float> whole = Sequence(*model, 0).feed(prompt.ids);
        for (const size_t chunk : {1, 3, 16, 30, 64}) {
            EXPECT_EQ(Sequence(*model, 20).feed(prompt.ids, chunk), whole) << prompt.name << " in chunks of " << chunk;
        }
    }
}

TEST_P(Invariance, ASequenceGetsTheSameBitsInEveryBatch) {
    const auto model = load(160);
    const auto vocabulary = static_cast<size_t>(model->info().vocab_size);
    const std::vector<ReferencePrompt> prompts = reference().prompts;
    const std::vector<int32_t>& ids = prompts[2].ids;
    Sequence alone(*model, 0);
    const std::vector<float> prefill = alone.feed(ids);
    const std::vector<float> decode = alone.feed({7});
    for (const size_t others : {1, 2, 5, 11, 12}) {
        // The others prefill, decode and want no logits by turns; ours stands among them.
        std::vector<Sequence> sequences;
        for (size_t i = 0; i <= others; ++i) sequences.emplace_back(*model, static_cast<int>(12 * i));
        const size_t ours = others / 2;
        for (const bool decoding : {false, true}) {
            std::vector<SequenceInput> batch;
            size_t rows = 0, our_row = 0;
            for (size_t i = 0; i <= others; ++i) {
                if (i == ours) {
                    our_row = rows;
                    batch.push_back(sequences[i].next(decoding ? std::vector<int32_t>{7} : ids));
                } else {
                    batch.push_back(sequences[i].next(prompts[i % 3].ids, static_cast<int>(i % 2)));
                }
                rows += static_cast<size_t>(batch.back().logits_rows);
            }
            std::vector<float> logits(rows * vocabulary);
            model->forward(batch, logits.data());
            const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(our_row * vocabulary);
            const std::vector<float> row(begin, begin + static_cast<std::ptrdiff_t>(vocabulary));
            EXPECT_EQ(row, decoding ? decode : prefill) << others << " others";
        }
    }
}

TEST_P(Invariance, BlockSizeAndThreadsDoNotMatter) {
    const ReferencePrompt prompt = reference().prompts.back();
    const auto base = load();
    const std::vector<float> expected = Sequence(*base, 0).feed(prompt.ids, 50);
    for (const int block_size : {32, 48, 128}) {
        const auto model = load(16, block_size, block_size == 48 ? 1 : 3);
        EXPECT_EQ(Sequence(*model, 1, 10, block_size).feed(prompt.ids, 50), expected) << block_size;
    }
}

TEST_P(Invariance, RecycledBlocksLeaveNoTrace) {
    const auto model = load(12);
    const ReferencePrompt prompt = reference().prompts[1];
    const std::vector<float> fresh = Sequence(*model, 0).feed(prompt.ids);
    Sequence(*model, 0).feed(std::vector<int32_t>(150, 42));  // fills the same blocks further than ours reaches
    EXPECT_EQ(Sequence(*model, 0).feed(prompt.ids), fresh);
}

TEST_P(Invariance, AwakeAfterSleepComputesTheSame) {
    const auto model = load();
    const ReferencePrompt prompt = reference().prompts[1];
    const std::vector<float> before = Sequence(*model, 0).feed(prompt.ids);
    model->release_weights();
    Sequence asleep(*model, 0);
    EXPECT_THROW(asleep.feed(prompt.ids), ModelError);
    model->reload_weights();
    EXPECT_EQ(Sequence(*model, 0).feed(prompt.ids), before);
}

INSTANTIATE_TEST_SUITE_P(All, Invariance,
                         ::testing::Combine(::testing::Values("llama", "qwen3", "mistral_window", "llama_bias_mha"),
                                            ::testing::Values("float32", "bfloat16")),
                         [](const auto& test) { return std::get<0>(test.param) + "_" + std::get<1>(test.param); });

// With more rows than a BLAS library is used from, chunking may change the last bits there, but no more.
TEST(BlasProducts, AgreeWithOurOwn) {
    for (const std::string dtype : {"float32", "bfloat16"}) {
        for (const std::string& isa : runnable_isas()) {
            const ScopedEnvironment environment("BLAS_ENGINE_ISA", isa);
            for (const ReferencePrompt& prompt : read_reference("llama_bias_mha").prompts) {
                std::vector<std::vector<float>> logits;
                for (const char* gemm : {"own", "blas"}) {
                    const ScopedEnvironment choice("BLAS_ENGINE_GEMM", gemm);
                    const auto model = load_fixture("llama_bias_mha", dtype);
                    logits.push_back(Sequence(*model, 0).feed(prompt.ids));
                }
                EXPECT_LE(relative_error(logits[1], logits[0]), 2e-5) << dtype << " " << isa << " " << prompt.name;
            }
        }
    }
}

}  // namespace
}  // namespace blas_engine::testing
