#include "wire/handshake.h"

#include <zmq.h>

#include "wire/msgpack_reader.h"
#include "wire/msgpack_writer.h"

namespace blas_engine {
namespace {

constexpr size_t max_init_bytes = 1 << 20;
constexpr int linger_ms = 5000;

std::string read_optional_string(MsgpackReader& reader) {
    return reader.try_nil() ? std::string() : std::string(reader.string());
}

std::vector<std::string> read_strings(MsgpackReader& reader) {
    size_t count = reader.array_size();
    std::vector<std::string> strings;
    for (size_t i = 0; i < count; ++i) strings.emplace_back(reader.string());
    return strings;
}

void read_addresses(MsgpackReader& reader, EngineAddresses& addresses) {
    size_t count = reader.map_size();
    for (size_t i = 0; i < count; ++i) {
        std::string_view key = reader.string();
        if (key == "inputs") {
            addresses.inputs = read_strings(reader);
        } else if (key == "outputs") {
            addresses.outputs = read_strings(reader);
        } else if (key == "coordinator_input") {
            addresses.coordinator_input = read_optional_string(reader);
        } else if (key == "coordinator_output") {
            addresses.coordinator_output = read_optional_string(reader);
        } else {
            reader.skip();
        }
    }
}

// Empty unless the ranks run in lockstep.
void read_parallel_config(MsgpackReader& reader, ParallelConfig& config) {
    const auto bounded = [&](int64_t high) {
        const int64_t value = reader.integer();
        if (value < 1 || value > high) throw MsgpackError("parallel_config is out of bounds");
        return static_cast<int>(value);
    };
    size_t count = reader.map_size();
    for (size_t i = 0; i < count; ++i) {
        std::string_view key = reader.string();
        if (key == "data_parallel_size") {
            config.size = bounded(65536);
        } else if (key == "data_parallel_master_ip") {
            config.master_ip = reader.string();
        } else if (key == "data_parallel_master_port") {
            config.master_port = bounded(65535);
        } else {
            reader.skip();
        }
    }
    if (config.size > 1 && (config.master_ip.empty() || config.master_port == 0)) {
        throw MsgpackError("parallel_config does not say where rank 0 listens");
    }
}

}  // namespace

std::vector<uint8_t> engine_identity(int engine_index) {
    return {static_cast<uint8_t>(engine_index & 0xff), static_cast<uint8_t>(engine_index >> 8 & 0xff)};
}

EngineAddresses decode_init(std::span<const uint8_t> payload) {
    MsgpackReader reader(payload);
    EngineAddresses addresses;
    size_t count = reader.map_size();
    for (size_t i = 0; i < count; ++i) {
        std::string_view key = reader.string();
        if (key == "addresses") {
            read_addresses(reader, addresses);
        } else if (key == "parallel_config" && reader.peek() == MsgpackReader::Kind::map) {
            read_parallel_config(reader, addresses.parallel);
        } else {
            reader.skip();
        }
    }
    if (addresses.inputs.empty() || addresses.inputs.size() != addresses.outputs.size()) {
        throw MsgpackError("INIT names " + std::to_string(addresses.inputs.size()) + " inputs and " +
                           std::to_string(addresses.outputs.size()) + " outputs");
    }
    return addresses;
}

Handshake::Handshake(ZmqContext& context, HandshakeOptions options)
    : options_(std::move(options)), socket_(context, ZMQ_DEALER) {
    socket_.set_identity(engine_identity(options_.engine_index));
    socket_.set(ZMQ_LINGER, linger_ms);
    socket_.connect(options_.address);
    send_status("HELLO");
}

void Handshake::send_status(const char* status, const std::string& instance_id) {
    std::vector<uint8_t> payload;
    MsgpackWriter writer(payload);
    writer.map(instance_id.empty() ? 3 : 4);
    writer.string("status");
    writer.string(status);
    writer.string("local");
    writer.boolean(options_.local);
    writer.string("headless");
    writer.boolean(options_.headless);
    if (!instance_id.empty()) {
        writer.string("instance_id");
        writer.string(instance_id);
    }
    socket_.send(payload);
}

EngineAddresses Handshake::wait_for_init() {
    if (!socket_.wait_readable(options_.init_timeout_seconds * 1000)) {
        throw ZmqError("no answer to HELLO from " + options_.address + " within " +
                       std::to_string(options_.init_timeout_seconds) +
                       " s: is a frontend or supervisor listening there?");
    }
    ZmqSocket::Message message;
    if (!socket_.receive(message, 1, max_init_bytes) || message.oversized) {
        throw ZmqError("the answer to HELLO is not an INIT message");
    }
    try {
        return decode_init(message.frames[0]);
    } catch (const MsgpackError& error) {
        throw ZmqError(std::string("the answer to HELLO is not an INIT message: ") + error.what());
    }
}

void Handshake::send_ready(const std::string& instance_id) { send_status("READY", instance_id); }

std::vector<uint8_t> encode_ready_response(const ReadyResponse& ready) {
    std::vector<uint8_t> payload;
    MsgpackWriter writer(payload);
    writer.map(31);
    auto integer = [&](std::string_view key, int64_t value) {
        writer.string(key);
        writer.integer(value);
    };
    auto string = [&](std::string_view key, std::string_view value) {
        writer.string(key);
        writer.string(value);
    };
    auto boolean = [&](std::string_view key, bool value) {
        writer.string(key);
        writer.boolean(value);
    };
    int64_t tokens = int64_t{ready.num_blocks} * ready.block_size;
    integer("max_model_len", ready.max_model_len);
    integer("num_gpu_blocks", ready.num_blocks);
    integer("block_size", ready.block_size);
    string("dtype", ready.dtype);
    string("vllm_version", ready.vllm_version);
    integer("world_size", 1);
    integer("data_parallel_size", ready.data_parallel_size);
    integer("tensor_parallel_size", 1);
    integer("pipeline_parallel_size", 1);
    integer("decode_context_parallel_size", 1);
    integer("data_parallel_rank", ready.data_parallel_rank);
    integer("max_num_seqs", ready.max_num_seqs);
    integer("max_num_batched_tokens", ready.max_num_batched_tokens);
    string("instance_id", ready.instance_id);
    boolean("supports_lora", false);
    integer("max_loras", 0);
    integer("kv_cache_size_tokens", tokens);
    writer.string("kv_cache_max_concurrency");
    writer.number(ready.max_model_len > 0 ? static_cast<double>(tokens) / ready.max_model_len : 0);
    boolean("enable_sleep_mode", true);
    boolean("supports_draft_weight_updates", false);
    integer("effective_attention_block_size", ready.block_size);
    integer("coord_store_port", 0);
    // Not vLLM's: the engine answers the utility call "heartbeat" even during a long step; it knows no grammars, which
    // most frontends could not be told with a refusal; how long loading took.
    boolean("heartbeat", true);
    boolean("structured_outputs", false);
    writer.string("load_seconds");
    writer.number(ready.load_seconds);
    for (std::string_view absent :
         {"dp_stats_address", "mamba_block_size", "kv_events_config", "weight_transfer_backend",
          "coordinator_input_address", "coordinator_output_address"}) {
        writer.string(absent);
        writer.nil();
    }
    return payload;
}

}  // namespace blas_engine
