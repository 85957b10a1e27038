#include "model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "json/json.h"
#include "kernels/bfloat16.h"
#include "model/model.h"

namespace blas_engine {

struct MappedFile {
    const std::byte* data = nullptr;
    size_t size = 0;
    ~MappedFile() {
        if (data != nullptr) munmap(const_cast<std::byte*>(data), size);
    }
};

namespace {

constexpr size_t max_header_bytes = size_t{100} << 20;  // the limit of the safetensors library
constexpr size_t max_index_bytes = size_t{64} << 20;

size_t type_bytes(const std::string& name) {
    static const std::map<std::string, size_t> sizes = {
        {"F64", 8}, {"I64", 8}, {"U64", 8}, {"F32", 4}, {"I32", 4},     {"U32", 4},     {"F16", 2},  {"BF16", 2},
        {"I16", 2}, {"U16", 2}, {"I8", 1},  {"U8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"BOOL", 1},
    };
    const auto found = sizes.find(name);
    return found == sizes.end() ? 0 : found->second;
}

struct Descriptor {
    int fd = -1;
    ~Descriptor() {
        if (fd >= 0) close(fd);
    }
};

std::unique_ptr<MappedFile> map_file(const std::string& path) {
    Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    struct stat info {};
    if (file.fd < 0 || fstat(file.fd, &info) != 0) throw ModelError(path + ": " + std::strerror(errno));
    if (!S_ISREG(info.st_mode)) throw ModelError(path + ": not a regular file");
    auto mapped = std::make_unique<MappedFile>();
    const auto size = static_cast<size_t>(info.st_size);
    if (size < 8) throw ModelError(path + ": truncated: " + std::to_string(size) + " bytes, a header needs at least 8");
    void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
    if (data == MAP_FAILED) throw ModelError(path + ": cannot map the file: " + std::strerror(errno));
    madvise(data, size, MADV_WILLNEED);
    mapped->data = static_cast<const std::byte*>(data);
    mapped->size = size;
    return mapped;
}

uint64_t little_endian(const std::byte* p) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; --i) value = value << 8 | std::to_integer<uint64_t>(p[i]);
    return value;
}

Tensor parse_tensor(const std::string& path, const std::string& name, const Json& entry, const std::byte* data,
                    size_t data_size) {
    const auto fail = [&](const std::string& what) -> ModelError {
        return ModelError(path + ": tensor " + name + ": " + what);
    };
    Tensor tensor;
    tensor.name = name;
    tensor.file = path;
    const Json* type = entry.find("dtype");
    const Json* shape = entry.find("shape");
    const Json* offsets = entry.find("data_offsets");
    if (type == nullptr || type->string() == nullptr) throw fail("no dtype");
    if (shape == nullptr || shape->array() == nullptr) throw fail("no shape");
    if (offsets == nullptr || offsets->array() == nullptr || offsets->array()->size() != 2) {
        throw fail("no data_offsets");
    }
    tensor.type_name = *type->string();
    tensor.type = tensor.type_name == "BF16"  ? TensorType::bf16
                  : tensor.type_name == "F16" ? TensorType::f16
                  : tensor.type_name == "F32" ? TensorType::f32
                                              : TensorType::other;
    size_t elements = 1;
    for (const Json& dimension : *shape->array()) {
        const auto value = dimension.integer();
        if (!value || *value < 0) throw fail("bad shape");
        if (__builtin_mul_overflow(elements, static_cast<size_t>(*value), &elements)) throw fail("shape too large");
        tensor.shape.push_back(*value);
    }
    tensor.elements = elements;
    const auto begin = (*offsets->array())[0].integer(), end = (*offsets->array())[1].integer();
    if (!begin || !end || *begin < 0 || *end < *begin) throw fail("bad data_offsets");
    if (static_cast<size_t>(*end) > data_size) {
        throw fail("its data ends at byte " + std::to_string(*end) + " but the file holds only " +
                   std::to_string(data_size) + " bytes of data (truncated download?)");
    }
    size_t bytes = 0;
    const size_t element = type_bytes(tensor.type_name);
    if (element == 0) {
        // Newer formats may pack several numbers into a byte. Only an error if the model needs the tensor.
    } else if (__builtin_mul_overflow(elements, element, &bytes) || bytes != static_cast<size_t>(*end - *begin)) {
        throw fail("shape " + tensor.shape_text() + " of " + tensor.type_name + " does not fit its " +
                   std::to_string(*end - *begin) + " bytes");
    }
    tensor.data = data + *begin;
    return tensor;
}

}  // namespace

