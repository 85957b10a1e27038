// The vector vocabulary of the *_inl.h kernels in AVX-512 (F, BW, VL, DQ). Included by one kernels_*.cpp per
// instruction set.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace blas_engine {
namespace {

using Vec = __m512;
constexpr int vec_width = 16;
constexpr int vec_registers = 24;  // accumulators that leave room for operands

inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline Vec splat(float x) { return _mm512_set1_ps(x); }
inline Vec zero() { return _mm512_setzero_ps(); }
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline float sum_lanes(Vec v) { return _mm512_reduce_add_ps(v); }
inline float max_lanes(Vec v) { return _mm512_reduce_max_ps(v); }

// The even (low) and odd (high) bf16 numbers of 16 pairs.
struct Pairs {
    __m512i bits;
};
inline Pairs load_pairs(const uint16_t* p) { return {_mm512_loadu_si512(p)}; }
inline Vec even(Pairs p) { return _mm512_castsi512_ps(_mm512_slli_epi32(p.bits, 16)); }
inline Vec odd(Pairs p) { return _mm512_castsi512_ps(_mm512_and_si512(p.bits, _mm512_set1_epi32(-65536))); }

// To bf16 precision: to nearest, ties to even; a NaN stays a NaN.
inline Vec round_to_bf16(Vec v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i tie = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(tie, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_castsi512_ps(_mm512_and_si512(kept, _mm512_set1_epi32(-65536)));
}

inline void store_bf16(uint16_t* p, Vec v) {
    const __m512i bits = _mm512_castps_si512(round_to_bf16(v));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}

// 2^x, relative error about 2e-7; 0 for very small x (also -inf).
inline Vec exp2(Vec x) {
    x = _mm512_max_ps(x, splat(-150.0f));
    const Vec whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vec f = sub(x, whole);
    Vec y = splat(1.5403530e-4f);
    y = fma(y, f, splat(1.3333558e-3f));
    y = fma(y, f, splat(9.6181291e-3f));
    y = fma(y, f, splat(5.5504109e-2f));
    y = fma(y, f, splat(2.4022651e-1f));
    y = fma(y, f, splat(6.9314718e-1f));
    y = fma(y, f, splat(1.0f));
    return _mm512_scalef_ps(y, whole);
}

// Lanes whose index (first, first + 1, ...) is inside [low, high] keep their value, the others become `other`.
inline Vec keep_range(Vec v, int first, int low, int high, float other) {
    const __m512i lanes = _mm512_add_epi32(_mm512_set1_epi32(first),
                                           _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __mmask16 keep = _mm512_cmp_epi32_mask(lanes, _mm512_set1_epi32(low), _MM_CMPINT_NLT) &
                           _mm512_cmp_epi32_mask(lanes, _mm512_set1_epi32(high), _MM_CMPINT_LE);
    return _mm512_mask_mov_ps(splat(other), keep, v);
}

}  // namespace
}  // namespace blas_engine
