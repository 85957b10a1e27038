#include "wire/msgpack_reader.h"

#include <bit>

namespace blas_engine {

void MsgpackReader::fail(const char* expectation) const {
    throw MsgpackError(std::string("expected ") + expectation + " at byte " + std::to_string(offset()));
}

uint8_t MsgpackReader::next_byte() {
    if (cursor_ == end_) fail("more bytes");
    return *cursor_++;
}

std::span<const uint8_t> MsgpackReader::take(size_t bytes) {
    if (bytes > static_cast<size_t>(end_ - cursor_)) fail("more bytes");
    std::span<const uint8_t> view(cursor_, bytes);
    cursor_ += bytes;
    return view;
}

uint64_t MsgpackReader::big_endian(size_t bytes) {
    uint64_t value = 0;
    for (uint8_t byte : take(bytes)) value = value << 8 | byte;
    return value;
}

size_t MsgpackReader::checked_count(uint64_t count, size_t bytes_per_element) const {
    if (count > static_cast<size_t>(end_ - cursor_) / bytes_per_element) fail("as many elements as announced");
    return static_cast<size_t>(count);
}

MsgpackReader::Kind MsgpackReader::peek() const {
    if (cursor_ == end_) fail("more bytes");
    uint8_t tag = *cursor_;
    if (tag < 0x80 || tag >= 0xe0) return Kind::integer;
    if (tag < 0x90) return Kind::map;
    if (tag < 0xa0) return Kind::array;
    if (tag < 0xc0) return Kind::string;
    switch (tag) {
        case 0xc0:
            return Kind::nil;
        case 0xc2:
        case 0xc3:
            return Kind::boolean;
        case 0xc4:
        case 0xc5:
        case 0xc6:
            return Kind::binary;
        case 0xca:
        case 0xcb:
            return Kind::floating;
        case 0xd9:
        case 0xda:
        case 0xdb:
            return Kind::string;
        case 0xdc:
        case 0xdd:
            return Kind::array;
        case 0xde:
        case 0xdf:
            return Kind::map;
        case 0xc1:
            fail("a value (0xc1 is never used)");
        default:
            return tag >= 0xcc && tag <= 0xd3 ? Kind::integer : Kind::extension;
    }
}

bool MsgpackReader::try_nil() {
    if (cursor_ == end_ || *cursor_ != 0xc0) return false;
    ++cursor_;
    return true;
}

bool MsgpackReader::boolean() {
    if (peek() != Kind::boolean) fail("a boolean");
    return *cursor_++ == 0xc3;
}

int64_t MsgpackReader::integer() {
    if (peek() != Kind::integer) fail("an integer");
    uint8_t tag = *cursor_;
    if (tag < 0x80 || tag >= 0xe0) return static_cast<int8_t>(next_byte());
    if (tag <= 0xcf) {
        uint64_t value = unsigned_integer();
        if (value > static_cast<uint64_t>(INT64_MAX)) fail("an integer below 2^63");
        return static_cast<int64_t>(value);
    }
    ++cursor_;
    switch (tag) {
        case 0xd0:
            return static_cast<int8_t>(big_endian(1));
        case 0xd1:
            return static_cast<int16_t>(big_endian(2));
        case 0xd2:
            return static_cast<int32_t>(big_endian(4));
        default:
            return static_cast<int64_t>(big_endian(8));
    }
}

uint64_t MsgpackReader::unsigned_integer() {
    if (peek() != Kind::integer) fail("an integer");
    uint8_t tag = *cursor_;
    if (tag >= 0xcc && tag <= 0xcf) {
        ++cursor_;
        return big_endian(size_t{1} << (tag - 0xcc));
    }
    int64_t value = integer();
    if (value < 0) fail("an integer of 0 or more");
    return static_cast<uint64_t>(value);
}

double MsgpackReader::number() {
    Kind kind = peek();
    if (kind == Kind::integer) {
        if (*cursor_ == 0xcf) return static_cast<double>(unsigned_integer());
        return static_cast<double>(integer());
    }
    if (kind != Kind::floating) fail("a number");
    if (*cursor_++ == 0xca) return std::bit_cast<float>(static_cast<uint32_t>(big_endian(4)));
    return std::bit_cast<double>(big_endian(8));
}

std::string_view MsgpackReader::string() {
    if (peek() != Kind::string) fail("a string");
    uint8_t tag = *cursor_++;
    size_t size = tag < 0xc0 ? tag & 0x1f : static_cast<size_t>(big_endian(size_t{1} << (tag - 0xd9)));
    std::span<const uint8_t> view = take(size);
    return {reinterpret_cast<const char*>(view.data()), view.size()};
}

size_t MsgpackReader::array_size() {
    if (peek() != Kind::array) fail("an array");
    uint8_t tag = *cursor_++;
    return checked_count(tag < 0xa0 ? tag & 0x0f : big_endian(tag == 0xdc ? 2 : 4), 1);
}

size_t MsgpackReader::map_size() {
    if (peek() != Kind::map) fail("a map");
    uint8_t tag = *cursor_++;
    return checked_count(tag < 0x90 ? tag & 0x0f : big_endian(tag == 0xde ? 2 : 4), 2);
}

MsgpackReader::Extension MsgpackReader::extension() {
    if (peek() != Kind::extension) fail("an extension value");
    uint8_t tag = *cursor_++;
    size_t size = tag >= 0xd4 ? size_t{1} << (tag - 0xd4) : static_cast<size_t>(big_endian(size_t{1} << (tag - 0xc7)));
    auto type = static_cast<int8_t>(next_byte());
    return {type, take(size)};
}

std::span<const uint8_t> MsgpackReader::skip() {
    const uint8_t* start = cursor_;
    // Counting open elements instead of recursing: nesting depth costs nothing, and every counted element must be
    // backed by a byte of input, so the loop is bounded by the size of the message.
    uint64_t open = 1;
    while (open > 0) {
        --open;
        switch (peek()) {
            case Kind::array:
                open += array_size();
                break;
            case Kind::map:
                open += 2 * static_cast<uint64_t>(map_size());
                break;
            case Kind::string:
                string();
                break;
            case Kind::extension:
                extension();
                break;
            case Kind::binary: {
                uint8_t tag = *cursor_++;
                take(static_cast<size_t>(big_endian(size_t{1} << (tag - 0xc4))));
                break;
            }
            case Kind::integer:
                if (*cursor_ >= 0xcc && *cursor_ <= 0xd3) {
                    uint8_t tag = *cursor_++;
                    take(size_t{1} << (tag >= 0xd0 ? tag - 0xd0 : tag - 0xcc));
                } else {
                    ++cursor_;
                }
                break;
            case Kind::floating:
                number();
                break;
            case Kind::nil:
            case Kind::boolean:
                ++cursor_;
                break;
        }
    }
    return {start, cursor_};
}

bool is_valid_utf8(std::string_view text) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    size_t size = text.size();
    for (size_t i = 0; i < size;) {
        uint8_t lead = bytes[i];
        size_t extra = lead < 0x80                   ? 0
                       : lead >= 0xc2 && lead < 0xe0 ? 1
                       : lead >= 0xe0 && lead < 0xf0 ? 2
                       : lead >= 0xf0 && lead < 0xf5 ? 3
                                                     : 4;
        if (extra == 4 || extra >= size - i) return false;
        for (size_t k = 1; k <= extra; ++k) {
            if ((bytes[i + k] & 0xc0) != 0x80) return false;
        }
        if (lead == 0xe0 && bytes[i + 1] < 0xa0) return false;  // overlong
        if (lead == 0xed && bytes[i + 1] > 0x9f) return false;  // surrogate
        if (lead == 0xf0 && bytes[i + 1] < 0x90) return false;  // overlong
        if (lead == 0xf4 && bytes[i + 1] > 0x8f) return false;  // above U+10FFFF
        i += extra + 1;
    }
    return true;
}

}  // namespace blas_engine
