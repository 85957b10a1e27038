// A weight matrix in the layout the kernels stream.
#pragma once

#include "kernels/kernels.h"

namespace blas_engine {

// W[n, k] as panels of 32 output columns. Inside a panel, bf16: [k / 2][32 columns][2], so that one 64-byte line holds
// a pair of k for 16 columns, the operand of a bf16 dot product; float: [k][32 columns]. k is padded to even and n to
// whole panels with zeros. One stream of memory for one row, and the right operand for a register tile of many rows.
// A view: the memory belongs to whoever called place().
class PackedMatrix {
  public:
    PackedMatrix() = default;
    PackedMatrix(int n, int k, Storage storage) : n_(n), k_(k), storage_(storage) {}
    // Gives it its bytes(), zero-filled and aligned to 64.
    void place(std::byte* data) { data_ = data; }

    int n() const { return n_; }
    int k() const { return k_; }
    int panels() const { return panels_of(n_); }
    Storage storage() const { return storage_; }
    const void* data() const { return data_; }
    size_t bytes() const { return panel_bytes() * static_cast<size_t>(panels()); }
    size_t panel_bytes() const { return panel_bytes_of(k_, storage_); }

    // Copies `count` rows (each k floats, stride k) into output columns first, first + 1, ...
    void pack_rows(const float* rows, int first, int count);
    // Output column `column` back as k floats: the embedding row of a matrix that is also the LM head.
    void unpack_row(int column, float* out) const;

    static int panels_of(int n) { return (n + panel_columns - 1) / panel_columns; }
    static size_t panel_bytes_of(int k, Storage storage) {
        const auto even = static_cast<size_t>((k + 1) / 2 * 2);
        return even * panel_columns * storage_bytes(storage);
    }

  private:
    int n_ = 0, k_ = 0;
    Storage storage_ = Storage::bf16;
    std::byte* data_ = nullptr;
};

}  // namespace blas_engine
