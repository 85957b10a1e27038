// The output layouts of vLLM releases. Nothing on the wire names the version, so whoever starts the engine says it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace blas_engine {

enum class ProtocolFamily : uint8_t { v0_22, v0_25, v0_28, v0_30, v0_32, v0_33 };

// How EngineCoreOutputs are laid out for one frontend release.
struct OutputLayout {
    // What the frontend is told in the ready response.
    std::string_view vllm_version;
    // `ec_transfer_params` at position 9 of EngineCoreOutput, everything behind it one further.
    bool ec_transfer_slot;
    // `num_cache_creation_tokens` in prefill_stats.
    bool cache_creation_stat;
    // Elements of new_prompt_logprobs_tensors.
    int prompt_logprobs_elements;
    // `weight_version` as the ninth element of EngineCoreOutputs.
    bool weight_version;
    // `error` at position 18 of EngineCoreOutput.
    bool request_error;
    // wake_up answers whether the engine is fully awake; before it answers nil.
    bool wake_up_answers;
    // pause_generation exists and turns new requests away.
    bool pause_generation;
};

constexpr OutputLayout output_layout(ProtocolFamily family) {
    constexpr OutputLayout layouts[] = {
        {"0.22.0", false, false, 4, false, false, false, false},
        {"0.25.1", false, false, 4, false, false, false, false},
        {"0.28.0", true, true, 4, false, false, false, false},
        {"0.30.0", true, true, 5, false, false, false, false},
        {"0.32.0", true, true, 5, true, false, true, false},
        {"0.33.0", true, true, 5, true, true, true, true},
    };
    return layouts[static_cast<int>(family)];
}

// The form for a frontend of unknown version: every Rust frontend from 0.30 and every Python frontend reads it.
constexpr OutputLayout safe_output_layout() {
    OutputLayout layout = output_layout(ProtocolFamily::v0_30);
    layout.vllm_version = "0.32.0";
    layout.wake_up_answers = true;
    layout.pause_generation = true;
    layout.prompt_logprobs_elements = 4;
    return layout;
}

// "0.33", "0.33.1", "v0.33.0" name a family; nothing else does.
std::optional<ProtocolFamily> parse_protocol_family(std::string_view text);

}  // namespace blas_engine
