// The vector vocabulary of the *_inl.h kernels in AVX2 with FMA. Included by kernels_avx2.cpp only.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace blas_engine {
namespace {

using Vec = __m256;
constexpr int vec_width = 8;
constexpr int vec_registers = 12;  // accumulators that leave room for operands

inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline Vec splat(float x) { return _mm256_set1_ps(x); }
inline Vec zero() { return _mm256_setzero_ps(); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline float sum_lanes(Vec v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline float max_lanes(Vec v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

// The even (low) and odd (high) bf16 numbers of 8 pairs.
struct Pairs {
    __m256i bits;
};
inline Pairs load_pairs(const uint16_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline Vec even(Pairs p) { return _mm256_castsi256_ps(_mm256_slli_epi32(p.bits, 16)); }
inline Vec odd(Pairs p) { return _mm256_castsi256_ps(_mm256_and_si256(p.bits, _mm256_set1_epi32(-65536))); }

// To bf16 precision: to nearest, ties to even; a NaN stays a NaN.
inline Vec round_to_bf16(Vec v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i tie = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(tie, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i kept = _mm256_blendv_epi8(rounded, quiet, nan);
    return _mm256_castsi256_ps(_mm256_and_si256(kept, _mm256_set1_epi32(-65536)));
}

inline void store_bf16(uint16_t* p, Vec v) {
    const __m256i kept = _mm256_srli_epi32(_mm256_castps_si256(round_to_bf16(v)), 16);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
}

// 2^x, relative error about 2e-7; 0 for x below -126 (also -inf).
inline Vec exp2(Vec x) {
    const Vec tiny = _mm256_cmp_ps(x, splat(-126.0f), _CMP_LT_OQ);
    x = _mm256_min_ps(_mm256_max_ps(x, splat(-126.0f)), splat(127.0f));
    const Vec whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vec f = sub(x, whole);
    Vec y = splat(1.5403530e-4f);
    y = fma(y, f, splat(1.3333558e-3f));
    y = fma(y, f, splat(9.6181291e-3f));
    y = fma(y, f, splat(5.5504109e-2f));
    y = fma(y, f, splat(2.4022651e-1f));
    y = fma(y, f, splat(6.9314718e-1f));
    y = fma(y, f, splat(1.0f));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(tiny, mul(y, _mm256_castsi256_ps(power)));
}

// Lanes whose index (first, first + 1, ...) is inside [low, high] keep their value, the others become `other`.
inline Vec keep_range(Vec v, int first, int low, int high, float other) {
    const __m256i lanes = _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    const __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(low), lanes),
                                            _mm256_cmpgt_epi32(lanes, _mm256_set1_epi32(high)));
    return _mm256_blendv_ps(v, splat(other), _mm256_castsi256_ps(outside));
}

}  // namespace
}  // namespace blas_engine
