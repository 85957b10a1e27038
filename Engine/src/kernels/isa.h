// Which instruction set the kernels use, found out at run time.
#pragma once

#include <optional>
#include <string_view>

namespace blas_engine {

enum class Isa { scalar, avx2, avx512, avx512_bf16 };

const char* isa_name(Isa isa);
std::optional<Isa> parse_isa(std::string_view name);
bool isa_supported(Isa isa);  // by CPU, operating system and this build

// The best supported one, or what the environment variable BLAS_ENGINE_ISA names. Throws std::invalid_argument if that
// is unknown or not supported here.
Isa choose_isa();

}  // namespace blas_engine
