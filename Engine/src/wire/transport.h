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
#include "core/pulse.h"
#include "core/request.h"
#include "sampling/sampling_params.h"
#include "wire/control.h"
#include "wire/handshake.h"
#include "wire/output_encoder.h"
#include "wire/zmq_socket.h"

namespace blas_engine {

struct TransportOptions {
    EngineAddresses addresses;
    int engine_index = 0;
    std::vector<uint8_t> ready_response;
    // The one in it.
    std::string instance_id;
    SamplingLimits limits;
    // Frontends may come and go: see control.h.
    bool control = false;
    OutputLayout layout = safe_output_layout();
    // CPUs for the I/O threads: those of the process before the compute pool pinned its threads.
    cpu_set_t cpus{};
};

class OutputThread;

// Decodes and checks messages on its thread, so that a long prompt does not hold up the busy loop.
class InputThread {
  public:
    // Connects all input sockets and registers with each frontend. With a coordinator, waits for its READY.
    // `pulse`: the busy loop's, which has to outlive this object.
    InputThread(ZmqContext& context, TransportOptions options, InputQueue& queue, OutputThread& output,
                const Pulse& pulse);
    ~InputThread();
    InputThread(const InputThread&) = delete;
    InputThread& operator=(const InputThread&) = delete;

    // Notes when the other end closes the socket that start() will get; to be called before it may. `address`: where it
    // is connected.
    void watch_control(ZmqSocket& control, const std::string& address);
    // `control`: where commands come from, if anywhere.
    void start(std::unique_ptr<ZmqSocket> control = nullptr);
    void stop();

  private:
    struct Client {
        ZmqSocket socket;
        ZmqSocket monitor;
        std::string output_address;
        // Over a unix socket a connection that ends means that the frontend has.
        bool local;
        bool connected_before = false;
    };
    void open_client(int client_index, const std::string& address, const std::string& output_address);
    void run();
    void poll_once(bool& stopped);
    ZmqSocket watch(ZmqSocket& socket);
    void handle_control_monitor();
    void handle_control();
    std::string carry_out(const ControlCommand& command);
    void report(std::string_view status, int client_index, std::string_view error = {});
    void receive_all(int client_index);
    void handle_message(const ZmqSocket::Message& message, int client_index);
    void answer_heartbeat(UtilityMessage call);
    void handle_monitor(int client_index);
    void drain_coordinator();

    ZmqContext& context_;
    TransportOptions options_;
    InputQueue& queue_;
    OutputThread& output_;
    const Pulse& pulse_;
    OutputEncoder encoder_;
    // By client index; null where there is no frontend.
    std::vector<std::unique_ptr<Client>> clients_;
    int monitors_opened_ = 0;
    std::unique_ptr<ZmqSocket> coordinator_;
    std::unique_ptr<ZmqSocket> control_;
    std::unique_ptr<ZmqSocket> control_monitor_;
    std::string control_address_;
    bool commanded_ = false;
    bool redials_slowly_ = false;
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

    // One more than the largest client index there may be.
    int num_clients() const { return num_clients_; }
    // The frontend that hears what concerns none in particular.
    int first_client() const { return first_client_.load(std::memory_order_relaxed); }
    // Takes effect before messages that are sent later.
    void open_client(int client_index, const std::string& address);
    // Drops what is not sent yet.
    void close_client(int client_index);
    bool has_coordinator() const { return has_coordinator_; }

    // An empty message, with the buffers of one already sent if there is one.
    std::unique_ptr<OutputMessage> acquire();
    void send(std::unique_ptr<OutputMessage> message);
    // ENGINE_CORE_DEAD to every frontend, behind everything queued so far.
    void send_engine_dead();

  private:
    struct Change {
        int client_index;
        std::unique_ptr<ZmqSocket> socket;  // null = close
    };
    void run();
    void change(Change change);
    std::unique_ptr<ZmqSocket> connect(const std::string& address);

    ZmqContext& context_;
    InputQueue& queue_;
    std::vector<std::unique_ptr<ZmqSocket>> sockets_;  // by client index; closed by the thread that uses them
    std::unique_ptr<ZmqSocket> coordinator_;
    int num_clients_;
    std::atomic<int> first_client_{0};
    bool has_coordinator_;
    cpu_set_t cpus_;
    std::mutex mutex_;
    std::condition_variable wakeup_;
    std::deque<std::unique_ptr<OutputMessage>> queued_;
    std::vector<Change> changes_;
    std::vector<std::unique_ptr<OutputMessage>> spare_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace blas_engine
