// The data plane: one thread that receives from all frontends, one that sends to them.
#pragma once

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/input_queue.h"
#include "core/request.h"
#include "sampling/sampling_params.h"
#include "wire/handshake.h"
#include "wire/output_encoder.h"
#include "wire/zmq_socket.h"

namespace blas_engine {

struct TransportOptions {
    EngineAddresses addresses;
    int engine_index = 0;
    std::vector<uint8_t> ready_response;
    SamplingLimits limits;
    // CPUs for the I/O threads: those of the process before the compute pool pinned its threads.
    cpu_set_t cpus{};
};

// Decodes and checks messages on its thread, so that a long prompt does not hold up the busy loop.
class InputThread {
  public:
    // Connects all input sockets and registers with each frontend. With a coordinator, waits for its READY.
    InputThread(ZmqContext& context, TransportOptions options, InputQueue& queue);
    ~InputThread();
    InputThread(const InputThread&) = delete;
    InputThread& operator=(const InputThread&) = delete;

    void start();
    void stop();

  private:
    struct Client {
        ZmqSocket socket;
        ZmqSocket monitor;
        bool connected_before = false;
    };
    void run();
    void receive_all(int client_index);
    void handle_message(const ZmqSocket::Message& message, int client_index);
    void handle_monitor(int client_index);
    void drain_coordinator();

    ZmqContext& context_;
    TransportOptions options_;
    InputQueue& queue_;
    std::vector<Client> clients_;
    std::unique_ptr<ZmqSocket> coordinator_;
    ZmqSocket::Message message_;
    std::vector<std::span<const uint8_t>> views_;
    int stop_event_;
    std::thread thread_;
};

// Index of the DP coordinator in place of a client index.
inline constexpr int coordinator_client = -1;

class OutputThread {
  public:
    OutputThread(ZmqContext& context, const TransportOptions& options, InputQueue& queue);
    ~OutputThread();
    OutputThread(const OutputThread&) = delete;
    OutputThread& operator=(const OutputThread&) = delete;

    void start();
    // Sends what is queued, then ends the thread and closes the sockets (unsent data lingers a few seconds).
    void stop();

    int num_clients() const { return num_clients_; }
    bool has_coordinator() const { return has_coordinator_; }

    // An empty message, with the buffers of one already sent if there is one.
    std::unique_ptr<OutputMessage> acquire();
    void send(std::unique_ptr<OutputMessage> message);
    // ENGINE_CORE_DEAD to every frontend, behind everything queued so far.
    void send_engine_dead();

  private:
    void run();

    InputQueue& queue_;
    std::vector<ZmqSocket> sockets_;  // closed by the thread that uses them
    std::unique_ptr<ZmqSocket> coordinator_;
    int num_clients_;
    bool has_coordinator_;
    cpu_set_t cpus_;
    std::mutex mutex_;
    std::condition_variable wakeup_;
    std::deque<std::unique_ptr<OutputMessage>> queued_;
    std::vector<std::unique_ptr<OutputMessage>> spare_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace blas_engine
