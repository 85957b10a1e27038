#include "kernels/product_runner.h"

#include <cblas.h>

#include <algorithm>

#include "kernels/packed_matrix.h"

extern "C" void openblas_set_num_threads(int threads);

namespace blas_engine {

namespace {

// From how many rows on unpacking the panels for the library pays off.
constexpr int blas_min_rows_avx2 = 96;
constexpr int blas_min_rows_scalar = 16;
constexpr int blas_group_panels = 16;  // 512 columns: enough for the library's own blocking
constexpr size_t min_chunk_bytes = size_t{64} << 10;
constexpr int chunks_per_thread = 16;

}  // namespace

ProductRunner::ProductRunner(ThreadPool& pool, const Kernels& kernels, BlasUse blas)
    : pool_(pool), kernels_(kernels), blas_(blas), scratch_(static_cast<size_t>(pool.threads())) {
    // Columns are shared out over our own threads; the library's would fight with them for the same CPUs.
    openblas_set_num_threads(1);
}

// One thread, GFLOP/s at 512 rows (Zen 4): own float kernels 110 (AVX-512 and AVX2), own bf16 panels widened to float
// 110 (AVX-512) and 76 (AVX2), OpenBLAS 0.3.21 from unpacked panels 95 to 101; the library is further behind at fewer
// rows.
bool ProductRunner::use_blas(const Product& product) const {
    if (blas_ == BlasUse::never || activations(product.storage) == Storage::bf16) return false;
    if (blas_ == BlasUse::always) return product.rows >= blas_min_rows_scalar;
    switch (kernels_.isa) {
        case Isa::scalar:
            return product.rows >= blas_min_rows_scalar;
        case Isa::avx2:
            return product.storage == Storage::bf16 && product.rows >= blas_min_rows_avx2;
        case Isa::avx512:
        case Isa::avx512_bf16:
            break;
    }
    return false;
}

void ProductRunner::run(const Product& product) {
    if (product.rows <= 0) return;
    if (use_blas(product)) return run_blas(product);
    const int panels = PackedMatrix::panels_of(product.n);
    const size_t panel_bytes = PackedMatrix::panel_bytes_of(product.k, product.storage);
    const int by_bytes = std::max(1, static_cast<int>(min_chunk_bytes / std::max<size_t>(1, panel_bytes)));
    // With many rows even one panel is long work; with few, chunks stay long enough for the memory prefetcher.
    const int by_count = std::max(1, panels / (pool_.threads() * chunks_per_thread));
    const int per_chunk = product.rows > 4 * max_tile_rows ? 1 : std::max(by_bytes, by_count);
    pool_.run((panels + per_chunk - 1) / per_chunk, [&](int chunk, int) {
        const int begin = chunk * per_chunk;
        kernels_.product(product, begin, std::min(panels, begin + per_chunk));
    });
}

void ProductRunner::run_blas(const Product& product) {
    const int panels = PackedMatrix::panels_of(product.n);
    const int threads = pool_.threads();
    int groups = (panels + blas_group_panels - 1) / blas_group_panels;
    groups = std::min(panels, (groups + threads - 1) / threads * threads);
    pool_.run(groups, [&](int group, int thread) {
        const int begin = static_cast<int>(static_cast<int64_t>(panels) * group / groups);
        const int end = static_cast<int>(static_cast<int64_t>(panels) * (group + 1) / groups);
        const auto columns = static_cast<size_t>(end - begin) * panel_columns;
        const auto k = static_cast<size_t>(product.k);
        Buffer& scratch = scratch_[static_cast<size_t>(thread)];
        scratch.reserve((k + static_cast<size_t>(product.rows)) * columns * sizeof(float));
        float* weights = scratch.as<float>();
        float* sums = weights + k * columns;
        kernels_.unpack(product, begin, end, weights, columns);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, product.rows, static_cast<int>(columns), product.k, 1.0f,
                    static_cast<const float*>(product.x), static_cast<int>(product.ldx), weights,
                    static_cast<int>(columns), 0.0f, sums, static_cast<int>(columns));
        for (int panel = begin; panel < end; ++panel) {
            kernels_.finish(product, panel, sums + static_cast<size_t>(panel - begin) * panel_columns, columns);
        }
    });
}

}  // namespace blas_engine
