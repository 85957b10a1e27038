// Conversions, norms and rotation. Part of kernels_inl.h.
#pragma once

#include "kernels/tiles_inl.h"

namespace blas_engine {
namespace {

void convert(const float* x, int n, void* out, Storage storage) {
    int i = 0;
    for (; i + vec_width <= n; i += vec_width) store_as(out, static_cast<size_t>(i), load(x + i), storage);
    for (; i < n; ++i) store_one(out, static_cast<size_t>(i), x[i], storage);
}

void rms_norm(const float* x, const float* weight, int n, float epsilon, void* out, Storage storage, Storage results) {
    Vec squares[2] = {zero(), zero()};
    int i = 0;
    for (; i + 2 * vec_width <= n; i += 2 * vec_width) {
        const Vec a = load(x + i), b = load(x + i + vec_width);
        squares[0] = fma(a, a, squares[0]);
        squares[1] = fma(b, b, squares[1]);
    }
    float sum = sum_lanes(add(squares[0], squares[1]));
    for (; i < n; ++i) sum += x[i] * x[i];
    const float factor = 1.0f / __builtin_sqrtf(sum / static_cast<float>(n) + epsilon);
    const Vec factors = splat(factor);
    const bool exact = results == Storage::f32;
    for (i = 0; i + vec_width <= n; i += vec_width) {
        const Vec y = mul(load(x + i), factors);
        store_as(out, static_cast<size_t>(i), mul(exact ? y : round_to_bf16(y), load(weight + i)), storage);
    }
    for (; i < n; ++i) {
        const float y = x[i] * factor;
        store_one(out, static_cast<size_t>(i), (exact ? y : bf16_rounded(y)) * weight[i], storage);
    }
}

void rope(float* x, const float* cosine, const float* sine, int half, Storage storage) {
    float* y = x + half;
    int i = 0;
    for (; i + vec_width <= half; i += vec_width) {
        const Vec a = load(x + i), b = load(y + i), c = load(cosine + i), s = load(sine + i);
        store_as(x, static_cast<size_t>(i), sub(mul(a, c), mul(b, s)), storage);
        store_as(y, static_cast<size_t>(i), add(mul(b, c), mul(a, s)), storage);
    }
    for (; i < half; ++i) {
        const float a = x[i], b = y[i];
        store_one(x, static_cast<size_t>(i), a * cosine[i] - b * sine[i], storage);
        store_one(y, static_cast<size_t>(i), b * cosine[i] + a * sine[i], storage);
    }
}

void scale(const float* x, float factor, int n, void* out, Storage storage) {
    const Vec factors = splat(factor);
    int i = 0;
    for (; i + vec_width <= n; i += vec_width) {
        store_as(out, static_cast<size_t>(i), mul(load(x + i), factors), storage);
    }
    for (; i < n; ++i) store_one(out, static_cast<size_t>(i), x[i] * factor, storage);
}

}  // namespace
}  // namespace blas_engine
