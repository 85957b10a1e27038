#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "wire/msgpack_reader.h"
#include "wire/msgpack_writer.h"

namespace blas_engine {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes write(const std::function<void(MsgpackWriter&)>& body) {
    Bytes out;
    MsgpackWriter writer(out);
    body(writer);
    return out;
}

TEST(MsgpackWriter, UsesTheShortestFormOfIntegers) {
    // Encodings from the msgpack specification.
    const std::pair<int64_t, Bytes> cases[] = {
        {0, {0x00}},
        {127, {0x7f}},
        {128, {0xcc, 0x80}},
        {255, {0xcc, 0xff}},
        {256, {0xcd, 0x01, 0x00}},
        {65536, {0xce, 0x00, 0x01, 0x00, 0x00}},
        {4294967296, {0xcf, 0, 0, 0, 1, 0, 0, 0, 0}},
        {-1, {0xff}},
        {-32, {0xe0}},
        {-33, {0xd0, 0xdf}},
        {-129, {0xd1, 0xff, 0x7f}},
        {-32769, {0xd2, 0xff, 0xff, 0x7f, 0xff}},
        {INT64_MIN, {0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0}},
    };
    for (const auto& [value, encoded] : cases) {
        Bytes out = write([&](MsgpackWriter& w) { w.integer(value); });
        EXPECT_EQ(out, encoded) << value;
        EXPECT_EQ(MsgpackReader(out).integer(), value);
    }
}

TEST(MsgpackWriter, ChoosesHeadersBySize) {
    for (size_t size : {0u, 1u, 15u, 16u, 17u, 31u, 32u, 255u, 256u, 65535u, 65536u}) {
        std::string text(size, 'x');
        Bytes out = write([&](MsgpackWriter& w) { w.string(text); });
        EXPECT_EQ(MsgpackReader(out).string(), text);
        Bytes raw(size, 7);
        Bytes ext = write([&](MsgpackWriter& w) {
            w.extension_header(3, size);
            w.bytes(raw);
        });
        MsgpackReader reader(ext);
        auto extension = reader.extension();
        EXPECT_EQ(extension.type, 3);
        EXPECT_EQ(Bytes(extension.data.begin(), extension.data.end()), raw);
        EXPECT_TRUE(reader.at_end());
        Bytes array = write([&](MsgpackWriter& w) {
            w.array(size);
            for (size_t i = 0; i < size; ++i) w.nil();
        });
        EXPECT_EQ(MsgpackReader(array).array_size(), size);
        EXPECT_EQ(MsgpackReader(array).skip().size(), array.size());
    }
}

TEST(MsgpackReader, AcceptsEveryIntegerFormAsNumber) {
    EXPECT_EQ(MsgpackReader(Bytes{0xca, 0x3f, 0x80, 0, 0}).number(), 1.0);
    EXPECT_EQ(MsgpackReader(Bytes{0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0}).number(), 1.0);
    EXPECT_EQ(MsgpackReader(Bytes{0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}).number(),
              18446744073709551615.0);
    EXPECT_EQ(MsgpackReader(Bytes{0xd0, 0x80}).number(), -128.0);
}

TEST(MsgpackReader, RefusesWrongTypes) {
    EXPECT_THROW(MsgpackReader(Bytes{0xca, 0x42, 0x20, 0, 0}).integer(), MsgpackError);  // 40.0 for an int
    EXPECT_THROW(MsgpackReader(Bytes{0xa1, 'x'}).integer(), MsgpackError);
    EXPECT_THROW(MsgpackReader(Bytes{0x01}).string(), MsgpackError);
    EXPECT_THROW(MsgpackReader(Bytes{0xc0}).map_size(), MsgpackError);
    EXPECT_THROW(MsgpackReader(Bytes{0xff}).unsigned_integer(), MsgpackError);
    EXPECT_THROW(MsgpackReader(Bytes{0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}).integer(), MsgpackError);
    EXPECT_THROW(MsgpackReader(Bytes{0xc1}).skip(), MsgpackError);
    EXPECT_THROW(MsgpackReader(Bytes{}).skip(), MsgpackError);
}

TEST(MsgpackReader, RefusesSizesBeyondTheBuffer) {
    EXPECT_THROW(MsgpackReader(Bytes{0xdd, 0xff, 0xff, 0xff, 0xff}).array_size(), MsgpackError);
    EXPECT_THROW(MsgpackReader(Bytes{0xdf, 0x00, 0x10, 0x00, 0x00, 0x01}).map_size(), MsgpackError);
    EXPECT_THROW(MsgpackReader(Bytes{0xdb, 0xff, 0xff, 0xff, 0xff, 'x'}).string(), MsgpackError);
    EXPECT_THROW(MsgpackReader(Bytes{0xc9, 0xff, 0xff, 0xff, 0xff, 0x03}).extension(), MsgpackError);
    EXPECT_THROW(MsgpackReader(Bytes{0xcd, 0x01}).integer(), MsgpackError);
    EXPECT_THROW(MsgpackReader(Bytes{0x92, 0x01}).skip(), MsgpackError);
}

TEST(MsgpackReader, SkipsDeepNestingWithoutRecursion) {
    Bytes deep(1'000'000, 0x91);
    deep.push_back(0xc0);
    EXPECT_EQ(MsgpackReader(deep).skip().size(), deep.size());
    deep.pop_back();
    EXPECT_THROW(MsgpackReader(deep).skip(), MsgpackError);
}

TEST(Utf8, AcceptsTextAndRefusesOverlongSurrogatesAndCutSequences) {
    for (const char* good :
         {"", "abc", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"}) {
        EXPECT_TRUE(is_valid_utf8(good)) << good;
    }
    for (const char* bad : {"\x80", "\xc0\x80", "\xc3", "\xe2\x82", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                            "\xf4\x90\x80\x80", "\xff", "a\xc3"}) {
        EXPECT_FALSE(is_valid_utf8(bad));
    }
}

}  // namespace
}  // namespace blas_engine
