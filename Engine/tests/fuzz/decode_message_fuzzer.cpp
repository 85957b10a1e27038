// libFuzzer: the first byte is the message type, the rest the payload that a frontend might send.
#include <cstdint>
#include <span>
#include <variant>

#include "core/request_validation.h"
#include "wire/request_decoder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace blas_engine;
    if (size == 0) return 0;
    const std::span<const uint8_t> frames[] = {{data, 1}, {data + 1, size - 1}};
    DecodedMessage decoded = decode_message(frames, 0, 2);
    if (auto* add = std::get_if<AddMessage>(&decoded)) validate_request(*add->request, {32000, 4096});
    return 0;
}
