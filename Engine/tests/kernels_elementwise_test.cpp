// Norms, rotation and conversions of every instruction set against the scalar table.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/kernels.h"

namespace blas_engine {
namespace {

std::vector<float> random_floats(int n, unsigned seed) {
    std::mt19937 generator(seed);
    std::vector<float> out(static_cast<size_t>(n));
    for (float& x : out) x = static_cast<float>(generator() % 60001) / 10000.0f - 3.0f;
    return out;
}

class ElementWise : public ::testing::TestWithParam<Isa> {
  protected:
    void SetUp() override {
        if (!isa_supported(GetParam())) GTEST_SKIP() << isa_name(GetParam()) << " is not supported by this CPU";
    }
    const Kernels& kernels() const { return kernels_for(GetParam()); }
    const Kernels& reference() const { return kernels_for(Isa::scalar); }
};

constexpr int lengths[] = {1, 2, 8, 15, 16, 31, 33, 64, 100, 1024, 2690};

TEST_P(ElementWise, RmsNormMatches) {
    for (const int n : lengths) {
        const std::vector<float> x = random_floats(n, 1), weight = random_floats(n, 2);
        std::vector<float> actual(x.size()), expected(x.size());
        kernels().rms_norm(x.data(), weight.data(), n, 1e-6f, actual.data(), Storage::f32, Storage::f32);
        reference().rms_norm(x.data(), weight.data(), n, 1e-6f, expected.data(), Storage::f32, Storage::f32);
        for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-5f) << n;
        std::vector<uint16_t> narrow(x.size() + 1, 0x1234);
        kernels().rms_norm(x.data(), weight.data(), n, 1e-6f, narrow.data(), Storage::bf16, Storage::f32);
        for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(narrow[i], float_to_bf16(actual[i])) << n;
        EXPECT_EQ(narrow.back(), 0x1234);
        const std::vector<float> ones(x.size(), 1.0f);
        std::vector<float> plain(x.size());
        kernels().rms_norm(x.data(), ones.data(), n, 1e-6f, plain.data(), Storage::f32, Storage::f32);
        constexpr Storage rounded = Storage::bf16_in_f32;
        kernels().rms_norm(x.data(), weight.data(), n, 1e-6f, actual.data(), rounded, rounded);
        kernels().rms_norm(x.data(), weight.data(), n, 1e-6f, narrow.data(), Storage::bf16, rounded);
        for (size_t i = 0; i < x.size(); ++i) {
            EXPECT_EQ(actual[i], bf16_rounded(bf16_rounded(plain[i]) * weight[i])) << n;
            EXPECT_EQ(narrow[i], float_to_bf16(actual[i])) << n;
        }
    }
}

TEST_P(ElementWise, RopeMatches) {
    for (const int half : {1, 4, 8, 12, 16, 20, 32, 64}) {
        const std::vector<float> cosine = random_floats(half, 3), sine = random_floats(half, 4);
        std::vector<float> actual = random_floats(2 * half, 5), expected = actual;
        std::vector<float> rounded = actual;
        kernels().rope(actual.data(), cosine.data(), sine.data(), half, Storage::f32);
        reference().rope(expected.data(), cosine.data(), sine.data(), half, Storage::f32);
        for (size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-5f) << half;
        kernels().rope(rounded.data(), cosine.data(), sine.data(), half, Storage::bf16_in_f32);
        for (size_t i = 0; i < actual.size(); ++i) EXPECT_EQ(rounded[i], bf16_rounded(actual[i])) << half;
    }
}

TEST_P(ElementWise, ConversionsRoundLikeTheReference) {
    std::vector<float> x = random_floats(1000, 6);
    for (const float special : {0.0f, -0.0f, INFINITY, -INFINITY, 3e38f, 1e-42f}) x.push_back(special);
    for (uint32_t bits : {0x3f808000u, 0x3f818000u, 0x3f807fffu, 0x7f7fffffu}) {
        x.push_back(__builtin_bit_cast(float, bits));
    }
    x.resize(1024, __builtin_bit_cast(float, 0x7fffffffu));  // NaN whose rounding would overflow
    std::vector<uint16_t> actual(x.size()), expected(x.size());
    kernels().convert(x.data(), 1024, actual.data(), Storage::bf16);
    reference().convert(x.data(), 1024, expected.data(), Storage::bf16);
    for (size_t i = 0; i < x.size(); ++i) {
        if (std::isnan(x[i])) {
            EXPECT_TRUE(std::isnan(bf16_to_float(actual[i])));
        } else {
            EXPECT_EQ(actual[i], expected[i]) << x[i];
        }
    }
    kernels().scale(x.data(), 0.5f, 1003, actual.data(), Storage::bf16);
    for (size_t i = 0; i < 1003; ++i) EXPECT_EQ(actual[i], float_to_bf16(x[i] * 0.5f));
}

INSTANTIATE_TEST_SUITE_P(All, ElementWise, ::testing::Values(Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16),
                         [](const auto& test) { return isa_name(test.param); });

}  // namespace
}  // namespace blas_engine
