// A strict cursor over one msgpack buffer: nothing is copied or allocated, nothing recurses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace blas_engine {

// The bytes are not the msgpack value that was asked for. `what()` names the expectation and the byte offset.
struct MsgpackError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Reads values front to back. Every container header is checked against the bytes that are left (an element takes at
// least one byte), so a small message cannot announce a huge array. Views returned point into the caller's buffer.
class MsgpackReader {
  public:
    enum class Kind { nil, boolean, integer, floating, string, binary, array, map, extension };

    explicit MsgpackReader(std::span<const uint8_t> bytes)
        : begin_(bytes.data()), cursor_(bytes.data()), end_(bytes.data() + bytes.size()) {}

    bool at_end() const { return cursor_ == end_; }
    size_t offset() const { return static_cast<size_t>(cursor_ - begin_); }
    // Kind of the next value, without reading it.
    Kind peek() const;

    // Consumes a nil if one comes next.
    bool try_nil();
    bool boolean();
    // Any integer that fits; floats are refused, as vLLM's decoder refuses them for int fields.
    int64_t integer();
    uint64_t unsigned_integer();
    // Integers, float32 and float64.
    double number();
    // UTF-8 is not checked here, see `is_valid_utf8`.
    std::string_view string();
    size_t array_size();
    size_t map_size();
    struct Extension {
        int8_t type;
        std::span<const uint8_t> data;
    };
    Extension extension();
    // Steps over one value of any kind, and returns its bytes.
    std::span<const uint8_t> skip();

    [[noreturn]] void fail(const char* expectation) const;

  private:
    uint8_t next_byte();
    uint64_t big_endian(size_t bytes);
    std::span<const uint8_t> take(size_t bytes);
    size_t checked_count(uint64_t count, size_t bytes_per_element) const;

    const uint8_t* begin_;
    const uint8_t* cursor_;
    const uint8_t* end_;
};

bool is_valid_utf8(std::string_view text);

}  // namespace blas_engine
