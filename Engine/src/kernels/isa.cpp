#include "kernels/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace blas_engine {

namespace {
constexpr Isa all[] = {Isa::avx512_bf16, Isa::avx512, Isa::avx2, Isa::scalar};
}

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx512_bf16:
            return "avx512_bf16";
        case Isa::avx512:
            return "avx512";
        case Isa::avx2:
            return "avx2";
        case Isa::scalar:
            break;
    }
    return "scalar";
}

std::optional<Isa> parse_isa(std::string_view name) {
    for (Isa isa : all) {
        if (name == isa_name(isa)) return isa;
    }
    return std::nullopt;
}

bool isa_supported(Isa isa) {
#if defined(__x86_64__)
    __builtin_cpu_init();  // the compiler's support library also checks that the system saves the wide registers
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    switch (isa) {
        case Isa::avx512_bf16:
            return avx512 && __builtin_cpu_supports("avx512bf16");
        case Isa::avx512:
            return avx512;
        case Isa::avx2:
            return avx2;
        case Isa::scalar:
            break;
    }
#endif
    return isa == Isa::scalar;
}

Isa choose_isa() {
    if (const char* wanted = std::getenv("BLAS_ENGINE_ISA"); wanted != nullptr && *wanted != '\0') {
        const std::optional<Isa> isa = parse_isa(wanted);
        if (!isa) {
            throw std::invalid_argument(std::string("BLAS_ENGINE_ISA=") + wanted +
                                        " is unknown (scalar, avx2, avx512, avx512_bf16)");
        }
        if (!isa_supported(*isa)) {
            throw std::invalid_argument(std::string("BLAS_ENGINE_ISA=") + wanted + " is not supported by this CPU");
        }
        return *isa;
    }
    for (Isa isa : all) {
        if (isa_supported(isa)) return isa;
    }
    return Isa::scalar;
}

}  // namespace blas_engine
