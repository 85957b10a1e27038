// Appends msgpack values to a byte buffer that the caller reuses from message to message.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace blas_engine {

class MsgpackWriter {
  public:
    explicit MsgpackWriter(std::vector<uint8_t>& out) : out_(out) {}

    void nil() { byte(0xc0); }
    void boolean(bool value) { byte(value ? 0xc3 : 0xc2); }

    void unsigned_integer(uint64_t value) {
        if (value < 0x80) {
            byte(static_cast<uint8_t>(value));
        } else if (value <= 0xff) {
            tagged<uint8_t>(0xcc, value);
        } else if (value <= 0xffff) {
            tagged<uint16_t>(0xcd, value);
        } else if (value <= 0xffffffff) {
            tagged<uint32_t>(0xce, value);
        } else {
            tagged<uint64_t>(0xcf, value);
        }
    }

    void integer(int64_t value) {
        if (value >= 0) {
            unsigned_integer(static_cast<uint64_t>(value));
        } else if (value >= -32) {
            byte(static_cast<uint8_t>(value));
        } else if (value >= INT8_MIN) {
            tagged<uint8_t>(0xd0, static_cast<uint64_t>(value));
        } else if (value >= INT16_MIN) {
            tagged<uint16_t>(0xd1, static_cast<uint64_t>(value));
        } else if (value >= INT32_MIN) {
            tagged<uint32_t>(0xd2, static_cast<uint64_t>(value));
        } else {
            tagged<uint64_t>(0xd3, static_cast<uint64_t>(value));
        }
    }

    void number(double value) { tagged<uint64_t>(0xcb, std::bit_cast<uint64_t>(value)); }

    void string(std::string_view text) {
        header(text.size(), 0xa0, 32, 0xd9);
        bytes({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    }

    void array(size_t count) { container(count, 0x90, 0xdc); }
    void map(size_t count) { container(count, 0x80, 0xde); }

    // An extension header; `size` bytes must follow through `bytes`.
    void extension_header(int8_t type, size_t size) {
        if (std::has_single_bit(size) && size <= 16) {
            byte(static_cast<uint8_t>(0xd4 + std::countr_zero(size)));
        } else {
            header(size, 0, 0, 0xc7);
        }
        byte(static_cast<uint8_t>(type));
    }

    // Appends bytes as they are: the body of an extension, or values that are already encoded.
    void bytes(std::span<const uint8_t> raw) {
        if (raw.empty()) return;
        size_t old_size = out_.size();
        out_.resize(old_size + raw.size());
        std::memcpy(out_.data() + old_size, raw.data(), raw.size());
    }

  private:
    void byte(uint8_t value) { out_.push_back(value); }

    template <class T>
    void tagged(uint8_t tag, uint64_t value) {
        uint8_t encoded[1 + sizeof(T)];
        encoded[0] = tag;
        for (size_t i = 0; i < sizeof(T); ++i) encoded[1 + i] = static_cast<uint8_t>(value >> 8 * (sizeof(T) - 1 - i));
        bytes(encoded);
    }

    void header(size_t size, uint8_t fix, size_t fix_limit, uint8_t tag8) {
        if (size < fix_limit) {
            byte(static_cast<uint8_t>(fix | size));
        } else if (size <= 0xff) {
            tagged<uint8_t>(tag8, size);
        } else if (size <= 0xffff) {
            tagged<uint16_t>(static_cast<uint8_t>(tag8 + 1), size);
        } else {
            tagged<uint32_t>(static_cast<uint8_t>(tag8 + 2), size);
        }
    }

    void container(size_t count, uint8_t fix, uint8_t tag16) {
        if (count < 16) {
            byte(static_cast<uint8_t>(fix | count));
        } else if (count <= 0xffff) {
            tagged<uint16_t>(tag16, count);
        } else {
            tagged<uint32_t>(static_cast<uint8_t>(tag16 + 1), count);
        }
    }

    std::vector<uint8_t>& out_;
};

}  // namespace blas_engine
