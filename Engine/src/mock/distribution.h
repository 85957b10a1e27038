// Random times for the mock.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace blas_engine {

// Non-negative times in seconds. A value depends on key and counter only.
struct Distribution {
    enum class Kind {
        constant,     // first
        uniform,      // from first to second
        exponential,  // mean first
        normal,       // mean first, standard deviation second; negative times become 0
        lognormal,    // median first; second is the standard deviation of the logarithm
    };
    Kind kind = Kind::constant;
    double first = 0;
    double second = 0;

    double sample(uint64_t key, uint64_t counter) const;

    // Milliseconds: "20", "constant:20", "uniform:10,30", "exponential:20", "normal:20,5", "lognormal:20,0.5".
    static std::optional<Distribution> parse(std::string_view text);
};

}  // namespace blas_engine
