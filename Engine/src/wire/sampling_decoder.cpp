#include "wire/sampling_decoder.h"

#include <optional>
#include <string_view>

namespace blas_engine {
namespace {

using Field = void (*)(MsgpackReader&, SamplingParams&);

std::vector<int32_t> read_token_ids(MsgpackReader& reader) {
    size_t count = reader.array_size();
    std::vector<int32_t> ids;
    ids.reserve(count);
    for (size_t i = 0; i < count; ++i) ids.push_back(read_token_id(reader));
    return ids;
}

void unsupported(SamplingParams& params, const char* name) {
    if (params.unsupported.empty()) params.unsupported = name;
}

void read_structured_outputs(MsgpackReader& reader, SamplingParams& params) {
    reader.skip();
    unsupported(params, "structured_outputs (guided decoding)");
}

void read_repetition_detection(MsgpackReader& reader, SamplingParams& params) {
    size_t count = reader.map_size();
    for (size_t i = 0; i < count; ++i) {
        std::string_view key = reader.string();
        RepetitionDetection& detection = params.repetition_detection;
        if (key == "max_pattern_size") {
            detection.max_pattern_size = reader.integer();
        } else if (key == "min_pattern_size") {
            detection.min_pattern_size = reader.integer();
        } else if (key == "min_count") {
            detection.min_count = reader.integer();
        } else {
            reader.skip();
        }
    }
}

void read_logit_bias(MsgpackReader& reader, SamplingParams& params) {
    size_t count = reader.map_size();
    for (size_t i = 0; i < count; ++i) {
        int32_t id = read_token_id(reader);
        params.logit_bias.emplace_back(id, static_cast<float>(reader.number()));
    }
}

void read_bad_words(MsgpackReader& reader, SamplingParams& params) {
    size_t count = reader.array_size();
    for (size_t i = 0; i < count; ++i) params.bad_words.push_back(read_token_ids(reader));
}

// Keys that act in the engine. A nil value always means the default, so the readers never see one.
constexpr struct {
    std::string_view key;
    Field read;
} fields[] = {
    {"n",
     [](MsgpackReader& r, SamplingParams& p) {
         if (r.integer() != 1) unsupported(p, "n other than 1 in one engine request");
     }},
    {"temperature", [](MsgpackReader& r, SamplingParams& p) { p.temperature = r.number(); }},
    {"top_p", [](MsgpackReader& r, SamplingParams& p) { p.top_p = r.number(); }},
    {"top_k", [](MsgpackReader& r, SamplingParams& p) { p.top_k = r.integer(); }},
    {"min_p", [](MsgpackReader& r, SamplingParams& p) { p.min_p = r.number(); }},
    {"repetition_penalty", [](MsgpackReader& r, SamplingParams& p) { p.repetition_penalty = r.number(); }},
    {"presence_penalty", [](MsgpackReader& r, SamplingParams& p) { p.presence_penalty = r.number(); }},
    {"frequency_penalty", [](MsgpackReader& r, SamplingParams& p) { p.frequency_penalty = r.number(); }},
    {"seed", [](MsgpackReader& r, SamplingParams& p) { p.seed = r.integer(); }},
    {"min_tokens", [](MsgpackReader& r, SamplingParams& p) { p.min_tokens = r.integer(); }},
    {"logprobs", [](MsgpackReader& r, SamplingParams& p) { p.logprobs = r.integer(); }},
    {"prompt_logprobs", [](MsgpackReader& r, SamplingParams& p) { p.prompt_logprobs = r.integer(); }},
    {"logprob_token_ids",
     [](MsgpackReader& r, SamplingParams& p) {
         p.logprob_token_ids = read_token_ids(r);
         p.has_logprob_token_ids = true;
     }},
    {"ignore_eos", [](MsgpackReader& r, SamplingParams& p) { p.ignore_eos = r.boolean(); }},
    {"_eos_token_id", [](MsgpackReader& r, SamplingParams& p) { p.eos_token_id = r.integer(); }},
    {"stop_token_ids", [](MsgpackReader& r, SamplingParams& p) { p.stop_token_ids = read_token_ids(r); }},
    {"_all_stop_token_ids", [](MsgpackReader& r, SamplingParams& p) { p.all_stop_token_ids = read_token_ids(r); }},
    {"allowed_token_ids",
     [](MsgpackReader& r, SamplingParams& p) {
         p.allowed_token_ids = read_token_ids(r);
         p.has_allowed_token_ids = true;
     }},
    {"logit_bias", read_logit_bias},
    {"_bad_words_token_ids", read_bad_words},
    {"repetition_detection", read_repetition_detection},
    {"skip_reading_prefix_cache",
     [](MsgpackReader& r, SamplingParams& p) { p.skip_reading_prefix_cache = r.boolean(); }},
    {"structured_outputs", read_structured_outputs},
    {"thinking_token_budget",
     [](MsgpackReader& r, SamplingParams& p) {
         r.integer();
         unsupported(p, "thinking_token_budget");
     }},
    {"prompt_logprob_token_ids",
     [](MsgpackReader& r, SamplingParams& p) {
         r.skip();
         unsupported(p, "prompt_logprob_token_ids");
     }},
    {"prompt_logprob_start",
     [](MsgpackReader& r, SamplingParams& p) {
         if (r.integer() != 0) unsupported(p, "prompt_logprob_start");
     }},
};

Field find_field(std::string_view key) {
    for (const auto& field : fields) {
        if (field.key == key) return field.read;
    }
    return nullptr;
}

}  // namespace

int32_t read_token_id(MsgpackReader& reader) {
    // Unsigned values above 2^63 are ids nobody has, too.
    MsgpackReader start = reader;
    if (reader.peek() != MsgpackReader::Kind::integer) reader.fail("an integer token id");
    if (start.skip()[0] == 0xcf) {
        uint64_t value = reader.unsigned_integer();
        return value <= INT32_MAX ? static_cast<int32_t>(value) : -1;
    }
    int64_t value = reader.integer();
    return value >= 0 && value <= INT32_MAX ? static_cast<int32_t>(value) : -1;
}

void read_sampling_params(MsgpackReader& reader, SamplingParams& params) {
    size_t count = reader.map_size();
    for (size_t i = 0; i < count; ++i) {
        std::string_view key = reader.string();
        if (key == "max_tokens") {  // the one key whose nil is not its default
            params.max_tokens.reset();
            if (!reader.try_nil()) params.max_tokens = reader.integer();
        } else if (reader.try_nil()) {
            continue;
        } else if (Field read = find_field(key)) {
            read(reader, params);
        } else {
            reader.skip();  // frontend-side options and parameters of later releases
        }
    }
}

}  // namespace blas_engine
