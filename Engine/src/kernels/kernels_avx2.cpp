#define ENGINE_VECTOR_HEADER "kernels/vec_avx2.h"
#include "kernels/kernels_inl.h"

namespace blas_engine::detail {

const Kernels& avx2_kernels() {
    static constexpr Kernels table = make_kernels(Isa::avx2);
    return table;
}

}  // namespace blas_engine::detail
