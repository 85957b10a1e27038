// A frontend for tests: real sockets, a real blas-engine process on the other end, every message scripted.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "captured.h"
#include "wire/zmq_socket.h"

namespace blas_engine::testing {

// The engine binary as a child process.
class EngineProcess {
  public:
    // `death_pipe` gives it the read end of a pipe whose write end this object holds.
    explicit EngineProcess(std::vector<std::string> arguments, bool death_pipe = false);
    ~EngineProcess();  // kills it if it still runs
    EngineProcess(const EngineProcess&) = delete;
    EngineProcess& operator=(const EngineProcess&) = delete;

    void signal(int number) const;
    void close_death_pipe();
    // Exit code, or 128 + signal. Fails the test (and returns -1) if it does not end within 20 s.
    int wait();
    // What it has written to stderr so far.
    std::string log() const;

  private:
    pid_t pid_ = -1;
    int exit_fd_ = -1;
    int log_fd_ = -1;
    int death_fd_ = -1;
};

// One decoded EngineCoreOutputs message.
struct Outputs {
    std::vector<std::string> envelope;               // described elements
    std::vector<std::vector<std::string>> requests;  // described elements of each output
    size_t frames = 0;
    bool dead = false;  // ENGINE_CORE_DEAD

    // A key of scheduler_stats, described.
    std::string stat(const std::string& key) const;
    std::map<std::string, std::string> stats;
};

class ScriptedFrontend {
  public:
    explicit ScriptedFrontend(int num_clients = 1, bool coordinator = false);
    ~ScriptedFrontend();

    std::string handshake_address() const { return "ipc://" + directory_ + "/handshake"; }
    // Arguments that join this frontend with a mock model, plus `more`.
    std::vector<std::string> arguments(std::vector<std::string> more = {}) const;

    // The whole handshake. Every step fails the test if the engine does not answer.
    void accept_engine();
    Bytes receive_hello();
    void send_init();
    Bytes receive_registration(int client = 0);
    Bytes receive_ready();

    void send(uint8_t type, const Bytes& payload, int client = 0);
    void send_frames(const std::vector<Bytes>& frames, int client = 0);
    void add(const std::string& id, int max_tokens, std::map<std::string, Bytes> sampling = {}, int client = 0,
             std::vector<int32_t> prompt = {5, 6, 7});
    void abort(const std::vector<std::string>& ids, int client = 0);
    // Calls and waits for the answer, which it returns as [call id, failure, result]. Outputs that arrive before it are
    // kept for `next`.
    std::vector<std::string> call(const std::string& method, const Bytes& arguments = {0x90}, int client = 0);
    void send_call(uint8_t call_id, const std::string& method, const Bytes& arguments, int client = 0);

    // The next message on a client's output socket; fails the test after 20 s without one.
    Outputs next(int client = 0);
    // Reads until `id` has finished; returns its tokens. `finish` gets finish_reason, described.
    std::vector<int> collect(const std::string& id, std::string* finish = nullptr, int client = 0);
    // True if no message is waiting now.
    bool quiet(int client = 0);

    // One more client with bound sockets, which the engine does not know yet; returns its index.
    int add_client();
    std::string input_address(int client) const { return "ipc://" + directory_ + "/in-" + std::to_string(client); }
    std::string output_address(int client) const { return "ipc://" + directory_ + "/out-" + std::to_string(client); }
    // As vLLM's launcher does when all engines are ready.
    void close_handshake() { handshake_.reset(); }
    // To the engine's handshake socket, after READY.
    void send_control(const Bytes& payload);
    // The next message from there, described.
    std::map<std::string, std::string> receive_control();

    // Closes one client's sockets and binds new ones at the same addresses, as a restarted frontend does.
    void restart_client(int client);

    ZmqSocket& coordinator_input() { return *coordinator_input_; }
    ZmqSocket& coordinator_output() { return *coordinator_output_; }

    Bytes identity;
    // INIT's parallel_config.
    Bytes parallel_config = {0x80};

  private:
    void bind_client(int client);
    std::vector<Bytes> receive(ZmqSocket& socket, const char* what);

    std::string directory_;
    ZmqContext context_;
    std::unique_ptr<ZmqSocket> handshake_;
    std::vector<std::unique_ptr<ZmqSocket>> inputs_;
    std::vector<std::unique_ptr<ZmqSocket>> outputs_;
    std::unique_ptr<ZmqSocket> coordinator_input_;
    std::unique_ptr<ZmqSocket> coordinator_output_;
    std::vector<std::vector<Outputs>> kept_;
    uint8_t next_call_id_ = 1;
};

Bytes pack_int(int64_t value);
Bytes pack_ints(const std::vector<int32_t>& values);
Bytes pack_bool(bool value);
Bytes pack_string(const std::string& text);
Bytes pack_array(const std::vector<Bytes>& elements);

}  // namespace blas_engine::testing
