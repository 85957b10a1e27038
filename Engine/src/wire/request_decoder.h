// Decodes what frontends send on the input sockets. All bytes are untrusted.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "core/request.h"
#include "core/wave.h"

namespace blas_engine {

// First frame of a message (vLLM: EngineCoreRequestType).
enum class MessageType : uint8_t { add = 0, abort = 1, start_dp_wave = 2, utility = 3 };

// A well-formed ADD; its contents are not yet checked against the model.
struct AddMessage {
    std::unique_ptr<Request> request;
};

// An ADD that cannot be served, but whose sender can be told.
struct RejectedAdd {
    std::string id;
    int client_index = 0;
    RequestError error;
};

struct AbortMessage {
    std::vector<std::string> ids;
};

struct UtilityMessage {
    int client_index = 0;
    std::vector<uint8_t> call_id;  // msgpack integer, to be echoed
    std::string method;
    std::vector<uint8_t> arguments;  // msgpack array
};

// Nothing to act on; the text is for the log.
struct DroppedMessage {
    std::string reason;
};

using DecodedMessage = std::variant<AddMessage, RejectedAdd, AbortMessage, UtilityMessage, DroppedMessage>;

// `frames` are the parts of one message without the identity: type byte, payload, aux frames. `client_index` is the
// frontend whose socket it came from. Never throws on bad bytes.
DecodedMessage decode_message(std::span<const std::span<const uint8_t>> frames, int client_index, int num_clients);

// START_DP_WAVE from the coordinator; none if it is something else or malformed. Never throws on bad bytes.
std::optional<WaveStart> decode_wave_start(std::span<const std::span<const uint8_t>> frames);

// Message body and code for a client's mistake.
RequestError validation_error(std::string message);

}  // namespace blas_engine
