#define ENGINE_VECTOR_HEADER "kernels/vec_avx512.h"
#include "kernels/kernels_inl.h"

namespace blas_engine::detail {

const Kernels& avx512_kernels() {
    static constexpr Kernels table = make_kernels(Isa::avx512);
    return table;
}

}  // namespace blas_engine::detail
