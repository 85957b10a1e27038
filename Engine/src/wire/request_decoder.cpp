#include "wire/request_decoder.h"

#include <cmath>
#include <limits>

#include "wire/msgpack_reader.h"
#include "wire/sampling_decoder.h"

namespace blas_engine {
namespace {

constexpr size_t max_request_id_bytes = 1024;
// Positions of EngineCoreRequest up to data_parallel_rank have no default.
constexpr size_t required_elements = 9;

// Steps over an optional element and names it if it asks for something the engine does not have.
void refuse_unless_nil(MsgpackReader& reader, const char* feature, SamplingParams& params) {
    if (reader.try_nil()) return;
    bool empty = (reader.peek() == MsgpackReader::Kind::array && MsgpackReader(reader).array_size() == 0);
    reader.skip();
    if (!empty && params.unsupported.empty()) params.unsupported = feature;
}

void read_prompt(MsgpackReader& reader, Request& request) {
    if (reader.try_nil()) return;
    size_t count = reader.array_size();
    request.tokens.reserve(count);
    for (size_t i = 0; i < count; ++i) request.tokens.push_back(read_token_id(reader));
    request.prompt_length = static_cast<int>(count);
}

// Echoed to the frontend byte for byte, so it must be what it claims: a map from text to text.
void read_trace_headers(MsgpackReader& reader, Request& request) {
    if (reader.try_nil()) return;
    MsgpackReader start = reader;
    size_t count = reader.map_size();
    for (size_t i = 0; i < 2 * count; ++i) {
        if (!is_valid_utf8(reader.string())) reader.fail("UTF-8 in trace_headers");
    }
    auto raw = start.skip();
    request.trace_headers.assign(raw.begin(), raw.end());
}

// Reads the element at `position`, the reader standing on it.
void read_add_element(MsgpackReader& reader, size_t position, Request& request) {
    switch (position) {
        case 1:
            return read_prompt(reader, request);
        case 2:
            return refuse_unless_nil(reader, "Multimodal input", request.params);
        case 3:
            if (reader.try_nil()) {
                if (request.params.unsupported.empty())
                    request.params.unsupported = "A request without sampling_params";
                return;
            }
            return read_sampling_params(reader, request.params);
        case 4:
            if (!reader.try_nil()) {
                reader.skip();
                request.params.unsupported = "Pooling";
            }
            return;
        case 5:
            request.arrival_time = reader.number();
            if (std::isnan(request.arrival_time)) request.arrival_time = 0;
            return;
        case 6:
            return refuse_unless_nil(reader, "LoRA", request.params);
        case 7:
            if (!reader.try_nil()) request.cache_salt = reader.string();
            return;
        case 9:
            return refuse_unless_nil(reader, "prompt_embeds", request.params);
        case 11:
            request.client_index = static_cast<int>(std::min<uint64_t>(reader.unsigned_integer(), INT32_MAX));
            return;
        case 12:
            request.wave = std::clamp<int64_t>(reader.integer(), 0, INT64_MAX / 2);
            return;
        case 13:
            request.priority = reader.integer();
            return;
        case 14:
            return read_trace_headers(reader, request);
        case 15:
            if (reader.boolean()) request.params.unsupported = "A resumable (streaming input) request";
            return;
        case 19:
            request.abort_immediately = reader.boolean();
            return;
        default:
            // data_parallel_rank has done its work in the frontend; ids, reasoning state, session and kv_hints describe
            // features that only act together with refused ones.
            reader.skip();
            return;
    }
}

DecodedMessage decode_add(std::span<const uint8_t> payload, int client_index, int num_clients) {
    MsgpackReader reader(payload);
    auto request = std::make_unique<Request>();
    size_t count = 0;
    try {
        count = reader.array_size();
        if (count == 0) return DroppedMessage{"ADD without a request id"};
        std::string_view id = reader.string();
        if (id.empty() || id.size() > max_request_id_bytes || !is_valid_utf8(id)) {
            return DroppedMessage{"ADD with an unusable request id"};
        }
        request->id = id;
    } catch (const MsgpackError& error) {
        return DroppedMessage{std::string("ADD without a readable request id: ") + error.what()};
    }
    request->client_index = client_index;
    try {
        if (count < required_elements) {
            throw MsgpackError("EngineCoreRequest has " + std::to_string(count) + " elements, " +
                               std::to_string(required_elements) + " are required");
        }
        for (size_t position = 1; position < count; ++position) read_add_element(reader, position, *request);
        if (!reader.at_end()) reader.fail("the end of the message");
    } catch (const std::exception& error) {  // malformed, or too large to hold
        return RejectedAdd{request->id, client_index,
                           validation_error(std::string("Malformed request: ") + error.what() + ".")};
    }
    if (request->client_index >= num_clients) request->client_index = client_index;
    return AddMessage{std::move(request)};
}

DecodedMessage decode_abort(std::span<const uint8_t> payload) {
    try {
        MsgpackReader reader(payload);
        AbortMessage message;
        size_t count = reader.array_size();
        message.ids.reserve(count);
        for (size_t i = 0; i < count; ++i) message.ids.emplace_back(reader.string());
        return message;
    } catch (const MsgpackError& error) {
        return DroppedMessage{std::string("malformed ABORT: ") + error.what()};
    }
}

DecodedMessage decode_utility(std::span<const uint8_t> payload, int client_index, int num_clients) {
    try {
        MsgpackReader reader(payload);
        if (reader.array_size() < 4) return DroppedMessage{"UTILITY with fewer than 4 elements"};
        UtilityMessage message;
        uint64_t client = reader.unsigned_integer();
        message.client_index = client < static_cast<uint64_t>(num_clients) ? static_cast<int>(client) : client_index;
        if (reader.peek() != MsgpackReader::Kind::integer) reader.fail("an integer call id");
        auto call_id = reader.skip();
        message.call_id.assign(call_id.begin(), call_id.end());
        message.method = reader.string();
        if (!is_valid_utf8(message.method)) return DroppedMessage{"UTILITY with an unusable method name"};
        if (reader.peek() != MsgpackReader::Kind::array) reader.fail("an array of arguments");
        auto arguments = reader.skip();
        message.arguments.assign(arguments.begin(), arguments.end());
        return message;
    } catch (const MsgpackError& error) {
        return DroppedMessage{std::string("malformed UTILITY: ") + error.what()};
    }
}

}  // namespace

std::optional<WaveStart> decode_wave_start(std::span<const std::span<const uint8_t>> frames) {
    if (frames.size() != 2 || frames[0].size() != 1 ||
        frames[0][0] != static_cast<uint8_t>(MessageType::start_dp_wave)) {
        return std::nullopt;
    }
    try {
        MsgpackReader reader(frames[1]);
        if (reader.array_size() != 2) return std::nullopt;
        WaveStart start{reader.integer(), std::nullopt};
        if (!reader.try_nil()) start.excluded_rank = reader.integer();
        if (start.wave < 0 || start.wave > INT64_MAX / 2 || !reader.at_end()) return std::nullopt;
        return start;
    } catch (const MsgpackError&) {
        return std::nullopt;
    }
}

RequestError validation_error(std::string message) { return {"validation_error", std::move(message), false}; }

DecodedMessage decode_message(std::span<const std::span<const uint8_t>> frames, int client_index, int num_clients) {
    if (frames.size() < 2 || frames[0].size() != 1) return DroppedMessage{"message without a type byte and a payload"};
    switch (frames[0][0]) {
        case static_cast<uint8_t>(MessageType::add):
            return decode_add(frames[1], client_index, num_clients);
        case static_cast<uint8_t>(MessageType::abort):
            return decode_abort(frames[1]);
        case static_cast<uint8_t>(MessageType::utility):
            return decode_utility(frames[1], client_index, num_clients);
        default:
            return DroppedMessage{"message of unknown type " + std::to_string(frames[0][0])};
    }
}

}  // namespace blas_engine
