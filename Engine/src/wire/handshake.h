// The startup conversation with whoever owns the handshake socket: HELLO, INIT, READY.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "wire/zmq_socket.h"

namespace blas_engine {

// The 2-byte little-endian rank that names this engine on every socket.
std::vector<uint8_t> engine_identity(int engine_index);

// Ranks that run in lockstep (vLLM: mixture-of-experts data parallelism); a size of 1 for independent engines.
struct ParallelConfig {
    int size = 1;
    std::string master_ip;  // where rank 0 listens for the others
    int master_port = 0;
};

// Where the data plane is (vLLM: EngineZmqAddresses). inputs[i] and outputs[i] belong to client i.
struct EngineAddresses {
    std::vector<std::string> inputs;
    std::vector<std::string> outputs;
    std::string coordinator_input;   // empty without a DP coordinator
    std::string coordinator_output;  // likewise
    ParallelConfig parallel;

    // Waves need somebody who starts them.
    bool lockstep() const { return parallel.size > 1 && !coordinator_input.empty() && !coordinator_output.empty(); }
};

struct HandshakeOptions {
    std::string address;
    int engine_index = 0;
    bool local = false;     // started by the process it shakes hands with
    bool headless = false;  // started on its own to join a remote frontend
    int init_timeout_seconds = 300;
};

class Handshake {
  public:
    // Connects and sends HELLO.
    Handshake(ZmqContext& context, HandshakeOptions options);
    // Waits for INIT. Throws ZmqError with a message for the user if none comes in time or it is malformed.
    EngineAddresses wait_for_init();
    // Model loaded, data plane up. `instance_id` is for a supervisor that speaks of this process later; empty = none.
    void send_ready(const std::string& instance_id = "");
    // For conversations after READY, in another thread from then on.
    ZmqSocket& socket() { return socket_; }
    std::unique_ptr<ZmqSocket> take_socket() { return std::make_unique<ZmqSocket>(std::move(socket_)); }

  private:
    void send_status(const char* status, const std::string& instance_id = "");

    HandshakeOptions options_;
    ZmqSocket socket_;
};

// Reads an INIT message. Throws MsgpackError.
EngineAddresses decode_init(std::span<const uint8_t> payload);

// What the frontend learns about the engine (vLLM: EngineCoreReadyResponse); superset of all releases, each of which
// ignores what it does not know.
struct ReadyResponse {
    int max_model_len = 0;
    int num_blocks = 0;
    int block_size = 0;
    std::string dtype;
    std::string vllm_version;
    int data_parallel_size = 1;  // of ranks in lockstep
    int data_parallel_rank = 0;
    int max_num_seqs = 0;
    int max_num_batched_tokens = 0;
    std::string instance_id;
    double load_seconds = 0;
};

std::vector<uint8_t> encode_ready_response(const ReadyResponse& ready);

}  // namespace blas_engine
