// What a supervisor may say to the engine after READY, on the handshake socket. An extension of this engine
// (--control): vLLM closes that socket.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace blas_engine {

// Places for frontends, over all of those that ever were connected at the same time.
inline constexpr int max_controlled_clients = 64;

struct ControlCommand {
    enum class Kind {
        connect_frontend,     // one more frontend is at these addresses
        disconnect_frontend,  // it is gone for good
    };
    Kind kind = Kind::connect_frontend;
    int client_index = -1;
    std::string input;
    std::string output;
};

// A map with "command" and its arguments. Throws MsgpackError.
ControlCommand decode_control(std::span<const uint8_t> payload);

// {"status": ..., "client_index": ..., "error": text or nil}. FRONTEND_REGISTERED: its socket took the registration;
// FRONTEND_LOST: its socket is closed, its requests are aborted; FRONTEND_CLOSED: answer to disconnect_frontend;
// CONTROL_ERROR: a command was refused.
std::vector<uint8_t> encode_control_event(std::string_view status, int client_index, std::string_view error = {});

}  // namespace blas_engine
