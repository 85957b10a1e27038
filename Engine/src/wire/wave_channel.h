// Between the ranks of a lockstep deployment: reports to rank 0, and its word that a wave is over.
#pragma once

#include <sched.h>

#include <mutex>
#include <thread>
#include <vector>

#include "core/input_queue.h"
#include "wire/handshake.h"
#include "wire/zmq_socket.h"

namespace blas_engine {

// One frame of 9 bytes per message: kind (0 = busy, 1 = idle, 2 = wave completed), wave (int64, little-endian). Rank 0
// binds a ROUTER at the address that INIT's parallel_config names, the others connect DEALERs. Not a protocol of
// vLLM's: all ranks have to be engines of ours.
class WaveChannel {
  public:
    // Throws ZmqError if rank 0 cannot bind. What arrives goes to `queue`.
    WaveChannel(ZmqContext& context, const ParallelConfig& config, int rank, InputQueue& queue, const cpu_set_t& cpus);
    ~WaveChannel();
    WaveChannel(const WaveChannel&) = delete;
    WaveChannel& operator=(const WaveChannel&) = delete;

    void send(const WaveReport& report);        // to rank 0
    void send(const WaveCompleted& completed);  // to all others

  private:
    using Frame = std::vector<uint8_t>;

    void enqueue(uint8_t kind, int64_t wave);
    void run();
    void receive();
    void send_queued();

    int rank_;
    int size_;
    InputQueue& queue_;
    ZmqSocket socket_;
    int wakeup_;
    std::mutex mutex_;
    std::vector<Frame> queued_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace blas_engine
