// Read-only view of the tensors of a Hugging Face folder: model.safetensors, or shards named by an index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace blas_engine {

struct MappedFile;

enum class TensorType { bf16, f16, f32, other };

struct Tensor {
    std::string name;
    std::string file;       // path, for messages
    std::string type_name;  // as written in the file, e.g. "BF16"
    TensorType type = TensorType::other;
    std::vector<int64_t> shape;
    const std::byte* data = nullptr;
    size_t elements = 0;

    // Elements [first, first + count) as floats. The type must not be `other`.
    void read(size_t first, size_t count, float* out) const;
    std::string shape_text() const;
};

class Safetensors {
  public:
    // Maps all files and checks their headers completely: sizes, offsets, shapes against byte counts, no overlap of
    // headers and data, shards that the index names. Throws ModelError naming the file and the tensor.
    explicit Safetensors(const std::string& folder);
    ~Safetensors();
    Safetensors(const Safetensors&) = delete;
    Safetensors& operator=(const Safetensors&) = delete;

    const Tensor* find(const std::string& name) const;
    const std::map<std::string, Tensor>& tensors() const { return tensors_; }
    // Where a missing tensor was looked for, for messages.
    const std::string& source() const { return source_; }

  private:
    void add_file(const std::string& path);

    std::string source_;
    std::vector<std::unique_ptr<MappedFile>> files_;
    std::map<std::string, Tensor> tensors_;
};

// The whole file as text. Throws ModelError if it cannot be read or is larger than `limit`.
std::string read_text_file(const std::string& path, size_t limit);

}  // namespace blas_engine
