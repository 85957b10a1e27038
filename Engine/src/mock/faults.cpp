#include "mock/faults.h"

#include <unistd.h>

#include <charconv>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "core/log.h"

namespace blas_engine {
namespace {

template <typename Number>
bool parse(std::string_view text, Number& number) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::optional<MockFault> parse_mock_fault(std::string_view text) {
    using Kind = MockFault::Kind;
    using Trigger = MockFault::Trigger;
    constexpr struct {
        std::string_view name;
        Kind kind;
        Trigger trigger;
    } names[] = {{"die-after-tokens", Kind::die, Trigger::tokens},
                 {"die-after-requests", Kind::die, Trigger::requests},
                 {"exit-after-tokens", Kind::exit, Trigger::tokens},
                 {"exit-after-requests", Kind::exit, Trigger::requests},
                 {"hang-after-tokens", Kind::hang, Trigger::tokens},
                 {"hang-after-requests", Kind::hang, Trigger::requests},
                 {"stall-after-tokens", Kind::stall, Trigger::tokens},
                 {"stall-after-requests", Kind::stall, Trigger::requests},
                 {"error-request", Kind::error_request, Trigger::requests}};
    const size_t equals = text.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    for (const auto& entry : names) {
        if (entry.name != text.substr(0, equals)) continue;
        MockFault fault{entry.kind, entry.trigger, 0};
        const std::string_view numbers = text.substr(equals + 1);
        const size_t colon = numbers.find(':');
        if ((colon != std::string_view::npos) != (entry.kind == Kind::stall)) return std::nullopt;
        if (!parse(numbers.substr(0, colon), fault.count) || fault.count < 1) return std::nullopt;
        if (entry.kind == Kind::stall &&
            (!parse(numbers.substr(colon + 1), fault.seconds) || !(fault.seconds >= 0 && fault.seconds <= 1e6))) {
            return std::nullopt;
        }
        return fault;
    }
    return std::nullopt;
}

void FaultScript::apply(Request& request, bool first) {
    if (faults_.empty()) return;
    const int64_t tokens_before = tokens_, requests_before = requests_;
    tokens_ += static_cast<int64_t>(request.new_tokens.size());
    requests_ += first ? 1 : 0;
    for (const MockFault& fault : faults_) {
        if (fault.kind == MockFault::Kind::error_request) {
            if (first && requests_ % fault.count == 0) {
                request.error = RequestError{"internal_error", "Scripted failure of this request.", false};
            }
            continue;
        }
        const bool tokens = fault.trigger == MockFault::Trigger::tokens;
        const int64_t before = tokens ? tokens_before : requests_before, now = tokens ? tokens_ : requests_;
        if (before >= fault.count || now < fault.count) continue;
        switch (fault.kind) {
            case MockFault::Kind::die:
                throw std::runtime_error("scripted death of the mock engine");
            case MockFault::Kind::exit:
                log(LogLevel::warning, "scripted exit of the mock engine");
                _exit(1);
            case MockFault::Kind::hang:
                log(LogLevel::warning, "scripted hang of the mock engine");
                for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
            case MockFault::Kind::stall:
                log(LogLevel::warning, "scripted stall of the mock engine for %g s", fault.seconds);
                std::this_thread::sleep_for(std::chrono::duration<double>(fault.seconds));
                break;
            case MockFault::Kind::error_request:
                break;
        }
    }
}

}  // namespace blas_engine
