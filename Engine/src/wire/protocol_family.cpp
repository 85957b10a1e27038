#include "wire/protocol_family.h"

namespace blas_engine {

std::optional<ProtocolFamily> parse_protocol_family(std::string_view text) {
    if (text.starts_with('v')) text.remove_prefix(1);
    // The patch level does not change the layout.
    if (auto second_dot = text.find('.', text.find('.') + 1); second_dot != std::string_view::npos) {
        std::string_view patch = text.substr(second_dot + 1);
        if (patch.empty() || patch.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
        text = text.substr(0, second_dot);
    }
    constexpr struct {
        std::string_view name;
        ProtocolFamily family;
    } names[] = {{"0.22", ProtocolFamily::v0_22}, {"0.25", ProtocolFamily::v0_25}, {"0.28", ProtocolFamily::v0_28},
                 {"0.30", ProtocolFamily::v0_30}, {"0.32", ProtocolFamily::v0_32}, {"0.33", ProtocolFamily::v0_33}};
    for (const auto& entry : names) {
        if (entry.name == text) return entry.family;
    }
    return std::nullopt;
}

}  // namespace blas_engine
