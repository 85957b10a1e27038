// Paged attention of every instruction set against double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "kernels/bfloat16.h"
#include "model/attention.h"

namespace blas_engine {
namespace {

struct Problem {
    int heads, kv_heads, head_dim, block_tokens, context, queries, window;
};

// One sequence with random keys, values and queries, its blocks scattered over a cache whose unused parts are NaN.
class Example {
  public:
    Example(const Kernels& kernels, Storage storage, const Problem& setup, int threads)
        : kernels_(kernels),
          storage_(storage),
          setup_(setup),
          pool_(threads),
          cache_(2, setup.kv_heads, setup.head_dim, setup.block_tokens, storage),
          attention_(pool_, kernels, cache_, setup.heads, setup.kv_heads, setup.head_dim, Storage::f32) {
        const int blocks = (setup.context + setup.block_tokens - 1) / setup.block_tokens;
        cache_.allocate(blocks + 2);
        std::memset(cache_.base(0, 0), 0xff, cache_.bytes_per_block() * static_cast<size_t>(blocks + 2));
        for (int i = 0; i < blocks; ++i) table_.push_back(blocks - i);
        std::mt19937 generator(7);
        const auto fill = [&](std::vector<float>& out, int rows) {
            out.resize(static_cast<size_t>(rows) * static_cast<size_t>(setup.head_dim));
            for (float& x : out) x = static_cast<float>(generator() % 4001) / 1000.0f - 2.0f;
        };
        fill(keys_, setup.context * setup.kv_heads);
        fill(values_, setup.context * setup.kv_heads);
        fill(queries_, setup.queries * setup.heads);
        if (storage == Storage::bf16) {
            for (auto* numbers : {&keys_, &values_, &queries_}) {
                for (float& x : *numbers) x = bf16_to_float(float_to_bf16(x));
            }
        }
        for (int t = 0; t < setup.context; ++t) {
            for (int h = 0; h < setup.kv_heads; ++h) {
                cache_.write(1, h, table_[static_cast<size_t>(t / setup.block_tokens)], t % setup.block_tokens,
                             key(t, h), value(t, h));
            }
        }
    }

    // Rows [first, end) of the queries, as floats.
    std::vector<float> run(int first, int end) {
        const size_t width = static_cast<size_t>(setup_.heads * setup_.head_dim);
        const auto rows = static_cast<size_t>(end - first), heads = static_cast<size_t>(setup_.heads);
        const Storage activations = storage_ == Storage::bf16 ? kernels_.bf16_activations : Storage::f32;
        std::vector<std::byte> queries(rows * heads * attention_.query_bytes());
        for (size_t i = 0; i < rows * heads; ++i) {
            const size_t at = (static_cast<size_t>(first) * heads + i) * static_cast<size_t>(setup_.head_dim);
            kernels_.convert(queries_.data() + at, setup_.head_dim, queries.data() + i * attention_.query_bytes(),
                             activations);
        }
        std::vector<std::byte> out(rows * width * storage_bytes(activations));
        AttentionInput input;
        input.layer = 1;
        input.window = setup_.window;
        input.queries = queries.data();
        input.out = out.data();
        input.ld_out = width;
        attention_.run({{table_.data(), setup_.context - setup_.queries + first, end - first, 0, 0}}, input);
        std::vector<float> floats(rows * width);
        for (size_t i = 0; i < floats.size(); ++i) {
            floats[i] = activations == Storage::bf16 ? bf16_to_float(reinterpret_cast<const uint16_t*>(out.data())[i])
                                                     : reinterpret_cast<const float*>(out.data())[i];
        }
        return floats;
    }

    std::vector<double> expected() const {
        std::vector<double> out;
        const auto dim = static_cast<size_t>(setup_.head_dim);
        for (int row = 0; row < setup_.queries; ++row) {
            const int position = setup_.context - setup_.queries + row;
            const int first = setup_.window > 0 ? std::max(0, position - setup_.window + 1) : 0;
            for (int h = 0; h < setup_.heads; ++h) {
                const int kv = h / (setup_.heads / setup_.kv_heads);
                const float* q = queries_.data() + static_cast<size_t>(row * setup_.heads + h) * dim;
                std::vector<double> scores, sums(dim);
                double largest = -INFINITY, total = 0;
                for (int t = first; t <= position; ++t) {
                    double score = 0;
                    for (size_t d = 0; d < dim; ++d)
                        score += static_cast<double>(q[d]) * static_cast<double>(key(t, kv)[d]);
                    scores.push_back(score / std::sqrt(static_cast<double>(dim)));
                    largest = std::max(largest, scores.back());
                }
                for (int t = first; t <= position; ++t) {
                    const double weight = std::exp(scores[static_cast<size_t>(t - first)] - largest);
                    total += weight;
                    for (size_t d = 0; d < dim; ++d) sums[d] += weight * static_cast<double>(value(t, kv)[d]);
                }
                for (const double sum : sums) out.push_back(sum / total);
            }
        }
        return out;
    }

