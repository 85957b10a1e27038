// Products of every instruction set against double precision, for every tile height, ragged shape and epilogue.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/bfloat16.h"
#include "kernels/packed_matrix.h"
#include "kernels/product_runner.h"

namespace blas_engine {
namespace {

std::vector<float> random_floats(size_t n, unsigned seed) {
    std::mt19937 generator(seed);
    std::vector<float> out(n);
    for (float& x : out) x = static_cast<float>(generator() % 20001) / 10000.0f - 1.0f;
    return out;
}

float stored(float x, Storage storage) { return storage == Storage::bf16 ? bf16_rounded(x) : x; }

struct Shape {
    int rows, n, k;
};

// A random product with everything it points to.
class Example {
  public:
    Example(Shape shape, Storage weights, Storage activations, Epilogue epilogue, bool with_bias)
        : shape_(shape), activations_(activations), matrix_(shape.n, shape.k, weights), memory_(matrix_.bytes()) {
        const auto [rows, n, k] = shape;
        matrix_.place(memory_.as());
        w_ = random_floats(static_cast<size_t>(n * k), 1);
        x_ = random_floats(static_cast<size_t>(rows * k), 2);
        for (float& x : w_) x = stored(x, weights);
        for (float& x : x_) x = stored(x, activations);
        for (int row = 0; row < n; ++row) {
            matrix_.pack_rows(w_.data() + row * k, epilogue == Epilogue::silu_mul ? gated_column(row) : row, 1);
        }
        const size_t ldx = static_cast<size_t>(k + k % 2 + 6);
        if (with_bias) bias_ = random_floats(static_cast<size_t>(matrix_.panels() * panel_columns), 3);
        out_width_ = static_cast<size_t>(epilogue == Epilogue::silu_mul ? n / 2 : n);
        out_ = random_floats(static_cast<size_t>(rows) * (out_width_ + 3), 4);
        before_ = out_;
        x_storage_.assign(static_cast<size_t>(rows) * ldx * storage_bytes(activations), std::byte{0});
        for (int r = 0; r < rows; ++r) {
            for (int i = 0; i < k; ++i) {
                const float value = x_[static_cast<size_t>(r * k + i)];
                const size_t at = static_cast<size_t>(r) * ldx + static_cast<size_t>(i);
                if (activations == Storage::f32) {
                    reinterpret_cast<float*>(x_storage_.data())[at] = value;
                } else {
                    reinterpret_cast<uint16_t*>(x_storage_.data())[at] = float_to_bf16(value);
                }
            }
        }
        product_.x = x_storage_.data();
        product_.ldx = ldx;
        product_.rows = rows;
        product_.weights = matrix_.data();
        product_.storage = weights;
        product_.n = n;
        product_.k = k;
        product_.bias = with_bias ? bias_.data() : nullptr;
        product_.epilogue = epilogue;
        product_.out = out_.data();
        product_.ldo = out_width_ + 3;
    }

    const Product& product() const { return product_; }
    void round_results() { product_.results = Storage::bf16_in_f32; }
    float before(int row, int column) const {
        return before_[static_cast<size_t>(row) * product_.ldo + static_cast<size_t>(column)];
    }

    // Largest difference from double precision, over the largest result.
    double error() {
        double worst = 0, largest = 1e-30;
        const size_t ldo = product_.ldo;
        for (int r = 0; r < shape_.rows; ++r) {
            for (size_t c = 0; c < out_width_ + 3; ++c) {
                const size_t at = static_cast<size_t>(r) * ldo + c;
                if (c >= out_width_) {
                    EXPECT_EQ(result(at, true), before_[at]) << "wrote past the row";
                    continue;
                }
                const double expected = expected_at(r, static_cast<int>(c), before_[at]);
                const double difference = std::abs(static_cast<double>(result(at, false)) - expected);
                if (!(difference <= worst)) worst = difference;
                largest = std::max(largest, std::abs(expected));
            }
        }
        return worst / largest;
    }

    std::vector<float> row(int r) const {
        std::vector<float> out;
        for (size_t c = 0; c < out_width_; ++c) out.push_back(result(static_cast<size_t>(r) * product_.ldo + c, false));
        return out;
    }

  private:
    // Where row `row` of [gate rows, up rows] goes: 16 of each in turn.
    int gated_column(int row) const {
        const int half = shape_.n / 2, i = row % half;
        return i / 16 * panel_columns + i % 16 + (row < half ? 0 : 16);
    }

