// The part of the busy loop that takes part in waves; idle for engines that are independent of each other.
#include "core/clock.h"
#include "core/engine_core.h"
#include "core/log.h"

namespace blas_engine {

void EngineCore::handle(WaveStart& message) {
    if (!wave_) return;  // waves of other engines
    wave_->start(message);
}

void EngineCore::handle(WaveReport& message) {
    if (wave_) wave_->take(message);
}

void EngineCore::handle(WaveCompleted& message) {
    if (!wave_) return;
    if (auto next = wave_->completed(message, !scheduler_.empty())) send_wave(std::nullopt, next);
}

void EngineCore::join_wave(const Request& request) {
    if (!wave_) return;
    const bool paused = scheduler_.pause_state() != PauseState::running;
    if (auto start = wave_->request_added(request.wave, paused)) send_wave(std::nullopt, start);
}

void EngineCore::settle_wave() {
    if (!wave_) return;
    if (auto report = wave_->report(!scheduler_.empty())) {
        if (config_.engine_index == 0) {
            wave_->take(*report);
        } else {
            wave_channel_->send(*report);
        }
    }
    if (config_.engine_index != 0) return;
    if (auto completed = wave_->finish_if_idle()) {
        log(LogLevel::debug, "wave %lld is complete", static_cast<long long>(completed->wave));
        wave_channel_->send(*completed);
        send_wave(completed->wave, std::nullopt);
    }
}

void EngineCore::send_wave(std::optional<int64_t> completed, std::optional<int64_t> start) {
    auto message = output_.acquire();
    message->client_index = coordinator_client;
    StepOutputs outputs;
    outputs.wave_complete = completed;
    outputs.start_wave = start;
    outputs.timestamp = monotonic_seconds();
    encoder_.encode(outputs, *message);
    output_.send(std::move(message));
}

}  // namespace blas_engine