void Tensor::read(size_t first, size_t count, float* out) const {
    // Offsets in a safetensors file need not be aligned to the element size.
    if (type == TensorType::f32) {
        std::memcpy(out, data + first * 4, count * 4);
        return;
    }
    const std::byte* in = data + first * 2;
    for (size_t i = 0; i < count; ++i, in += 2) {
        uint16_t bits;
        std::memcpy(&bits, in, 2);
        out[i] = type == TensorType::bf16 ? bf16_to_float(bits) : f16_to_float(bits);
    }
}

std::string Tensor::shape_text() const {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

std::string read_text_file(const std::string& path, size_t limit) {
    Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    struct stat info {};
    if (file.fd < 0 || fstat(file.fd, &info) != 0) throw ModelError(path + ": " + std::strerror(errno));
    if (!S_ISREG(info.st_mode)) throw ModelError(path + ": not a regular file");
    if (static_cast<size_t>(info.st_size) > limit) throw ModelError(path + ": too large");
    std::string text(static_cast<size_t>(info.st_size), '\0');
    size_t done = 0;
    while (done < text.size()) {
        const ssize_t got = ::read(file.fd, text.data() + done, text.size() - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw ModelError(path + ": " + std::strerror(errno));
        if (got == 0) break;
        done += static_cast<size_t>(got);
    }
    text.resize(done);
    return text;
}

Safetensors::Safetensors(const std::string& folder) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    const std::string single = folder + "/model.safetensors", index = single + ".index.json";
    if (fs::exists(single, ignored)) {
        source_ = single;
        add_file(single);
        return;
    }
    if (!fs::exists(index, ignored)) {
        throw ModelError(folder + ": neither model.safetensors nor model.safetensors.index.json is there" +
                         (fs::exists(folder + "/pytorch_model.bin", ignored)
                              ? " (pytorch_model.bin is not supported; convert it to safetensors)"
                              : ""));
    }
    source_ = index;
    Json document;
    try {
        document = Json::parse(read_text_file(index, max_index_bytes));
    } catch (const JsonError& error) {
        throw ModelError(index + ": " + error.what());
    }
    const Json* map = document.find("weight_map");
    if (map == nullptr || map->object() == nullptr) throw ModelError(index + ": no weight_map");
    std::set<std::string> shards;
    for (const auto& [name, shard] : *map->object()) {
        if (shard.string() == nullptr || shard.string()->empty() || shard.string()->find('/') != std::string::npos) {
            throw ModelError(index + ": tensor " + name + ": bad file name");
        }
        shards.insert(*shard.string());
    }
    for (const std::string& shard : shards) add_file(folder + "/" + shard);
    for (const auto& [name, shard] : *map->object()) {
        const auto found = tensors_.find(name);
        if (found == tensors_.end()) {
            throw ModelError(folder + "/" + *shard.string() + ": tensor " + name + " is missing, " + index +
                             " names it");
        }
    }
}

Safetensors::~Safetensors() = default;

void Safetensors::add_file(const std::string& path) {
    auto file = map_file(path);
    const uint64_t header = little_endian(file->data);
    if (header > max_header_bytes)
        throw ModelError(path + ": not a safetensors file (header size out of bounds); a Git LFS pointer?");
    if (header > file->size - 8) {
        throw ModelError(path + ": truncated: the header has " + std::to_string(header) + " bytes, the file " +
                         std::to_string(file->size));
    }
    const std::byte* data = file->data + 8 + header;
    const size_t data_size = file->size - 8 - header;
    Json document;
    try {
        document = Json::parse({reinterpret_cast<const char*>(file->data + 8), header});
    } catch (const JsonError& error) {
        throw ModelError(path + ": bad safetensors header: " + error.what());
    }
    if (document.object() == nullptr) throw ModelError(path + ": bad safetensors header: not an object");
    for (const auto& [name, entry] : *document.object()) {
        if (name == "__metadata__") continue;
        if (!tensors_.emplace(name, parse_tensor(path, name, entry, data, data_size)).second) {
            throw ModelError(path + ": tensor " + name + " appears twice");
        }
    }
    files_.push_back(std::move(file));
}

const Tensor* Safetensors::find(const std::string& name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace blas_engine