    double sum(int row, int column, int panel_column) const {
        double total = bias_.empty() ? 0 : static_cast<double>(bias_[static_cast<size_t>(panel_column)]);
        for (int i = 0; i < shape_.k; ++i) {
            total += static_cast<double>(x_[static_cast<size_t>(row * shape_.k + i)]) *
                     static_cast<double>(w_[static_cast<size_t>(column * shape_.k + i)]);
        }
        return total;
    }

    double expected_at(int row, int column, float before) const {
        if (product_.epilogue != Epilogue::silu_mul) {
            return sum(row, column, column) + (product_.epilogue == Epilogue::add ? static_cast<double>(before) : 0.0);
        }
        const int up_column = column + shape_.n / 2;
        const double gate = sum(row, column, gated_column(column)), up = sum(row, up_column, gated_column(up_column));
        return gate / (1 + std::exp(-gate)) * up;
    }

    // silu_mul of bf16 activations writes bf16 numbers into the same rows.
    bool narrow() const { return product_.epilogue == Epilogue::silu_mul && activations_ == Storage::bf16; }
    float result(size_t at, bool untouched) const {
        if (!narrow()) return out_[at];
        if (untouched) return before_[at];  // the two layouts overlap: nothing to compare
        return bf16_to_float(reinterpret_cast<const uint16_t*>(out_.data())[at]);
    }

