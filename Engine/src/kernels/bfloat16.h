// bfloat16 and float16 to and from float, portable. Always inlined: these are also used by files compiled for wider
// instruction sets, and an out-of-line copy from one of those could be the one the linker keeps for everybody.
#pragma once

#include <cstdint>

namespace blas_engine {

[[gnu::always_inline]] inline float bf16_to_float(uint16_t value) {
    return __builtin_bit_cast(float, static_cast<uint32_t>(value) << 16);
}

// Rounds to nearest, ties to even; a NaN stays a NaN.
[[gnu::always_inline]] inline uint16_t float_to_bf16(float value) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

[[gnu::always_inline]] inline float bf16_rounded(float value) { return bf16_to_float(float_to_bf16(value)); }

[[gnu::always_inline]] inline float f16_to_float(uint16_t value) {
    const uint32_t sign = static_cast<uint32_t>(value & 0x8000u) << 16;
    const uint32_t exponent = value >> 10 & 0x1fu;
    const uint32_t fraction = value & 0x3ffu;
    if (exponent == 0x1f) return __builtin_bit_cast(float, sign | 0x7f800000u | fraction << 13);
    if (exponent != 0) return __builtin_bit_cast(float, sign | (exponent + 112) << 23 | fraction << 13);
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // subnormal
    return sign != 0 ? -magnitude : magnitude;
}

}  // namespace blas_engine
