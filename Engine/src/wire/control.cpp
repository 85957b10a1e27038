#include "wire/control.h"

#include "wire/msgpack_reader.h"
#include "wire/msgpack_writer.h"

namespace blas_engine {

ControlCommand decode_control(std::span<const uint8_t> payload) {
    MsgpackReader reader(payload);
    ControlCommand command;
    std::string_view name;
    size_t count = reader.map_size();
    for (size_t i = 0; i < count; ++i) {
        std::string_view key = reader.string();
        if (key == "command") {
            name = reader.string();
        } else if (key == "client_index") {
            uint64_t index = reader.unsigned_integer();
            if (index >= max_controlled_clients) throw MsgpackError("client_index is beyond the limit");
            command.client_index = static_cast<int>(index);
        } else if (key == "input") {
            command.input = reader.string();
        } else if (key == "output") {
            command.output = reader.string();
        } else {
            reader.skip();
        }
    }
    if (command.client_index < 0) throw MsgpackError("client_index is missing");
    if (name == "connect_frontend") {
        if (command.input.empty() || command.output.empty()) throw MsgpackError("an address is missing");
    } else if (name == "disconnect_frontend") {
        command.kind = ControlCommand::Kind::disconnect_frontend;
    } else {
        throw MsgpackError("unknown command");
    }
    return command;
}

std::vector<uint8_t> encode_control_event(std::string_view status, int client_index, std::string_view error) {
    std::vector<uint8_t> payload;
    MsgpackWriter writer(payload);
    writer.map(3);
    writer.string("status");
    writer.string(status);
    writer.string("client_index");
    writer.integer(client_index);
    writer.string("error");
    if (error.empty()) {
        writer.nil();
    } else {
        writer.string(error);
    }
    return payload;
}

}  // namespace blas_engine