    Shape shape_;
    Storage activations_;
    PackedMatrix matrix_;
    Buffer memory_;
    std::vector<float> w_, x_, bias_, out_, before_;
    std::vector<std::byte> x_storage_;
    size_t out_width_ = 0;
    Product product_;
};

class Products : public ::testing::TestWithParam<std::tuple<Isa, Storage>> {
  protected:
    void SetUp() override {
        if (!isa_supported(isa())) GTEST_SKIP() << isa_name(isa()) << " is not supported by this CPU";
    }
    Isa isa() const { return std::get<0>(GetParam()); }
    Storage weights() const { return std::get<1>(GetParam()); }
    const Kernels& kernels() const { return kernels_for(isa()); }
    Storage activations() const { return weights() == Storage::bf16 ? kernels().bf16_activations : Storage::f32; }
    double tolerance(Epilogue epilogue) const {
        const bool rounded = epilogue == Epilogue::silu_mul && activations() == Storage::bf16;
        return rounded ? 4e-3 : 2e-6;
    }
};

TEST_P(Products, MatchDoublePrecisionForEveryTileHeightAndShape) {
    for (const Epilogue epilogue : {Epilogue::store, Epilogue::add, Epilogue::silu_mul}) {
        for (const bool bias : {false, true}) {
            for (int rows = 1; rows <= 26; ++rows) {
                for (const auto& [n, k] : {std::pair{32, 2}, {64, 30}, {96, 258}, {70, 64}, {33, 7}}) {
                    if (epilogue == Epilogue::silu_mul && n % 2 != 0) continue;
                    Example example({rows, n, k}, weights(), activations(), epilogue, bias);
                    kernels().product(example.product(), 0, PackedMatrix::panels_of(n));
                    ASSERT_LE(example.error(), tolerance(epilogue)) << rows << " x " << n << " x " << k;
                }
            }
        }
    }
}

TEST_P(Products, RoundedSumsAreTheExactOnesRounded) {
    constexpr int rows = 5, n = 70, k = 64;
    for (const Epilogue epilogue : {Epilogue::store, Epilogue::add}) {
        Example exact({rows, n, k}, weights(), activations(), Epilogue::store, true);
        Example rounded({rows, n, k}, weights(), activations(), epilogue, true);
        rounded.round_results();
        kernels().product(exact.product(), 0, PackedMatrix::panels_of(n));
        kernels().product(rounded.product(), 0, PackedMatrix::panels_of(n));
        for (int r = 0; r < rows; ++r) {
            for (int c = 0; c < n; ++c) {
                const float before = epilogue == Epilogue::add ? rounded.before(r, c) : 0.0f;
                const auto column = static_cast<size_t>(c);
                ASSERT_EQ(rounded.row(r)[column], bf16_rounded(exact.row(r)[column]) + before);
            }
        }
    }
    Example gated({rows, 64, k}, weights(), activations(), Epilogue::silu_mul, true);
    gated.round_results();
    kernels().product(gated.product(), 0, PackedMatrix::panels_of(64));
    EXPECT_LE(gated.error(), 1e-2);
    for (const float x : gated.row(0)) EXPECT_EQ(x, bf16_rounded(x));
}

TEST_P(Products, ARowHasTheSameBitsWhateverIsComputedWithIt) {
    constexpr int most = 30, n = 96, k = 300;
    Example whole({most, n, k}, weights(), activations(), Epilogue::store, true);
    kernels().product(whole.product(), 0, PackedMatrix::panels_of(n));
    for (int rows = 1; rows < most; ++rows) {
        Example part({rows, n, k}, weights(), activations(), Epilogue::store, true);
        kernels().product(part.product(), 0, PackedMatrix::panels_of(n));
        // Both examples draw their rows from the same random sequence.
        for (int r = 0; r < rows; ++r) ASSERT_EQ(part.row(r), whole.row(r)) << rows << " rows, row " << r;
    }
}

TEST_P(Products, RunnerSharesColumnsOutCorrectly) {
    ThreadPool pool(3);
    for (const BlasUse blas : {BlasUse::automatic, BlasUse::never, BlasUse::always}) {
        ProductRunner runner(pool, kernels(), blas);
        ASSERT_EQ(runner.activations(weights()), activations());
        for (const auto& shape : {Shape{1, 1000, 64}, {5, 2080, 40}, {40, 1111, 33}, {130, 1568, 70}, {100, 32, 16}}) {
            for (const Epilogue epilogue : {Epilogue::store, Epilogue::add}) {
                Example example(shape, weights(), activations(), epilogue, true);
                runner.run(example.product());
                ASSERT_LE(example.error(), tolerance(epilogue)) << shape.rows << " rows";
            }
        }
        Example gated({64, 1600, 50}, weights(), activations(), Epilogue::silu_mul, true);
        runner.run(gated.product());
        EXPECT_LE(gated.error(), tolerance(Epilogue::silu_mul));
    }
}

std::string case_name(const ::testing::TestParamInfo<std::tuple<Isa, Storage>>& test) {
    return std::string(isa_name(std::get<0>(test.param))) +
           (std::get<1>(test.param) == Storage::bf16 ? "_bf16" : "_f32");
}

INSTANTIATE_TEST_SUITE_P(All, Products,
                         ::testing::Combine(::testing::Values(Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16),
                                            ::testing::Values(Storage::bf16, Storage::f32)),
                         case_name);

TEST(PackedMatrix, GivesItsRowsBack) {
    for (const Storage storage : {Storage::bf16, Storage::f32}) {
        PackedMatrix matrix(41, 13, storage);
        Buffer memory(matrix.bytes());
        matrix.place(memory.as());
        std::vector<float> rows = random_floats(41 * 13, 9), row(13);
        matrix.pack_rows(rows.data(), 0, 41);
        for (int i = 0; i < 41; ++i) {
            matrix.unpack_row(i, row.data());
            for (int k = 0; k < 13; ++k) {
                EXPECT_EQ(row[static_cast<size_t>(k)], stored(rows[static_cast<size_t>(i * 13 + k)], storage));
            }
        }
    }
}

TEST(BFloat16, RoundsToNearestEvenAndKeepsSpecialValues) {
    EXPECT_EQ(float_to_bf16(1.0f), 0x3f80);
    EXPECT_EQ(float_to_bf16(__builtin_bit_cast(float, 0x3f808000u)), 0x3f80);  // tie, even below
    EXPECT_EQ(float_to_bf16(__builtin_bit_cast(float, 0x3f818000u)), 0x3f82);  // tie, even above
    EXPECT_EQ(float_to_bf16(__builtin_bit_cast(float, 0x3f808001u)), 0x3f81);
    EXPECT_EQ(float_to_bf16(INFINITY), 0x7f80);
    EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(__builtin_bit_cast(float, 0x7f800001u)))));
    EXPECT_EQ(f16_to_float(0x3c00), 1.0f);
    EXPECT_EQ(f16_to_float(0xc500), -5.0f);
    EXPECT_EQ(f16_to_float(0x0001), 0x1p-24f);
    EXPECT_EQ(f16_to_float(0x83ff), -1023 * 0x1p-24f);
    EXPECT_EQ(f16_to_float(0xfc00), -INFINITY);
    EXPECT_TRUE(std::isnan(f16_to_float(0x7e00)));
}

}  // namespace
}  // namespace blas_engine
