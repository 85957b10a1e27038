#include "mock/distribution.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "sampling/random.h"

namespace blas_engine {
namespace {

constexpr double longest_ms = 1e7;  // of a parameter and of a draw

std::optional<double> parse_number(std::string_view text) {
    double number = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || !(number >= 0 && number <= longest_ms)) {
        return std::nullopt;
    }
    return number;
}

}  // namespace

double Distribution::sample(uint64_t key, uint64_t counter) const {
    // In (0, 1]: its logarithm is finite.
    const double u = 1 - random_uniform(key, 2 * counter);
    const auto gauss = [&] {
        return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * random_uniform(key, 2 * counter + 1));
    };
    double value = first;
    switch (kind) {
        case Kind::constant:
            return first;
        case Kind::uniform:
            value = second + u * (first - second);
            break;
        case Kind::exponential:
            value = -first * std::log(u);
            break;
        case Kind::normal:
            value = first + second * gauss();
            break;
        case Kind::lognormal:
            value = first * std::exp(second * gauss());
            break;
    }
    return std::clamp(value, 0.0, longest_ms / 1e3);
}

std::optional<Distribution> Distribution::parse(std::string_view text) {
    constexpr struct {
        std::string_view name;
        Kind kind;
        int parameters;
    } kinds[] = {{"constant", Kind::constant, 1},
                 {"uniform", Kind::uniform, 2},
                 {"exponential", Kind::exponential, 1},
                 {"normal", Kind::normal, 2},
                 {"lognormal", Kind::lognormal, 2}};
    const size_t colon = text.find(':');
    if (colon == std::string_view::npos) {
        const auto number = parse_number(text);
        if (!number) return std::nullopt;
        return Distribution{Kind::constant, *number / 1e3, 0};
    }
    for (const auto& entry : kinds) {
        if (entry.name != text.substr(0, colon)) continue;
        const std::string_view parameters = text.substr(colon + 1);
        const size_t comma = parameters.find(',');
        if ((comma == std::string_view::npos) != (entry.parameters == 1)) return std::nullopt;
        const auto a = parse_number(parameters.substr(0, comma));
        const auto b = entry.parameters == 1 ? std::optional(0.0) : parse_number(parameters.substr(comma + 1));
        if (!a || !b) return std::nullopt;
        if (entry.kind == Kind::uniform && *a > *b) return std::nullopt;
        if (entry.kind == Kind::lognormal && *b > 10) return std::nullopt;
        return Distribution{entry.kind, *a / 1e3, entry.kind == Kind::lognormal ? *b : *b / 1e3};
    }
    return std::nullopt;
}

}  // namespace blas_engine
