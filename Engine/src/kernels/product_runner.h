// Runs products on the thread pool and decides which of them go to OpenBLAS.
#pragma once

#include <vector>

#include "kernels/buffer.h"
#include "kernels/kernels.h"
#include "kernels/thread_pool.h"

namespace blas_engine {

// Which code multiplies many rows of float activations (bf16 activations always use our own kernels).
enum class BlasUse {
    automatic,  // whichever was measured to be faster for the instruction set
    never,      // vLLM's batch invariance: the same bits for a row whatever the batch
    always,     // for tests: from blas_min_rows on
};

class ProductRunner {
  public:
    // From this many rows on a BLAS library is worth copying the panels for.
    static constexpr int blas_min_rows = 48;

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
