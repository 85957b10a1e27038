// Runs products on the thread pool and decides which of them go to OpenBLAS.
#pragma once

#include <vector>

#include "kernels/buffer.h"
#include "kernels/kernels.h"
#include "kernels/thread_pool.h"

namespace blas_engine {

// Which code multiplies many rows of float activations (bf16 activations always use our own kernels).
enum class BlasUse {
    automatic,  // OpenBLAS where it was measured to be faster: bf16 weights under AVX2, everything under scalar
    never,      // vLLM's batch invariance: the same bits for a row whatever the batch
    always,     // OpenBLAS wherever it can be used
};

class ProductRunner {
  public:
    ProductRunner(ThreadPool& pool, const Kernels& kernels, BlasUse blas);

    // Storage that Product::x must have for these weights, and that silu_mul writes.
    Storage activations(Storage weights) const {
        return weights == Storage::bf16 ? kernels_.bf16_activations : Storage::f32;
    }
    void run(const Product& product);

  private:
    bool use_blas(const Product& product) const;
    void run_blas(const Product& product);

    ThreadPool& pool_;
    const Kernels& kernels_;
    BlasUse blas_;
    std::vector<Buffer> scratch_;  // per thread: float panels, then sums
};

}  // namespace blas_engine
