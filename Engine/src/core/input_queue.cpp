#include "core/input_queue.h"

#include <chrono>
#include <iterator>
#include <limits>

namespace blas_engine {

void InputQueue::push(InputEvent event) {
    {
        std::lock_guard lock(mutex_);
        queued_.push_back(std::move(event));
    }
    arrived_.notify_one();
}

void InputQueue::take(std::vector<InputEvent>& events, double deadline) {
    std::unique_lock lock(mutex_);
    auto ready = [&] { return !queued_.empty(); };
    if (deadline == std::numeric_limits<double>::infinity()) {
        arrived_.wait(lock, ready);
    } else if (deadline > 0) {
        // steady_clock is CLOCK_MONOTONIC.
        std::chrono::duration<double> since_boot(deadline);
        std::chrono::steady_clock::time_point until(
            std::chrono::duration_cast<std::chrono::steady_clock::duration>(since_boot));
        arrived_.wait_until(lock, until, ready);
    }
    if (events.empty()) {
        events.swap(queued_);
    } else {
        std::move(queued_.begin(), queued_.end(), std::back_inserter(events));
        queued_.clear();
    }
}

}  // namespace blas_engine