  private:
    const float* key(int t, int h) const { return keys_.data() + index(t, h); }
    const float* value(int t, int h) const { return values_.data() + index(t, h); }
    size_t index(int t, int h) const {
        return static_cast<size_t>(t * setup_.kv_heads + h) * static_cast<size_t>(setup_.head_dim);
    }

    const Kernels& kernels_;
    Storage storage_;
    Problem setup_;
    ThreadPool pool_;
    KvCache cache_;
    Attention attention_;
    std::vector<int32_t> table_;
    std::vector<float> keys_, values_, queries_;
};

class PagedAttention : public ::testing::TestWithParam<std::tuple<Isa, Storage>> {
  protected:
    void SetUp() override {
        if (!isa_supported(isa())) GTEST_SKIP() << isa_name(isa()) << " is not supported by this CPU";
    }
    Isa isa() const { return std::get<0>(GetParam()); }
    Storage storage() const { return std::get<1>(GetParam()); }
    const Kernels& kernels() const { return kernels_for(isa()); }
    // With bf16 dot products the result is rounded to bf16: values are below 2.
    double tolerance() const {
        return storage() == Storage::bf16 && kernels().bf16_activations == Storage::bf16 ? 0x1p-8 + 2e-5 : 2e-5;
    }
    void check(const Problem& setup, int threads) {
        Example example(kernels(), storage(), setup, threads);
        const std::vector<float> actual = example.run(0, setup.queries);
        const std::vector<double> expected = example.expected();
        double worst = 0;
        for (size_t i = 0; i < expected.size(); ++i) {
            const double difference = std::abs(static_cast<double>(actual[i]) - expected[i]);
            if (!(difference <= worst)) worst = difference;
        }
        EXPECT_LE(worst, tolerance()) << "heads " << setup.heads << "/" << setup.kv_heads << " dim " << setup.head_dim
                                      << " block " << setup.block_tokens << " context " << setup.context << " queries "
                                      << setup.queries << " window " << setup.window;
    }
};

TEST_P(PagedAttention, MatchesDoublePrecision) {
    for (const int queries : {1, 3, 33}) {
        for (const int window : {0, 5, 40}) {
            check({4, 2, 16, 16, 33, queries, window}, 2);
            check({4, 4, 64, 16, 70, queries, window}, 2);
            check({6, 1, 80, 32, 130, queries, window}, 1);
            check({14, 1, 24, 48, 100, queries, window}, 2);  // more heads than a tile has rows, padded head
            check({2, 1, 128, 64, 200, queries, window}, 2);
        }
    }
    check({2, 1, 32, 16, 1, 1, 0}, 1);
}

TEST_P(PagedAttention, MergesTheSharesOfALongContext) {
    for (const int threads : {1, 4}) {
        for (const int window : {0, 1500}) {
            check({2, 1, 32, 16, 3 * split_tokens + 77, 1, window}, threads);
            check({2, 1, 32, 64, 2 * split_tokens + 3, 9, window}, threads);
        }
    }
}

TEST_P(PagedAttention, ARowHasTheSameBitsInEveryChunkAndOnAnyNumberOfThreads) {
    const Problem setup{4, 2, 32, 16, 2 * split_tokens + 40, 60, 0};
    Example one(kernels(), storage(), setup, 1), four(kernels(), storage(), setup, 4);
    const std::vector<float> whole = one.run(0, setup.queries);
    const size_t width = static_cast<size_t>(setup.heads * setup.head_dim);
    for (int first = 0; first < setup.queries;) {
        const int count = std::min(setup.queries - first, first % 7 + 1);
        const std::vector<float> part = four.run(first, first + count);
        for (size_t i = 0; i < part.size(); ++i) {
            ASSERT_EQ(part[i], whole[static_cast<size_t>(first) * width + i]) << "rows from " << first;
        }
        first += count;
    }
}

INSTANTIATE_TEST_SUITE_P(All, PagedAttention,
                         ::testing::Combine(::testing::Values(Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16),
                                            ::testing::Values(Storage::bf16, Storage::f32)),
                         [](const auto& test) {
                             return std::string(isa_name(std::get<0>(test.param))) +
                                    (std::get<1>(test.param) == Storage::bf16 ? "_bf16" : "_f32");
                         });

}  // namespace
}  // namespace blas_engine
