// Scripted failures of the mock.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "core/request.h"

namespace blas_engine {

// What happens, and when.
struct MockFault {
    enum class Kind {
        die,            // fatal error: ENGINE_CORE_DEAD, exit code 1
        exit,           // the process vanishes without a word, as after SIGKILL
        hang,           // the busy loop stops for good; sockets stay connected
        stall,          // one step takes `seconds` longer
        error_request,  // every `count`-th request ends with FinishReason::error on its first token
    };
    enum class Trigger { tokens, requests };
    Kind kind;
    Trigger trigger;
    int64_t count;  // when this many tokens were made, or requests had their first token
    double seconds = 0;
};

// "KIND-after-tokens=N" and "KIND-after-requests=N" with die, exit, hang; "stall-after-tokens=N:SECONDS" and
// "stall-after-requests=N:SECONDS"; "error-request=N".
std::optional<MockFault> parse_mock_fault(std::string_view text);

class FaultScript {
  public:
    explicit FaultScript(std::vector<MockFault> faults) : faults_(std::move(faults)) {}

    // After a request's tokens of a step were made. `first`: its first ones.
    void apply(Request& request, bool first);

  private:
    std::vector<MockFault> faults_;
    int64_t tokens_ = 0;
    int64_t requests_ = 0;
};

}  // namespace blas_engine
