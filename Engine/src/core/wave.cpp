#include "core/wave.h"

#include <algorithm>

namespace blas_engine {

std::optional<int64_t> Wave::request_added(int64_t request_wave, bool paused) {
    const bool stale = request_wave < current_;
    if (request_wave > current_) {
        // The frontend has heard of the end of the wave before this rank has.
        current_ = request_wave;
        running_ = false;
    }
    if (running_) return std::nullopt;
    const bool tell = starts_itself_ ? !paused : stale;
    running_ = true;
    return tell ? std::optional(current_) : std::nullopt;
}

void Wave::start(const WaveStart& message) {
    if (message.excluded_rank == rank_ || message.wave < current_) return;
    current_ = message.wave;
    running_ = true;
}

std::optional<int64_t> Wave::completed(const WaveCompleted& message, bool unfinished) {
    if (message.wave < current_) return std::nullopt;
    current_ = message.wave + 1;
    running_ = unfinished;
    return unfinished ? std::optional(current_) : std::nullopt;
}

std::optional<WaveReport> Wave::report(bool unfinished) {
    const WaveReport now{rank_, current_, !unfinished};
    if (!running_ || (reported_ && reported_->wave == now.wave && reported_->idle == now.idle)) return std::nullopt;
    reported_ = now;
    return now;
}

void Wave::take(const WaveReport& report) {
    if (report.rank < 0 || static_cast<size_t>(report.rank) >= idle_in_.size()) return;
    idle_in_[static_cast<size_t>(report.rank)] = report.idle ? report.wave : -1;
}

std::optional<WaveCompleted> Wave::finish_if_idle() {
    if (!running_ || std::any_of(idle_in_.begin(), idle_in_.end(), [&](int64_t wave) { return wave < current_; })) {
        return std::nullopt;
    }
    running_ = false;
    return WaveCompleted{current_++};
}

}  // namespace blas_engine
