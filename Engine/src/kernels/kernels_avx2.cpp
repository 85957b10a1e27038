#include "kernels/kernels_inl.h"
#include "kernels/vec_avx2.h"

namespace blas_engine::detail {

const Kernels& avx2_kernels() {
    static constexpr Kernels table = make_kernels(Isa::avx2);
    return table;
}

}  // namespace blas_engine::detail
