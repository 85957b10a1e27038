// What reaches the busy loop from other threads, in order of arrival.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/wave.h"
#include "wire/request_decoder.h"

namespace blas_engine {

// The frontend behind an input socket went away; whoever comes next on that socket knows nothing of its requests.
struct FrontendLost {
    int client_index;
};

// SIGTERM or SIGINT.
struct ShutdownRequested {
    int signal;
};

// An I/O thread cannot go on.
struct TransportFailed {
    std::string reason;
};

using InputEvent = std::variant<AddMessage, RejectedAdd, AbortMessage, UtilityMessage, FrontendLost, ShutdownRequested,
                                TransportFailed, WaveStart, WaveReport, WaveCompleted>;

class InputQueue {
  public:
    void push(InputEvent event);
    // Moves everything queued to the end of `events`. Waits for something to arrive until CLOCK_MONOTONIC `deadline`
    // (seconds; infinity = for ever, 0 = not at all).
    void take(std::vector<InputEvent>& events, double deadline);

  private:
    std::mutex mutex_;
    std::condition_variable arrived_;
    std::vector<InputEvent> queued_;
};

}  // namespace blas_engine
