// Register tiles. A tile is R rows times C vectors of columns; `step` is the distance from one k (or pair of k) of the
// right operand to the next. Each sum is one chain over k, the same for every R and C.
//
// Part of kernels_inl.h.
#pragma once

#include "kernels/bfloat16.h"
#include "kernels/kernels.h"
#include ENGINE_VECTOR_HEADER

namespace blas_engine {
namespace {

constexpr float log2e = 1.44269504f;
constexpr float minus_infinity = -__builtin_inff();

struct F32Tile {
    using Left = float;
    static constexpr int k_step = 1;  // k consumed per step of the right operand
    static constexpr Storage activations = Storage::f32;
    template <int R, int C>
    [[gnu::always_inline]] static void accumulate(Vec (&acc)[R][C], const float* x, size_t ldx, const float* w) {
        Vec b[C];
        for (int c = 0; c < C; ++c) b[c] = load(w + c * vec_width);
        for (int r = 0; r < R; ++r) {
            const Vec a = splat(x[static_cast<size_t>(r) * ldx]);
            for (int c = 0; c < C; ++c) acc[r][c] = fma(a, b[c], acc[r][c]);
        }
    }
    using Right = float;
    static constexpr int lane = 1;  // elements of the right operand per column and step
    static constexpr int weight_planes = 1;
};

#if defined(ENGINE_BF16_DOT)
struct Bf16Tile {
    using Left = uint16_t;
    static constexpr int k_step = 2;
    static constexpr Storage activations = Storage::bf16;
    template <int R, int C>
    [[gnu::always_inline]] static void accumulate(Vec (&acc)[R][C], const uint16_t* x, size_t ldx, const uint16_t* w) {
        __m512bh b[C];
        for (int c = 0; c < C; ++c) b[c] = (__m512bh)_mm512_loadu_si512(w + c * 2 * vec_width);
        for (int r = 0; r < R; ++r) {
            int32_t pair;
            __builtin_memcpy(&pair, x + static_cast<size_t>(r) * ldx, sizeof pair);
            const __m512bh a = (__m512bh)_mm512_set1_epi32(pair);
            for (int c = 0; c < C; ++c) acc[r][c] = _mm512_dpbf16_ps(acc[r][c], a, b[c]);
        }
    }
    using Right = uint16_t;
    static constexpr int lane = 2;
    static constexpr int weight_planes = 2;
};
#else
struct Bf16Tile {
    using Left = float;
    static constexpr int k_step = 2;
    static constexpr Storage activations = Storage::f32;
    template <int R, int C>
    [[gnu::always_inline]] static void accumulate(Vec (&acc)[R][C], const float* x, size_t ldx, const uint16_t* w) {
        Vec low[C], high[C];
        for (int c = 0; c < C; ++c) {
            const Pairs pairs = load_pairs(w + c * 2 * vec_width);
            low[c] = even(pairs);
            high[c] = odd(pairs);
        }
        for (int r = 0; r < R; ++r) {
            const float* row = x + static_cast<size_t>(r) * ldx;
            const Vec a = splat(row[0]), b = splat(row[1]);
            for (int c = 0; c < C; ++c) acc[r][c] = fma(b, high[c], fma(a, low[c], acc[r][c]));
        }
    }
    using Right = uint16_t;
    static constexpr int lane = 2;
    static constexpr int weight_planes = 1;
};
#endif

// acc (+)= x[R, k] times right[k, C vectors]; `stride` is the right operand's step in columns.
template <typename T, int R, int C>
[[gnu::always_inline]] inline void multiply(Vec (&acc)[R][C], const typename T::Left* x, size_t ldx,
                                            const typename T::Right* right, size_t stride, int k) {
    const size_t step = stride * T::lane;
    const int steps = (k + T::k_step - 1) / T::k_step;
#pragma GCC unroll 4
    for (int i = 0; i < steps; ++i) {
        T::template accumulate<R, C>(acc, x, ldx, right);
        x += T::k_step;
        right += step;
    }
}

inline void store_as(void* out, size_t index, Vec v, Storage storage) {
    if (storage == Storage::bf16) {
        store_bf16(static_cast<uint16_t*>(out) + index, v);
    } else {
        store(static_cast<float*>(out) + index, storage == Storage::f32 ? v : round_to_bf16(v));
    }
}

inline void store_one(void* out, size_t index, float v, Storage storage) {
    if (storage == Storage::bf16) {
        static_cast<uint16_t*>(out)[index] = float_to_bf16(v);
    } else {
        static_cast<float*>(out)[index] = storage == Storage::f32 ? v : bf16_rounded(v);
    }
}

// What a product with these weights takes and what silu_mul therefore makes for the next one.
Storage activation_storage(Storage weights) { return weights == Storage::bf16 ? Bf16Tile::activations : Storage::f32; }

}  // namespace
}  // namespace blas_engine
