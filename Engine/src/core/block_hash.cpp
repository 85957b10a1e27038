#include "core/block_hash.h"

#include <sys/random.h>

#include <bit>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace blas_engine {
namespace {

struct SipState {
    uint64_t v0, v1, v2, v3;

    void round() {
        v0 += v1;
        v1 = std::rotl(v1, 13) ^ v0;
        v0 = std::rotl(v0, 32);
        v2 += v3;
        v3 = std::rotl(v3, 16) ^ v2;
        v0 += v3;
        v3 = std::rotl(v3, 21) ^ v0;
        v2 += v1;
        v1 = std::rotl(v1, 17) ^ v2;
        v2 = std::rotl(v2, 32);
    }
    void absorb(uint64_t word) {
        v3 ^= word;
        round();
        round();
        v0 ^= word;
    }
    uint64_t finish() {
        for (int i = 0; i < 4; ++i) round();
        return v0 ^ v1 ^ v2 ^ v3;
    }
};

}  // namespace

BlockHasher BlockHasher::random() {
    uint64_t key[2];
    if (getrandom(key, sizeof key, 0) != sizeof key) throw std::runtime_error("no random bytes from the system");
    return {key[0], key[1]};
}

BlockHash BlockHasher::hash(std::span<const uint8_t> bytes) const {
    SipState state{key0_ ^ 0x736f6d6570736575, key1_ ^ 0x646f72616e646f6d ^ 0xee, key0_ ^ 0x6c7967656e657261,
                   key1_ ^ 0x7465646279746573};
    size_t whole = bytes.size() / 8 * 8;
    for (size_t i = 0; i < whole; i += 8) {
        uint64_t word;
        std::memcpy(&word, bytes.data() + i, 8);
        state.absorb(word);
    }
    uint64_t last = static_cast<uint64_t>(bytes.size()) << 56;
    for (size_t i = whole; i < bytes.size(); ++i) last |= static_cast<uint64_t>(bytes[i]) << 8 * (i - whole);
    state.absorb(last);
    state.v2 ^= 0xee;
    BlockHash result;
    result.low = state.finish();
    state.v1 ^= 0xdd;
    result.high = state.finish();
    return result;
}

BlockHash BlockHasher::root(std::string_view cache_salt) const {
    return hash({reinterpret_cast<const uint8_t*>(cache_salt.data()), cache_salt.size()});
}

BlockHash BlockHasher::chain(const BlockHash& parent, std::span<const int32_t> tokens) const {
    thread_local std::vector<uint8_t> message;
    message.resize(sizeof parent + tokens.size_bytes());
    std::memcpy(message.data(), &parent, sizeof parent);
    std::memcpy(message.data() + sizeof parent, tokens.data(), tokens.size_bytes());
    return hash(message);
}

}  // namespace blas_engine
