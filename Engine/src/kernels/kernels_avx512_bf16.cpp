#define ENGINE_VECTOR_HEADER "kernels/vec_avx512.h"
#define ENGINE_BF16_DOT 1
#include "kernels/kernels_inl.h"

namespace blas_engine::detail {

const Kernels& avx512_bf16_kernels() {
    static constexpr Kernels table = make_kernels(Isa::avx512_bf16);
    return table;
}

}  // namespace blas_engine::detail
