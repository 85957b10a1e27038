// The thread that ends the process when it is told to: signals, and the death of the supervisor.
#pragma once

#include <atomic>
#include <thread>

#include "core/input_queue.h"

namespace blas_engine {

class Lifeline {
  public:
    // Takes over SIGTERM and SIGINT of the process; there is one Lifeline in it.
    // `death_fd` (or -1) is the read end of a pipe; its end of file ends the process.
    Lifeline(int death_fd, InputQueue& queue);
    ~Lifeline();
    Lifeline(const Lifeline&) = delete;
    Lifeline& operator=(const Lifeline&) = delete;

    // Until now a signal exits at once (nothing is being served); from now on the first one goes to the queue.
    void serving() { serving_ = true; }

  private:
    void run();

    int death_fd_;
    InputQueue& queue_;
    int signal_pipe_[2];
    int stop_event_;
    std::atomic<bool> serving_{false};
    std::thread thread_;
};

}  // namespace blas_engine
