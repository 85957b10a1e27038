// libFuzzer: what a supervisor or coordinator might send. The first byte chooses INIT, a command or START_DP_WAVE.
#include <cstdint>
#include <span>
#include <vector>

#include "wire/control.h"
#include "wire/handshake.h"
#include "wire/msgpack_reader.h"
#include "wire/request_decoder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace blas_engine;
    if (size == 0) return 0;
    const std::vector<uint8_t> payload(data + 1, data + size);  // with an end that a sanitizer guards
    try {
        switch (data[0]) {
            case 0:
                decode_init(payload);
                break;
            case 1:
                decode_control(payload);
                break;
            default: {
                const std::span<const uint8_t> frames[] = {{data, 1}, payload};
                decode_wave_start(frames);
            }
        }
    } catch (const MsgpackError&) {
    }
    return 0;
}
